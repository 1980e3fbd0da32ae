"""What the user's code may change of the whole process, and what is restored afterwards.

Factories and networks are research code: they change the working folder to their repository, call
`torch.set_default_device`, turn warnings into errors, handle Ctrl-C themselves. The rest of this process (relative
paths of the command line, the float32 reference, converters, messages) must not depend on that. Environment variables,
seeds and numbers of threads stay as the code left them: the network may rely on them.
"""

from __future__ import annotations

import locale
import logging
import os
import signal
import sys
import threading
import warnings
from contextlib import ExitStack, contextmanager, suppress
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_NAMES = ("SIGALRM", "SIGCHLD", "SIGHUP", "SIGINT", "SIGPIPE", "SIGQUIT", "SIGTERM", "SIGUSR1", "SIGUSR2")
_SIGNALS = tuple(getattr(signal, name) for name in _NAMES if hasattr(signal, name))
"""Those that programs handle; a look at all of them takes a millisecond."""
_PRIVATE = 0o077
"""What a file of another thread gets that is made while the mask is looked at, which takes a change."""


@contextmanager
def undisturbed() -> Iterator[None]:
    """Puts back what the code in the block changed of the process, however the block ends."""
    with ExitStack() as stack:
        for keep in (_keep_messages, _keep_system, _keep_streams, _keep_signals, _keep_numbers, _keep_torch):
            stack.callback(keep())
        yield


def _keep_system() -> Callable[[], None]:
    folder = _working_folder()
    mask = _umask()
    names = locale.setlocale(locale.LC_ALL)

    def put_back() -> None:
        if folder is not None and _working_folder() != folder:
            with suppress(OSError):  # it was removed
                os.chdir(folder)
        os.umask(mask)
        if locale.setlocale(locale.LC_ALL) != names:
            locale.setlocale(locale.LC_ALL, names)

    return put_back


def _keep_streams() -> Callable[[], None]:
    out, err, words, content = sys.stdout, sys.stderr, sys.argv, list(sys.argv)

    def put_back() -> None:
        sys.stdout, sys.stderr, sys.argv = out, err, words
        words[:] = content

    return put_back


def _keep_signals() -> Callable[[], None]:
    if threading.current_thread() is not threading.main_thread():  # Python sets handlers there alone
        return lambda: None
    before = {number: signal.getsignal(number) for number in _SIGNALS}

    def put_back() -> None:
        for number, handler in before.items():
            if handler is not None and signal.getsignal(number) != handler:  # None: not set from Python
                signal.signal(number, handler)

    return put_back


def _keep_numbers() -> Callable[[], object]:
    errors = np.geterr()
    return lambda: np.seterr(**errors)


def _keep_torch() -> Callable[[], None]:
    dtype, device, gradients = torch.get_default_dtype(), torch.get_default_device(), torch.is_grad_enabled()
    deterministic, precision = _determinism(), torch.get_float32_matmul_precision()

    def put_back() -> None:
        torch.set_default_dtype(dtype)
        if torch.get_default_device() != device:
            torch.set_default_device(None if device.type == "cpu" else device)  # None is torch's own way, and faster
        torch.set_grad_enabled(gradients)
        if _determinism() != deterministic:  # setting it imports torch's compiler
            torch.use_deterministic_algorithms(deterministic[0], warn_only=deterministic[1])
        torch.set_float32_matmul_precision(precision)

    return put_back


def _determinism() -> tuple[bool, bool]:
    return torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()


def _keep_messages() -> Callable[[], None]:
    active: Any = warnings.filters  # a list, despite its stub
    filters, show = list(active), warnings.showwarning
    level = logging.root.manager.disable
    silent = {name: logger.disabled for name, logger in _our_loggers().items()}

    def put_back() -> None:
        if warnings.filters is not active or active != filters:
            warnings.filters = active
            warnings.resetwarnings()  # empties the list and tells Python that it changes
            active[:] = filters
        warnings.showwarning = show
        logging.disable(level)
        for name, logger in _our_loggers().items():  # `logging.config` switches off what it does not name
            logger.disabled = silent.get(name, False)

    return put_back


def _working_folder() -> str | None:
    try:
        return os.getcwd()  # noqa: PTH109 - as the system names it
    except OSError:  # it was removed
        return None


def _umask() -> int:
    mask = os.umask(_PRIVATE)
    os.umask(mask)
    return mask


def _our_loggers() -> dict[str, logging.Logger]:
    known = list(logging.root.manager.loggerDict.items())  # other threads may add some
    return {name: one for name, one in known if name.startswith("ghostdeploy") and isinstance(one, logging.Logger)}
