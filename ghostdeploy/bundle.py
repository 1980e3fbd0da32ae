"""The bundle directory: what belongs to it, paths that stay inside, hashes before parsing.

    OUT/<model>-<target>-<precision>/   manifest.json  golden.npz  labels.txt  <payload files>

Writing is `staging`.
"""

from __future__ import annotations

import hashlib
import zipfile
import zlib
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

import numpy as np

from ghostdeploy import manifest as mf
from ghostdeploy import targets
from ghostdeploy.errors import BundleError

if TYPE_CHECKING:
    import os

    from numpy.typing import NDArray

MANIFEST = "manifest.json"
GOLDEN = "golden.npz"
LABELS = "labels.txt"
DIAGNOSIS = "diagnosis.json"
"""Quantized bundles only."""

_SIMULATED = "simulated."
"""Prefix of the outputs of the quantized graph executed in float, in `golden.npz`."""

Arrays = dict[str, "NDArray[np.generic]"]


class Bundle:
    """A bundle on disk whose manifest has been read and whose files have been checked.

    Attributes:
        path: The directory.
        manifest: Its manifest.
    """

    def __init__(self, path: Path, manifest: mf.Manifest) -> None:
        self.path = path
        self.manifest = manifest

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
            names = (self.path / LABELS).read_text("utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
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
        """Returns what the quantized graph gives for the golden inputs when executed in float; None if not recorded."""
        arrays = self._golden_arrays()
        found = {s.name: arrays[_SIMULATED + s.name] for s in self.manifest.outputs if _SIMULATED + s.name in arrays}
        return found if len(found) == len(self.manifest.outputs) else None

    def _golden_arrays(self) -> Arrays:
        path = self.path / GOLDEN
        try:
            return read_arrays(path)
        except (OSError, ValueError) as error:
            raise BundleError(f"{path} is not a readable .npz file: {error}") from error

    def _specs(self) -> tuple[tuple[mf.TensorSpec, ...], tuple[mf.TensorSpec, ...]]:
        return self.manifest.inputs, self.manifest.outputs


def open_bundle(path: str | os.PathLike[str], *, check_hashes: bool = True) -> Bundle:
    """Reads a bundle and checks it.

    Args:
        path: The directory.
        check_hashes: Compare each file's SHA-256; paths and sizes are compared in any case.

    Raises:
        BundleError: Missing, incomplete, altered, of an unknown schema, or pointing outside itself.
    """
    root = Path(path)
    where = root / MANIFEST
    try:
        data = where.read_bytes()
    except OSError as error:
        raise _no_bundle(root, error) from error
    manifest = mf.decode(data, where=str(where))
    row = targets.TARGETS.get(manifest.target)
    if row is None:
        raise BundleError(f"{where} names target {manifest.target!r}, expected {', '.join(targets.TARGETS)}")
    if manifest.precision not in row.precisions:
        makes = ", ".join(row.precisions)
        raise BundleError(f"{where} says precision {manifest.precision}, {row.name} bundles have {makes}")
    listed = {record.path for record in manifest.files}
    unlisted = [name for name in (*row.files, GOLDEN, LABELS) if name not in listed]
    if unlisted or manifest.payload != row.payload:
        lacks = f"does not list {', '.join(unlisted)}" if unlisted else f"names payload {manifest.payload!r}"
        raise BundleError(f"{where} {lacks}, expected {', '.join(row.files)}", hint="export the bundle again")
    for record in manifest.files:
        try:
            _check_file(root, record, check_hash=check_hashes)
        except (OSError, RuntimeError) as error:  # unreadable, name too long, a loop of links
            raise BundleError(f"{root / record.path} cannot be read: {error}") from error
    return Bundle(root, manifest)


def describe_file(root: Path, name: str) -> mf.FileRecord:
    """Returns path, size and SHA-256 of a file of the bundle at `root`."""
    path = root / name
    return mf.FileRecord(path=name, bytes=path.stat().st_size, sha256=sha256(path))


def sha256(path: Path) -> str:
    """Returns the hexadecimal SHA-256 of a file, read in blocks."""
    with path.open("rb") as stream:
        digest = hashlib.sha256()
        while block := stream.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def read_arrays(path: Path) -> Arrays:
    """Reads an `.npz` file without ever unpickling.

    Raises:
        OSError: It cannot be read.
        ValueError: It is damaged, or holds Python objects.
    """
    try:
        # Our own stream: NumPy leaves the one it opens to the garbage collector when the archive is damaged.
        with path.open("rb") as stream, np.load(stream, allow_pickle=False) as archive:
            return {name: archive[name] for name in archive.files}
    except (EOFError, TypeError, zipfile.BadZipFile, zlib.error) as error:
        raise ValueError(str(error)) from error


def write_golden(folder: Path, inputs: Arrays, outputs: Arrays, simulated: Arrays | None = None) -> None:
    """Writes `golden.npz`: one array per input and output tensor, keyed by its name, in C order for readers elsewhere.

    Args:
        folder: The bundle.
        inputs: Golden inputs.
        outputs: The reference's outputs.
        simulated: Outputs of the quantized graph executed in float, if any.
    """
    arrays = inputs | outputs | {_SIMULATED + name: array for name, array in (simulated or {}).items()}
    ordered = {name: np.ascontiguousarray(array) for name, array in arrays.items()}
    np.savez_compressed(folder / GOLDEN, **ordered)  # type: ignore[arg-type]  # numpy's stub has no **arrays


def write_labels(folder: Path, labels: list[str]) -> None:
    """Writes `labels.txt`, one class per line."""
    (folder / LABELS).write_text("".join(f"{' '.join(label.split())}\n" for label in labels), "utf-8")


def _check_file(root: Path, record: mf.FileRecord, *, check_hash: bool) -> None:
    relative = PurePosixPath(record.path)
    path = root / relative
    inside = not relative.is_absolute() and ".." not in relative.parts and not {"\\", "\0"} & set(record.path)
    if not inside or not path.resolve().is_relative_to(root.resolve()):
        raise BundleError(f"manifest of {root} names {record.path!r}, which leaves the bundle; refused")
    if not path.is_file():
        raise BundleError(f"{path} is missing", hint="copy the whole bundle folder, or export it again")
    if path.stat().st_size != record.bytes:
        raise BundleError(
            f"{path} has {path.stat().st_size} bytes, expected {record.bytes}", hint="copy the bundle again"
        )
    if check_hash and (found := sha256(path)) != record.sha256:
        raise BundleError(
            f"{path} was altered: its SHA-256 is {found[:12]}…, expected {record.sha256[:12]}…",
            hint="copy the bundle again from a trusted place, or export it again",
        )


def _no_bundle(root: Path, error: OSError) -> BundleError:
    if not root.exists():
        return BundleError(f"bundle {root} does not exist", hint="make one with: ghostdeploy export -t openvino")
    if isinstance(error, FileNotFoundError | NotADirectoryError):
        return BundleError(f"{root} is not a bundle: it holds no {MANIFEST}", hint="give the folder that export wrote")
    return BundleError(f"{root / MANIFEST} cannot be read: {error.strerror}")
