"""The bundle directory: what belongs to it, paths that stay inside, hashes before parsing.

    OUT/<model>-<target>-<precision>/   manifest.json  golden.npz  labels.txt  <payload files>

The bytes that are hashed are the bytes that are parsed: a file is read into memory once, hashed there, and passed on to
the parser. Nothing is mapped, so overwriting a bundle does not affect a model that runs from it. A bundle has regular
files only; links are refused, because their targets may change.

Writing is `staging`.
"""

from __future__ import annotations

import hashlib
import os
import re
from typing import TYPE_CHECKING

import numpy as np

from ghostdeploy import targets
from ghostdeploy.arguments import require_path
from ghostdeploy.arrays import aligned, parse_arrays
from ghostdeploy.bundle import manifest as mf
from ghostdeploy.bundle.whole_numbers import refuse_huge
from ghostdeploy.errors import BundleError
from ghostdeploy.files import is_relative_name, is_there, open_regular, read_limited

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path
    from typing import BinaryIO

    from numpy.typing import NDArray

MANIFEST = "manifest.json"
GOLDEN = "golden.npz"
LABELS = "labels.txt"
DIAGNOSIS = "diagnosis.json"
"""Quantized bundles only."""

MAX_MANIFEST = 16 << 20
"""Bytes of the largest `manifest.json`; one of a thousand layers has 0.1 MB."""
MAX_GOLDEN = 4 << 30
"""Bytes of the arrays in the largest `golden.npz`."""

_AGAIN = "export the bundle again"
_BLOCK = 256 << 10
"""Bytes; it stays in the second cache."""
_IMAGES = re.compile(r"pixels_\d{1,4}|normalised_levels")
"""Names of original images in `golden.npz`, and of what is kept beside them."""
SIMULATED = "simulated."
"""Prefix of the outputs of the quantized graph executed in float, in `golden.npz`."""

Arrays = dict[str, "NDArray[np.generic]"]


class Bundle:
    """A bundle on disk whose manifest has been read and whose files have been checked.

    Args:
        path: The directory.
        manifest: Its manifest.
        check_hashes: Compare the SHA-256 of what `read` returns.

    Attributes:
        path: The directory.
        manifest: Its manifest.
    """

    def __init__(self, path: Path, manifest: mf.Manifest, *, check_hashes: bool = True) -> None:
        self.path = path
        self.manifest = manifest
        self._check_hashes = check_hashes
        self._held: dict[str, bytes | NDArray[np.uint8]] = {}

    def read(self, name: str, *, check_hash: bool = False) -> bytes:
        """Returns the content of a file: the very bytes that were hashed.

        Args:
            name: As the manifest lists it.
            check_hash: Compare the SHA-256 even where the bundle was opened without.

        Raises:
            BundleError: The manifest does not list it, or it is missing, altered, or no regular file.
        """
        data = self._content(name, _whole, check_hash=check_hash)
        return data if isinstance(data, bytes) else data.tobytes()

    def read_aligned(self, name: str) -> NDArray[np.uint8]:
        """The same at the beginning of a cache line, for who computes with it in place; errors as for `read`."""
        data = self._content(name, _whole_aligned)
        assert isinstance(data, np.ndarray), f"{name} is not among the files that its row reads in place"
        return data

    def _content(
        self,
        name: str,
        whole: Callable[[BinaryIO, mf.FileRecord, Path], bytes | NDArray[np.uint8]],
        *,
        check_hash: bool = False,
    ) -> bytes | NDArray[np.uint8]:
        record = next((record for record in self.manifest.files if record.path == name), None)
        if record is None:
            raise BundleError(f"{self.path / name} is not listed in the manifest, not opened", hint=_AGAIN)
        data = self._held.pop(name, None)
        compared = data is not None and self._check_hashes
        if data is None:
            with _opened(self.path, record) as stream:
                data = whole(stream, record, self.path)
        if not compared and (check_hash or self._check_hashes):
            _compare(hashlib.sha256(data if isinstance(data, bytes) else data.data).hexdigest(), record, self.path)
        return data

    def hold(self) -> None:
        """Reads the files that a runtime parses into memory and checks all others; `read` gives each away once."""
        row = targets.find(self.manifest.target)
        parsed = {*row.files, LABELS}
        for record in self.manifest.files:
            if record.path in row.in_place:
                self._held[record.path] = self.read_aligned(record.path)
            elif record.path in parsed:
                self._held[record.path] = self.read(record.path)
            else:
                self._check(record)

    def check(self) -> None:
        """Checks every file: path, kind and size, and the SHA-256 where hashes are compared.

        Raises:
            BundleError: Names the first that is not as listed.
        """
        for record in self.manifest.files:
            self._check(record)

    def _check(self, record: mf.FileRecord) -> None:
        with _opened(self.path, record) as stream:
            if self._check_hashes:
                _compare(_digest(stream, record, self.path), record, self.path)

    @property
    def payload(self) -> Path:
        """The file that the runtime opens."""
        return self.path / self.manifest.payload

    @property
    def size(self) -> int:
        """Bytes of the payload files, without golden vectors, labels, diagnosis and manifest."""
        beside = {GOLDEN, LABELS, DIAGNOSIS}
        return sum(record.bytes for record in self.manifest.files if record.path not in beside)

    def labels(self) -> list[str]:
        """Returns one label per class; class numbers where the bundle has no names."""
        count = self.manifest.model.num_classes
        try:
            names = self.read(LABELS).decode("utf-8").splitlines()
        except UnicodeDecodeError as error:
            raise BundleError(f"{self.path / LABELS} cannot be read: {error}") from error
        if len(names) != count:
            raise BundleError(f"{self.path / LABELS} has {len(names)} lines, expected {count}, one per class")
        return names

    def golden(self) -> tuple[Arrays, Arrays]:
        """Returns the golden inputs and the outputs of the unfolded float32 PyTorch model, keyed by tensor name."""
        path, arrays = self.path / GOLDEN, self._golden_arrays()
        inputs, outputs = ({spec.name: arrays.get(spec.name) for spec in specs} for specs in self._specs())
        missing = [name for name, array in (inputs | outputs).items() if array is None]
        if missing:
            raise BundleError(f"{path} lacks {', '.join(missing)}, expected one array per input and output")
        return inputs, outputs  # type: ignore[return-value]  # None was refused above

    def simulated(self) -> Arrays | None:
        """Returns the outputs of the quantized graph for the golden inputs, executed in float; None if not recorded."""
        arrays = self._golden_arrays()
        found = {s.name: arrays[SIMULATED + s.name] for s in self.manifest.outputs if SIMULATED + s.name in arrays}
        return found if len(found) == len(self.manifest.outputs) else None

    def recorded_images(self) -> Arrays:
        """Returns `pixels_N`, the original image of golden input N, and what is kept beside; none in early bundles."""
        tensors = {spec.name for specs in self._specs() for spec in specs}
        arrays = self._golden_arrays().items()
        return {name: array for name, array in arrays if name not in tensors and _IMAGES.fullmatch(name)}

    def _golden_arrays(self) -> Arrays:
        path = self.path / GOLDEN
        try:
            return parse_arrays(self.read(GOLDEN), most=MAX_GOLDEN)
        except ValueError as error:
            raise BundleError(f"{path} is not a readable .npz file: {error}") from error

    def _specs(self) -> tuple[tuple[mf.TensorSpec, ...], tuple[mf.TensorSpec, ...]]:
        return self.manifest.inputs, self.manifest.outputs


def open_bundle(path: str | os.PathLike[str], *, check_hashes: bool = True, hold: bool = False) -> Bundle:
    """Reads a bundle and checks it.

    Args:
        path: The directory.
        check_hashes: Compare each file's SHA-256; paths, kinds and sizes are compared in any case.
        hold: Keep the files that a runtime parses in memory, see `Bundle.hold`.

    Raises:
        BundleError: Missing, incomplete, altered, of an unknown schema, or pointing outside itself.
        UsageError: `path` is empty, or no path.
    """
    root = require_path("bundle", path)
    where = root / MANIFEST
    try:
        data = read_limited(where, MAX_MANIFEST)
    except (OSError, ValueError) as error:  # ValueError: a NUL in the path
        raise _no_bundle(root, error) from error
    manifest = mf.decode(data, where=str(where))
    refuse_huge(data, where=str(where))
    row = targets.TARGETS.get(manifest.target)
    if row is None:
        raise BundleError(f"{where} names target {manifest.target!r}, expected {', '.join(targets.TARGETS)}")
    if manifest.precision not in row.precisions:
        makes = ", ".join(row.precisions)
        raise BundleError(f"{where} has precision {manifest.precision}, {row.name} bundles come in {makes}")
    listed = {record.path for record in manifest.files}
    unlisted = [name for name in (*row.files, GOLDEN, LABELS) if name not in listed]
    if unlisted or manifest.payload != row.payload:
        lacks = f"does not list {', '.join(unlisted)}" if unlisted else f"names payload {manifest.payload!r}"
        raise BundleError(f"{where} {lacks}, expected {', '.join(row.files)}", hint=_AGAIN)
    if len(listed) < len(manifest.files):
        raise BundleError(f"{where} lists a file twice, expected each once", hint=_AGAIN)
    bundle = Bundle(root, manifest, check_hashes=check_hashes)
    if hold:
        bundle.hold()
    else:
        bundle.check()
    return bundle


def sha256(path: Path) -> str:
    """Returns the hexadecimal SHA-256 of a file, read in blocks."""
    with path.open("rb") as stream:
        digest = hashlib.sha256()
        while block := stream.read(_BLOCK):
            digest.update(block)
    return digest.hexdigest()


def _opened(root: Path, record: mf.FileRecord) -> BinaryIO:
    """Opens a file of a bundle; its size is as listed."""
    path = root / record.path
    if not is_relative_name(record.path):
        raise BundleError(f"manifest of {root} names {record.path!r}, which is outside the bundle; refused")
    try:
        _refuse_links(root, record.path)
        stream = open_regular(path)
    except (FileNotFoundError, NotADirectoryError) as error:
        hint = "copy the whole bundle folder, or export it again"
        raise BundleError(f"{path} is missing", hint=hint) from error
    except OSError as error:  # no regular file, unreadable, name too long
        raise _unreadable(path, error) from error
    if (size := os.fstat(stream.fileno()).st_size) != record.bytes:
        stream.close()
        raise BundleError(f"{path} has {size} bytes, expected {record.bytes}", hint="copy the bundle again")
    return stream


def _refuse_links(root: Path, name: str) -> None:
    at = str(root)
    for part in name.split("/"):
        at = os.path.join(at, part)  # noqa: PTH118 - called for every file of every load
        if os.path.islink(at):  # noqa: PTH114
            raise BundleError(
                f"{at} is a link, which leads out of the bundle or may later; refused",
                hint=f"copy the bundle with its links resolved: cp -rL {root} COPY",
            )


def _whole(stream: BinaryIO, record: mf.FileRecord, root: Path) -> bytes:
    """Reads what was opened; a file that is cut or grows meanwhile is refused."""
    try:
        data = stream.read(record.bytes)
        found = len(data) + len(stream.read(1))
    except OSError as error:
        raise _unreadable(root / record.path, error) from error
    if found != record.bytes:
        raise _changed(record, root)
    return data


def _whole_aligned(stream: BinaryIO, record: mf.FileRecord, root: Path) -> NDArray[np.uint8]:
    """The same, into memory at a cache line."""
    data = aligned(record.bytes)
    try:
        found = stream.readinto(data) + len(stream.read(1))  # type: ignore[attr-defined]
    except OSError as error:
        raise _unreadable(root / record.path, error) from error
    if found != record.bytes:
        raise _changed(record, root)
    return data


def _digest(stream: BinaryIO, record: mf.FileRecord, root: Path) -> str:
    """Returns the SHA-256 of what was opened, read in blocks and never beyond the listed size."""
    digest, left, block = hashlib.sha256(), record.bytes, memoryview(bytearray(min(record.bytes, _BLOCK)))
    try:
        while left and (count := stream.readinto(block[:left])):  # type: ignore[attr-defined]
            digest.update(block[:count])
            left -= count
        if left or stream.read(1):
            raise _changed(record, root)
    except OSError as error:
        raise _unreadable(root / record.path, error) from error
    return digest.hexdigest()


def _compare(found: str, record: mf.FileRecord, root: Path) -> None:
    if found != record.sha256:
        raise BundleError(
            f"{root / record.path} was altered: its SHA-256 is {found[:12]}…, expected {record.sha256[:12]}…",
            hint="copy the bundle again from a trusted place, or export it again",
        )


def _changed(record: mf.FileRecord, root: Path) -> BundleError:
    return BundleError(f"{root / record.path} was altered while it was read", hint="copy the bundle again")


def _unreadable(path: Path, error: OSError) -> BundleError:
    reason = error.strerror or str(error)
    return BundleError(f"{path} {reason}" if reason.startswith(("is ", "has ")) else f"{path} cannot be read: {reason}")


def _no_bundle(root: Path, error: OSError | ValueError) -> BundleError:
    if isinstance(error, ValueError):
        return BundleError(f"{str(root)!r} is not a bundle path: {error}")
    if isinstance(error, FileNotFoundError | NotADirectoryError):
        if not is_there(root):
            return BundleError(
                f"bundle {root} does not exist", hint=f"make one with: ghostdeploy export -t {targets.DEFAULT}"
            )
        return BundleError(f"{root} is not a bundle: it holds no {MANIFEST}", hint="give the folder that export wrote")
    return _unreadable(root / MANIFEST, error)
