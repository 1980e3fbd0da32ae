"""Weights in files beside an ONNX file: only regular files in its own folder or below, within their size."""

from __future__ import annotations

from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any

from onnx import TensorProto, external_data_helper

from ghostdeploy.errors import CheckpointError
from ghostdeploy.files import open_regular

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    import onnx


def tensors(model: onnx.ModelProto) -> Iterator[onnx.TensorProto]:
    """Yields every tensor: initializers, attributes, those of functions, subgraphs, sparse tensors and training graphs.

    One that is overlooked would be read by the engines, from the working folder of the process and without a hash.
    """
    waiting: list[Any] = [*model.functions, *model.training_info, model.graph]
    while waiting:
        message = waiting.pop()
        if isinstance(message, TensorProto):
            yield message
            continue
        for field, value in message.ListFields():
            if field.message_type is not None and field.message_type.name in _LEADING:
                waiting += [value] if hasattr(value, "ListFields") else reversed(value)


_LEADING = frozenset(
    f"{name}Proto" for name in ("Attribute", "Function", "Graph", "Node", "SparseTensor", "Tensor", "TrainingInfo")
)
"""Messages that are tensors or lead to them."""


def read_external(model: onnx.ModelProto, path: Path) -> Iterator[bytes]:
    """Reads the tensors that a model keeps in other files, in place.

    Args:
        model: Changed: such tensors hold their data afterwards.
        path: File of the model.

    Yields:
        The content of each file, in the order of their names.

    Raises:
        CheckpointError: A file lies outside the model's folder, is missing, or shorter than the tensor declares.
    """
    outside = [t for t in tensors(model) if t.data_location == TensorProto.EXTERNAL]
    by_file: dict[str, list[onnx.TensorProto]] = {}
    for tensor in outside:
        location = next((entry.value for entry in tensor.external_data if entry.key == "location"), "")
        by_file.setdefault(location, []).append(tensor)
    for location in sorted(by_file):
        content = _content(location, path)
        for tensor in by_file[location]:
            _fill(tensor, content, location, path)
        yield content


def _content(location: str, path: Path) -> bytes:
    folder = path.resolve().parent
    relative = PurePosixPath(location)
    inside = location and not relative.is_absolute() and ".." not in relative.parts and not {"\\", "\0"} & set(location)
    if not inside or not (folder / relative).resolve().is_relative_to(folder):
        raise CheckpointError(f"{path} keeps weights in {location!r}, outside its folder; refused")
    try:
        with open_regular((folder / relative).resolve()) as stream:
            return stream.read()
    except FileNotFoundError as error:
        raise CheckpointError(
            f"{path} keeps weights in {location}, which is not in its folder", hint="copy that file beside it"
        ) from error
    except OSError as error:
        raise CheckpointError(f"weights {folder / relative} cannot be read: {error.strerror}") from error


def _fill(tensor: onnx.TensorProto, content: bytes, location: str, path: Path) -> None:
    try:
        info = external_data_helper.ExternalDataInfo(tensor)
        start = int(info.offset or 0)
        end = start + int(info.length) if info.length is not None else len(content)
    except (ValueError, TypeError) as error:
        raise CheckpointError(f"{path} gives no valid place in {location} for tensor {tensor.name!r}") from error
    if not 0 <= start <= end <= len(content):
        raise CheckpointError(
            f"{path} expects tensor {tensor.name!r} at bytes {start} to {end} of {location}, which has {len(content)}",
            hint="copy that file again",
        )
    del tensor.external_data[:]
    tensor.data_location = TensorProto.DEFAULT
    tensor.raw_data = content[start:end]
