"""The metadata of a `.tflite` file, in the form that the TFLite tools read.

Source: TensorFlow Lite Metadata Schema 1.0 (`metadata_schema.fbs`, identifier `M001`). A buffer called
`TFLITE_METADATA` describes inputs and outputs; files that it names, here the labels, are a zip appended to the model.
Slots below are the places of fields in the schema's tables.

    pixel of an image in 0 … 255 → (pixel − mean) / std

so mean and std of a record with unit 0-1 are written times 255. The schema knows RGB and gray, and no BGR.
"""

from __future__ import annotations

import io
import zipfile
from typing import TYPE_CHECKING, Any

import flatbuffers
import numpy as np

from ghostdeploy.telemetry import silent

with silent():
    from ai_edge_litert import schema_py_generated as schema

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ghostdeploy.convert.base import About
    from ghostdeploy.preprocess import Preprocess

FIELD = "TFLITE_METADATA"
LABELS = "labels.txt"
_IDENTIFIER = b"M001"
_PARSER = "1.0.0"
_COLOR = {"bgr": 0, "rgb": 1, "gray": 2}
_IMAGE_PROPERTIES, _NORMALIZATION, _AXIS_LABELS = 2, 1, 2
_EPOCH = (1980, 1, 1, 0, 0, 0)


def describe(model: Any, about: About, *, version: str) -> None:
    """Adds the description to a model object; of ready inputs the schema has nothing to say.

    Args:
        model: Changed in place; an earlier description is replaced.
        about: Its contents.
        version: Of the exporting program.
    """
    if about.preprocess.ready:
        return
    buffer = schema.BufferT()
    buffer.data = np.frombuffer(_metadata(about, version), np.uint8)
    model.buffers.append(buffer)
    entry = schema.MetadataT()
    entry.name, entry.buffer = FIELD.encode(), len(model.buffers) - 1
    others = [one for one in model.metadata or () if bytes(one.name) != FIELD.encode()]
    model.metadata = [*others, entry]


def append_labels(data: bytes, about: About) -> bytes:
    """Returns the file with the labels appended; as it is where there are none."""
    if not about.labels:
        return data
    stream = io.BytesIO(data)
    with zipfile.ZipFile(stream, "a", zipfile.ZIP_STORED) as archive:
        archive.writestr(zipfile.ZipInfo(LABELS, _EPOCH), "\n".join(about.labels) + "\n")
    return stream.getvalue()


def _metadata(about: About, version: str) -> bytes:
    b = flatbuffers.Builder(1024)
    image = about.preprocess
    height, width = image.sides
    size = _table(b, {0: width, 1: height}, wide=True)
    properties = _table(b, {0: _COLOR[image.color], 1: _Offset(size)})
    content = _table(b, {0: _IMAGE_PROPERTIES, 1: _Offset(properties)})
    mean, std = ([0.0], [1.0]) if image.takes_pixels else _in_pixels(image)
    options = _table(b, {0: _floats(b, mean), 1: _floats(b, std)})
    unit = _table(b, {0: _NORMALIZATION, 1: _Offset(options)})
    low, high = ([0.0], [255.0]) if image.takes_pixels else _ends(mean, std)
    stats = _table(b, {0: _floats(b, high), 1: _floats(b, low)})
    given = _table(
        b,
        {
            0: _text(b, "image"),
            1: _text(b, _how(image)),
            3: _Offset(content),
            4: _offsets(b, [unit]),
            5: _Offset(stats),
        },
    )
    results = {3: _offsets(b, [_logits(b)])} if about.labels else {}
    graph = _table(b, {0: _text(b, about.name), 2: _offsets(b, [given]), **results})
    root = _table(
        b,
        {
            0: _text(b, about.name),
            1: _text(b, f"exported by ghostdeploy {version}"),
            2: _text(b, version),
            3: _offsets(b, [graph]),
            7: _text(b, _PARSER),
        },
    )
    b.Finish(root, file_identifier=_IDENTIFIER)
    return bytes(b.Output())


def _in_pixels(image: Preprocess) -> tuple[list[float], list[float]]:
    scale = 255 / image.white
    return [scale * value for value in image.mean], [scale * value for value in image.std]


def _how(image: Preprocess) -> str:
    """Returns how an image becomes the input, for people."""
    height, width = image.sides
    begin, size = image.color.upper() if image.channels == 3 else "gray", f"{width} x {height} px"
    if image.resize != "crop":
        pad = f", image at the {image.anchor}, padding {image.pad_pixels}" if image.resize == "letterbox" else ""
        return f"{begin}, {image.resize} {size} {image.interpolation}, {image.sampling} sampling{pad}"
    short = image.rounded(min(height, width) / image.crop_fraction)
    return f"{begin}, short side {short} px {image.interpolation}, centre crop {size}"


def _logits(b: flatbuffers.Builder) -> int:
    labels = _table(b, {0: _text(b, LABELS), 1: _text(b, "one class name per line"), 2: _AXIS_LABELS})
    return _table(b, {0: _text(b, "logits"), 1: _text(b, "one per class"), 6: _offsets(b, [labels])})


class _Offset(int):
    """Place of a table, string or vector in the buffer."""


def _table(b: flatbuffers.Builder, fields: Mapping[int, int], *, wide: bool = False) -> int:
    """Writes a table: offsets and, in one byte each or four when `wide`, numbers."""
    b.StartObject(max(fields) + 1)
    for slot, value in fields.items():
        if isinstance(value, _Offset):
            b.PrependUOffsetTRelativeSlot(slot, value, 0)
        elif wide:
            b.PrependUint32Slot(slot, value, 0)
        else:
            b.PrependInt8Slot(slot, value, 0)
    return int(b.EndObject())


def _text(b: flatbuffers.Builder, text: str) -> _Offset:
    return _Offset(b.CreateString(text))


def _floats(b: flatbuffers.Builder, values: list[float]) -> _Offset:
    return _Offset(b.CreateNumpyVector(np.asarray(values, np.float32)))


def _offsets(b: flatbuffers.Builder, tables: list[int]) -> _Offset:
    b.StartVector(4, len(tables), 4)
    for table in reversed(tables):
        b.PrependUOffsetTRelative(table)
    return _Offset(b.EndVector())


def _ends(mean: list[float], std: list[float]) -> tuple[list[float], list[float]]:
    """Returns what pixels 0 and 255 become."""
    pairs = list(zip(mean, std, strict=True))
    return [(0 - m) / s for m, s in pairs], [(255 - m) / s for m, s in pairs]
