"""What is sent to a device: files by their SHA-256, and where each is laid out there.

The device wheel, every bundle (what its manifest lists, and the manifest), and the labelled set where one is named.
Nothing else.
"""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING

from ghostdeploy.bundle.folder import MANIFEST, sha256
from ghostdeploy.errors import DataError
from ghostdeploy.remote.device_wheel import device_wheel

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from ghostdeploy.bundle.folder import Bundle

_SENT = "sent"
_LISTS = {".json", ".csv"}
"""Suffixes of files that list images beside them."""


class Cargo:
    """Files on their way.

    Args:
        inside: Whether payloads are looked into there.

    Attributes:
        objects: By hash: a file here, or its bytes.
        folders: By relative path there: the hash of its content.
    """

    def __init__(self, *, inside: bool = False) -> None:
        self.objects: dict[str, Path | bytes] = {}
        self.folders: dict[str, str] = {}
        self._names: dict[str, str] = {}
        _, wheel = device_wheel(inside=inside)
        self._add("device.whl", hashlib.sha256(wheel).hexdigest(), wheel)

    def bundle(self, bundle: Bundle, given: str) -> str:
        """Adds a bundle whose hashes were checked; returns its path there.

        Args:
            bundle: Opened.
            given: Its path as the user gave it.
        """
        place = self._place(f"bundle-{len(self._names)}", given)
        for record in bundle.manifest.files:
            self._add(f"{place}/{record.path}", record.sha256, bundle.path / record.path)
        manifest = bundle.path / MANIFEST
        self._add(f"{place}/{MANIFEST}", sha256(manifest), manifest)
        return place

    def data(self, path: Path) -> str:
        """Adds a labelled set: a folder, a file, or a file and the folder whose images it lists; returns its path."""
        root = path
        if path.is_file() and path.suffix in _LISTS:
            root = path.parent.parent if path.parent.name == "annotations" else path.parent
        if root.is_file():
            place = self._place(f"set{root.suffix}", str(root))
            self._add(place, sha256(root), root)
            return place
        files = sorted(one for one in root.rglob("*") if one.is_file())
        if not files:
            raise DataError(f"{path} does not exist or holds no file")
        place = self._place("set", str(root))
        for file in files:
            self._add(f"{place}/{file.relative_to(root).as_posix()}", sha256(file), file)
        return place if root == path else f"{place}/{path.relative_to(root).as_posix()}"

    def sizes(self) -> dict[str, int]:
        """Returns the bytes of every object."""
        return {name: len(one) if isinstance(one, bytes) else one.stat().st_size for name, one in self.objects.items()}

    def content(self, name: str) -> bytes:
        """Returns an object."""
        one = self.objects[name]
        return one if isinstance(one, bytes) else one.read_bytes()

    def as_given(self, place: str) -> str:
        """Returns the path that the user gave for a bundle or set."""
        root = "/".join(place.split("/")[:2])
        return self._names[root] + place.removeprefix(root)

    def translated(self, line: bytes) -> bytes:
        """Returns JSON from the device with the paths that the user gave, as `shown` writes them."""
        for place in sorted(self._names, key=len, reverse=True):
            line = line.replace(place.encode(), json.dumps(shown(self._names[place]))[1:-1].encode())
        return line

    def _place(self, name: str, given: str) -> str:
        place = f"{_SENT}/{name}"
        self._names[place] = given
        return place

    def _add(self, place: str, name: str, content: Path | bytes) -> None:
        self.folders[place] = name
        self.objects[name] = content


def shown(path: str) -> str:
    """Returns a path as it can travel: bytes that are no text are replaced."""
    return path.encode("utf-8", "replace").decode()


def total(sizes: dict[str, int], names: Iterable[str]) -> int:
    """Returns the bytes of some objects together."""
    return sum(sizes[name] for name in names)
