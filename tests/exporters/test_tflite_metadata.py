"""What a payload says about itself, read back slot by slot as the TFLite tools do, without the code that wrote it."""

from __future__ import annotations

import io
import zipfile

import flatbuffers
import pytest
from flatbuffers.number_types import Float32Flags, Int8Flags, Uint32Flags
from flatbuffers.table import Table

from ghostdeploy.bundle.folder import open_bundle


class Reader:
    """One table of a flatbuffer."""

    def __init__(self, table):
        self._table = table

    def _place(self, slot):
        return self._table.Offset(4 + 2 * slot)

    def text(self, slot):
        return self._table.String(self._table.Pos + self._place(slot)).decode()

    def number(self, slot, flags):
        return self._table.Get(flags, self._table.Pos + self._place(slot))

    def table(self, slot):
        return Reader(Table(self._table.Bytes, self._table.Indirect(self._table.Pos + self._place(slot))))

    def _vector(self, slot):
        return self._table.Vector(self._place(slot)), self._table.VectorLen(self._place(slot))

    def floats(self, slot):
        start, count = self._vector(slot)
        return [self._table.Get(Float32Flags, start + 4 * i) for i in range(count)]

    def data(self, slot):
        start, count = self._vector(slot)
        return bytes(self._table.Bytes[start : start + count])

    def tables(self, slot):
        start, count = self._vector(slot)
        return [Reader(Table(self._table.Bytes, self._table.Indirect(start + 4 * i))) for i in range(count)]


def root(data):
    return Reader(Table(bytearray(data), flatbuffers.encode.Get(flatbuffers.packer.uoffset, data, 0)))


def metadata(path):
    """Returns the root of the description: the model's `metadata` entry names a buffer."""
    model = root((path / "model.tflite").read_bytes())
    [entry] = [one for one in model.tables(6) if one.text(0) == "TFLITE_METADATA"]
    data = model.tables(4)[entry.number(1, Uint32Flags)].data(0)
    assert data[4:8] == b"M001"
    return root(data)


@pytest.fixture(params=["fp32", "fp16", "hybrid", "int8"])
def path(request, tiny_bundle):
    return tiny_bundle("tflite", request.param)


@pytest.fixture
def described(path):
    """The description of the one input."""
    return metadata(path).tables(3)[0].tables(2)[0]


def test_the_image_has_colour_space_and_size(described):
    content = described.table(3)
    image = content.table(1)

    assert content.number(0, Int8Flags) == 2  # ImageProperties
    assert image.number(0, Int8Flags) == 1  # RGB
    assert (image.table(1).number(0, Uint32Flags), image.table(1).number(1, Uint32Flags)) == (16, 16)


def test_mean_and_deviation_are_on_the_scale_of_pixels(described, path):
    spec = open_bundle(path).manifest.preprocess
    [unit] = described.tables(4)
    options = unit.table(1)

    assert unit.number(0, Int8Flags) == 1  # NormalizationOptions
    assert options.floats(0) == pytest.approx([255 * value for value in spec.mean], rel=1e-6)
    assert options.floats(1) == pytest.approx([255 * value for value in spec.std], rel=1e-6)


def test_the_ends_of_the_range_are_those_of_normalised_pixels(described, path):
    spec = open_bundle(path).manifest.preprocess
    stats = described.table(5)

    assert stats.floats(1) == pytest.approx([-m / s for m, s in zip(spec.mean, spec.std, strict=True)], rel=1e-5)
    assert stats.floats(0) == pytest.approx([(1 - m) / s for m, s in zip(spec.mean, spec.std, strict=True)], rel=1e-5)


def test_a_payload_that_takes_pixels_asks_for_no_normalisation(tiny_bundle):
    given = metadata(tiny_bundle("tflite", layout="nhwc", dtype="uint8")).tables(3)[0].tables(2)[0]
    [unit] = given.tables(4)

    assert (unit.table(1).floats(0), unit.table(1).floats(1)) == ([0.0], [1.0])
    assert (given.table(5).floats(0), given.table(5).floats(1)) == ([255.0], [0.0])


def test_the_labels_are_a_zip_entry_that_the_output_names(path):
    result = metadata(path).tables(3)[0].tables(3)[0]
    [labels] = result.tables(6)
    with zipfile.ZipFile(io.BytesIO((path / "model.tflite").read_bytes())) as archive:
        lines = archive.read(labels.text(0)).decode().splitlines()

    assert labels.number(2, Int8Flags) == 2  # TENSOR_AXIS_LABELS
    assert lines == (path / "labels.txt").read_text("utf-8").splitlines()
