"""NVIDIA's inference library: `tensorrt` where it is installed, else `tensorrt_rtx`; the same names in both.

The library reports its reasons to a logger, not in its exceptions, and keeps one logger per process: the first one
given. So there is one here, and callers collect its messages while they need them.
"""

from __future__ import annotations

import re
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from ghostdeploy.errors import MissingDependency
from ghostdeploy.nvidia.kit import AHEAD, MIN_TENSORRT, TIMED
from ghostdeploy.telemetry import silent

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ghostdeploy.nvidia.kit import LibraryName

TITLES: dict[LibraryName, str] = {TIMED: "TensorRT", AHEAD: "TensorRT for RTX"}
"""Import names in the order of preference."""

_CUDA_ERROR = re.compile(r"cudaError (\d+): ([^)]*)\)|CUDA initialization failure with error:? (\d+)")
_SOURCE = re.compile(r"\.?\s*\bIn \S+ at [^\s:]+:\d+")
_PREFIX = re.compile(r"^(\[[^\]]*\]|\w+::\w+:) *")


@dataclass(eq=False)  # listeners are compared by identity
class Messages:
    """Messages of the library during one `with` block."""

    errors: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    def reason(self) -> str:
        """Returns the library's own words for what went wrong; a CUDA error counts more than what followed from it."""
        for text in self.errors:
            if found := _CUDA_ERROR.search(text):
                number, said, bare = found.groups()
                return f"CUDA error {number}: {said}" if number else f"CUDA error {bare}"
        return plain(self.errors[0]) if self.errors else "it gave no reason"


@dataclass(frozen=True)
class Library:
    """The imported library."""

    name: LibraryName
    api: Any
    """The module."""
    logger: Any
    """An `ILogger`, the only one of this process."""

    @property
    def title(self) -> str:
        """Name and version for messages."""
        return f"{TITLES[self.name]} {self.version}"

    @property
    def version(self) -> str:
        """Version of the library."""
        return str(self.api.__version__)

    @contextmanager
    def listening(self) -> Iterator[Messages]:
        """Collects the library's messages while the block runs, from any thread."""
        messages = Messages()
        self.logger.listeners.append(messages)
        try:
            yield messages
        finally:
            self.logger.listeners.remove(messages)


def installed() -> list[LibraryName]:
    """Returns the libraries that could be imported; imports nothing."""
    return [name for name in TITLES if find_spec(name) is not None]


@cache
def load_library(name: LibraryName) -> Library:
    """Imports one library.

    Raises:
        MissingDependency: It is absent, too old, or present and broken; the real error is chained.
    """
    try:
        with silent():
            api = import_module(name)
    except ImportError as error:
        raise MissingDependency(f"{name} cannot be imported: {error}", hint=install_hint(name)) from error
    library = Library(name, api, _new_logger(api))
    if name == TIMED and _release(library.version) < _release(MIN_TENSORRT):
        raise MissingDependency(
            f"{library.title} is too old, expected {MIN_TENSORRT} or later", hint="pip install --upgrade tensorrt"
        )
    return library


def any_library() -> Library:
    """Imports the preferred library that is installed.

    Raises:
        MissingDependency: There is none, or it is broken.
    """
    names = installed()
    if not names:
        raise MissingDependency(
            f"none of {', '.join(TITLES)} is installed here", hint=f"{install_hint(TIMED)}, or [tensorrt-rtx]"
        )
    return load_library(names[0])


def install_hint(name: LibraryName) -> str:
    """Returns the pip command that installs a library."""
    return f'pip install "ghostdeploy[{name.replace("_", "-")}]"'


def plain(text: str) -> str:
    """Returns a message of the library without its class names and source lines."""
    words = _SOURCE.sub("", _PREFIX.sub("", text.strip()))
    return " ".join(words.split()).rstrip(". ")


def _release(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split(".")[:2])


def _new_logger(api: Any) -> Any:
    class Logger(api.ILogger):  # type: ignore[misc]  # the base is known at run time only
        def __init__(self) -> None:
            super().__init__()
            self.listeners: list[Messages] = []

        def log(self, severity: Any, text: str) -> None:
            if severity in (api.ILogger.ERROR, api.ILogger.INTERNAL_ERROR):
                for messages in list(self.listeners):
                    messages.errors.append(text)
            elif severity == api.ILogger.WARNING:
                for messages in list(self.listeners):
                    messages.warnings.append(text)

    return Logger()
