"""Ray as it is started on this machine, or reached where it runs.

Started here it listens on the loopback interface only, has no dashboard, reports to nobody, and is gone, with its
files, when it is no longer needed. An address is asked first whether Ray answers there: Ray itself would wait for
minutes. What Ray says goes nowhere, unless it is wanted.
"""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ghostdeploy import errors
from ghostdeploy.isolation import child_command, child_environment

if TYPE_CHECKING:
    from collections.abc import Iterator

ANSWERS_S = 5.0
"""Seconds in which the address of a cluster must take a connection."""
HEALTH_S = 60.0
"""Seconds in which it must prove to be Ray's, of this version."""
STARTS = 3
"""Attempts to start a cluster: Ray waits 30 s for its processes, which a busy machine may not start so fast."""
_STORE = 128 << 20
"""Bytes of the object store: rows are small, and images never are in it."""
_LONGEST_FOLDER = 40
"""Characters of a folder that Ray's sockets still fit in: a path of a socket has 107 at most."""
_ENVIRONMENT = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_BACKEND_LOG_LEVEL": "fatal",
    "RAY_DATA_DISABLE_PROGRESS_BARS": "1",
    "RAY_memory_monitor_refresh_ms": "0",
    "RAY_enable_metrics_collection": "0",
    "RAY_worker_niceness": "0",  # its own value is 15: beside other work an evaluation would wait for that
}
_LOOPBACK = {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}
"""How Ray is told to take 127.0.0.1 as it is; otherwise it replaces it by the address of the network."""


@dataclass(frozen=True, slots=True)
class Ray:
    """What to run on."""

    address: str | None = None
    """`HOST:PORT` of a cluster, `auto`; None starts one on this machine."""
    workers: int | None = None
    """Worker processes; None is one per core."""
    verbose: bool = False
    """Let Ray talk on standard error."""


@contextlib.contextmanager
def environment(wanted: Ray) -> Iterator[None]:
    """Sets what Ray reads when it is imported and started, as long as it runs."""
    given = _ENVIRONMENT | (_LOOPBACK if wanted.address is None else {})
    before = {name: os.environ.get(name) for name in given}
    os.environ.update(given)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def import_ray(wanted: Ray) -> None:
    """Imports Ray and Ray Data, silent unless it is wanted otherwise.

    Raises:
        MissingDependency: One is not installed.
    """
    try:
        with _unwarned():
            import ray
            import ray.data

            context = ray.data.DataContext.get_current()
    except ImportError as error:
        raise errors.MissingDependency(
            f"--workers ray needs {'Ray Data' if error.name != 'ray' else 'Ray'}, not installed here: {error}",
            hint='pip install "ghostdeploy[ray]"',
        ) from error
    if not wanted.verbose:
        for name in ("ray", "ray.data"):
            logging.getLogger(name).setLevel(logging.CRITICAL)
        ray._private.worker._worker_logs_enabled = False  # else it prints on stdout that a worker died
    context.enable_progress_bars = False
    context.print_on_execution_start = False


def start(cores: int, wanted: Ray, undo: contextlib.ExitStack) -> None:
    """Starts a cluster of this machine.

    Args:
        cores: That its workers may take.
        wanted: What to run on.
        undo: Takes what ends it.

    Raises:
        UnsupportedHardware: It cannot be started.
    """
    for left in reversed(range(STARTS)):
        try:
            _start_once(cores, wanted, undo)
        except errors.UnsupportedHardware:
            if not left:
                raise
        else:
            return


def _start_once(cores: int, wanted: Ray, undo: contextlib.ExitStack) -> None:
    parent = tempfile.gettempdir()
    folder = Path(tempfile.mkdtemp(prefix="gd-", dir=parent if len(parent) <= _LONGEST_FOLDER else "/tmp"))
    undo.callback(shutil.rmtree, folder, ignore_errors=True)
    _init(
        wanted,
        undo,
        "Ray cannot be started on this machine",
        num_cpus=cores,
        _node_ip_address="127.0.0.1",
        object_store_memory=_STORE,
        _temp_dir=str(folder),
    )


def connect(address: str, wanted: Ray, undo: contextlib.ExitStack) -> None:
    """Connects to a cluster, or says within a time limit why not."""
    if address != "auto":
        host, _, port = address.rpartition(":")
        try:
            socket.create_connection((host.strip("[]"), int(port)), ANSWERS_S).close()
        except OSError as error:
            raise errors.UnsupportedHardware(
                f"no Ray cluster answers at {address}: {error.strerror or error}",
                hint="start one there with: ray start --head --port=6379; or leave the address out",
            ) from error
        _require_health(address)
    _init(wanted, undo, f"the Ray cluster at {address} cannot be used", address=address)


def _require_health(address: str) -> None:
    """Asks a port whether it is Ray's, of our version, in a process that can be ended."""
    command = child_command("ghostdeploy.deploy.prove.sharded.ray_health", address)
    try:
        done = subprocess.run(
            command, env=child_environment(), capture_output=True, text=True, check=False, timeout=HEALTH_S
        )
    except subprocess.TimeoutExpired:
        done = None
    if done is None or done.returncode:
        lines = [] if done is None else (done.stderr or done.stdout).strip().splitlines()
        why = lines[-1] if lines else f"no answer within {HEALTH_S:.0f} s"
        raise errors.UnsupportedHardware(
            f"what answers at {address} is no Ray cluster of this version: {why}",
            hint="give the address of ray start --head, and the same versions of Python and Ray",
        )


def _init(wanted: Ray, undo: contextlib.ExitStack, failed: str, **options: Any) -> None:
    import ray

    if ray.is_initialized():
        raise errors.UsageError(
            "Ray runs in this process already, and would be ended with the evaluation",
            hint="evaluate in a process of its own, or call ray.shutdown() before",
        )
    main = threading.current_thread() is threading.main_thread()
    handler = signal.getsignal(signal.SIGTERM) if main else None
    try:
        with _quiet(wanted):
            ray.init(
                include_dashboard=None if "address" in options else False,
                log_to_driver=wanted.verbose,
                logging_level=logging.INFO if wanted.verbose else logging.CRITICAL,
                **options,
            )
    except Exception as error:  # Ray raises a dozen kinds, and none of them documented
        ray.shutdown()
        raise errors.UnsupportedHardware(f"{failed}: {first_line(error)}", hint="-v shows what Ray says") from error
    finally:
        if handler is not None:
            signal.signal(signal.SIGTERM, handler)  # Ray replaces it
    undo.callback(ray.shutdown)


@contextlib.contextmanager
def _unwarned() -> Iterator[None]:
    """Ray warns of settings of its own that it sets itself."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


@contextlib.contextmanager
def _quiet(wanted: Ray) -> Iterator[None]:
    """Keeps what Ray's native code writes on standard error while it starts to itself."""
    if wanted.verbose:
        yield
        return
    sys.stderr.flush()
    kept = os.dup(2)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)


def share(wanted: Ray) -> tuple[int, int]:
    """Returns the workers of a cluster, and the threads of each."""
    import ray

    cores = int(ray.cluster_resources().get("CPU", 0))
    if cores < (wanted.workers or 1):
        raise errors.UsageError(
            f"worker count is {wanted.workers or 1}, the cluster has {cores} processors", hint="ask for fewer workers"
        )
    return (cores, 1) if wanted.workers is None else (wanted.workers, cores // wanted.workers)


def first_line(error: BaseException) -> str:
    """Returns what an error says in its first line, or its kind."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0] if lines else type(error).__name__
