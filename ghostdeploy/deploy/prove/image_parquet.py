"""Parquet tables of encoded images, one file or several, read a row group at a time.

    image    bytes, or {bytes, path} as Hugging Face writes it; else the only column of bytes
    label    class index or name; names of the indices from Hugging Face's metadata

An Arrow schema may be stored in a Parquet file, and in it types whose values a library unpickles: Ray Data registers
such a type. So a file with a type of that kind is refused before anything is read of it, and only the columns in
question are read. Source: github.com/apache/parquet-format, github.com/huggingface/datasets.
"""

from __future__ import annotations

import base64
import binascii
import re
import threading
from collections import OrderedDict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import msgspec

from ghostdeploy.deploy.prove.image_labels import listing
from ghostdeploy.encoded import EncodedImage
from ghostdeploy.errors import DataError, MissingDependency

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from ghostdeploy.deploy.prove.image_folders import Listing

SUFFIX = ".parquet"
_IMAGES = ("image", "img", "jpg", "jpeg", "png", "webp", "image_bytes", "bytes")
_LABELS = ("label", "labels", "cls", "class")
_EXTENSION = b"ARROW:extension:name"
_SPLIT = re.compile(r"(.+)-\d+-of-\d+")
_GROUPS = 4
"""Row groups in memory: threads that decode are a few batches apart."""
_LARGEST_GROUP = 4 << 30
"""Bytes of the images of a row group, which are in memory together."""


@dataclass(frozen=True, slots=True)
class Cell(EncodedImage):
    """An image of a table."""

    path: Path
    name: str
    column: str
    """Path of the column of bytes, with dots."""
    group: int
    row: int
    """In its group."""

    def read(self) -> bytes:
        """See `EncodedImage.read`."""
        data = _cells.read(self.path, self.column, self.group)[self.row].as_py()
        if not isinstance(data, bytes):
            raise OSError(f"{self.name} holds no bytes")
        return data


class _Cells:
    """The last row groups that were read, by any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._kept: OrderedDict[tuple[Path, str, int], Any] = OrderedDict()

    def read(self, path: Path, column: str, group: int) -> Any:
        key = path, column, group
        with self._lock:
            if key in self._kept:
                self._kept.move_to_end(key)
            else:
                self._kept[key] = _column(path, column, group)
                while len(self._kept) > _GROUPS:
                    self._kept.popitem(last=False)
            return self._kept[key]


_cells = _Cells()


def list_parquet(paths: Sequence[Path], source: str, *, labelled: bool) -> Listing:
    """Lists the images of tables.

    Args:
        paths: The files in order.
        source: The set, for messages.
        labelled: Labels are needed.

    Raises:
        DataError: A file is damaged, of another form, without bytes of images, or has types that run code.
        MissingDependency: pyarrow is not installed.
        OSError: One is not readable.
    """
    images: list[Cell] = []
    labels: list[int | str | None] = []
    classes: Sequence[str] | None = None
    for path in paths:
        table = _open(path)
        column, label = _image_column(table, path), _label_column(table) if labelled else None
        classes = _class_names(table, label) if classes is None and label is not None else classes
        images += _cells_of(table, path, column)
        labels += [None] * table.metadata.num_rows if label is None else _values(table, label, path)
    names = [image.name for image in images]
    return listing(images, labels, names=names, source=source, labelled=labelled, classes=classes)


def one_split(paths: Sequence[Path], folder: Path) -> Sequence[Path]:
    """Returns the tables of a folder, which are of one split.

    Raises:
        DataError: Their names (`train-00000-of-00002`) are of several.
    """
    splits = sorted({match[1] for path in paths if (match := _SPLIT.fullmatch(path.stem)) is not None})
    if len(splits) > 1:
        raise DataError(
            f"{folder} has tables of several splits: {', '.join(splits)}",
            hint="give one file, or a folder with the files of one split",
        )
    return paths


def table_columns(path: Path, name: str, others: Sequence[str]) -> tuple[list[str], list[int | str | None] | None]:
    """Returns a column of text, and the first of some others, None where there is none.

    Raises:
        DataError: The file is damaged, or has no such column of text.
        MissingDependency: pyarrow is not installed.
    """
    table = _open(path)
    known = table.schema_arrow.names
    if name not in known:
        raise DataError(f"{path} has columns {', '.join(known) or 'none'}, expected {name}")
    texts = _values(table, name, path)
    if not all(isinstance(text, str) for text in texts):
        raise DataError(f"column {name} of {path} holds no text throughout")
    other = next((one for one in others if one in known), None)
    return [str(text) for text in texts], None if other is None else _values(table, other, path)


def _open(path: Path) -> Any:
    """Opens a table."""
    try:
        from pyarrow import ArrowException, parquet
    except ImportError as error:
        raise MissingDependency(
            f"{path} needs pyarrow, not installed here", hint='pip install "ghostdeploy[parquet]"'
        ) from error
    try:
        _refuse_extensions(parquet.read_metadata(path).metadata or {}, path)
        return parquet.ParquetFile(path)
    except (ArrowException, OSError) as error:
        if isinstance(error, FileNotFoundError | PermissionError):
            raise
        raise DataError(f"{path} is not a readable Parquet file: {_line(error)}") from error


def _refuse_extensions(metadata: dict[bytes, bytes], path: Path) -> None:
    """Refuses a stored Arrow schema with types beyond Arrow's own."""
    try:
        schema = base64.b64decode(metadata.get(b"ARROW:schema", b""), validate=True)
    except binascii.Error as error:
        raise DataError(f"{path} is not a readable Parquet file: its Arrow schema is damaged") from error
    if _EXTENSION in schema:
        raise DataError(
            f"{path} has an Arrow extension type, which may run code when it is read",
            hint="write images as a column of bytes, and labels as numbers or text",
        )


def _image_column(table: Any, path: Path) -> str:
    """Returns the path of the column that holds images."""
    found = {name: leaf for name in table.schema_arrow.names if (leaf := _bytes_of(table.schema_arrow.field(name)))}
    named = [name for name in _IMAGES if name in found] or list(found)
    if not named or (len(named) > 1 and named[0] not in _IMAGES):
        raise DataError(
            f"{path} has columns {', '.join(table.schema_arrow.names) or 'none'}, expected image with bytes of files",
            hint="store images as encoded bytes, not as pixels or paths",
        )
    return found[named[0]]


def _bytes_of(field: Any) -> str | None:
    """Returns the path of the bytes in a column; None where it holds none."""
    from pyarrow import types

    def binary(kind: Any) -> bool:
        return bool(types.is_binary(kind) or types.is_large_binary(kind))

    if binary(field.type):
        return str(field.name)
    inner = types.is_struct(field.type) and field.type.get_field_index("bytes") >= 0
    return f"{field.name}.bytes" if inner and binary(field.type.field("bytes").type) else None


def _label_column(table: Any) -> str | None:
    return next((name for name in _LABELS if name in table.schema_arrow.names), None)


def _class_names(table: Any, label: str) -> Sequence[str] | None:
    """Returns the names of class indices as Hugging Face keeps them; None where there are none."""
    text = (table.metadata.metadata or {}).get(b"huggingface")
    try:
        names = msgspec.json.decode(text or b"{}")["info"]["features"][label]["names"]
        return msgspec.convert(names, tuple[str, ...])
    except (KeyError, TypeError, msgspec.DecodeError, msgspec.ValidationError):
        return None


def _values(table: Any, name: str, path: Path) -> list[int | str | None]:
    """Returns a column of whole numbers or text."""
    from pyarrow import ArrowException, types

    kind = table.schema_arrow.field(name).type
    if not (types.is_integer(kind) or types.is_string(kind) or types.is_large_string(kind)):
        raise DataError(f"column {name} of {path} is {kind}, expected class indices or names")
    try:
        return list(table.read(columns=[name]).column(0).to_pylist())
    except (ArrowException, OSError) as error:
        raise DataError(f"{path} is not a readable Parquet file: {_line(error)}") from error


def _cells_of(table: Any, path: Path, column: str) -> Iterator[Cell]:
    place = 0
    for group in range(table.metadata.num_row_groups):
        part = table.metadata.row_group(group)
        large = sum(
            chunk.total_uncompressed_size
            for chunk in map(part.column, range(part.num_columns))
            if chunk.path_in_schema == column
        )
        if large > _LARGEST_GROUP:
            raise DataError(
                f"row group {group} of {path} has {large} bytes of images, expected at most {_LARGEST_GROUP}",
                hint="write it with fewer rows per group",
            )
        for row in range(part.num_rows):
            yield Cell(path, f"row {place} of {path.name}", column, group, row)
            place += 1


def _column(path: Path, column: str, group: int) -> Any:
    """Reads the bytes of a row group."""
    from pyarrow import ArrowException

    try:
        found = _open(path).read_row_group(group, columns=[column], use_threads=False).column(0)
    except (ArrowException, DataError) as error:
        raise OSError(f"{path} is not readable: {_line(error)}") from error
    parts = column.split(".")
    cells = found.combine_chunks()
    return cells.field(parts[1]) if len(parts) > 1 else cells


def _line(error: Exception) -> str:
    return str(error).splitlines()[0] if str(error) else type(error).__name__
