"""Measures put together from parts are those of one process, to the last bit: every task, any cut, any order.

The outputs are those of the trained sample networks on their labelled images; the reference's are the same, rounded.
"""

from __future__ import annotations

import itertools
from importlib import import_module

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from ghostdeploy import samples
from ghostdeploy.deploy.prove import classified, measuring
from ghostdeploy.deploy.prove.evaluate import Predictions, best_five, compare
from ghostdeploy.deploy.prove.images import from_arrays
from ghostdeploy.deploy.prove.sharded.pieces import pieces_of
from ghostdeploy.errors import DataError, UsageError
from ghostdeploy.models.checkpoint import read_checkpoint
from ghostdeploy.models.loading import load_state
from ghostdeploy.preprocess import Preprocess
from ghostdeploy.samples.records import RECORDS
from ghostdeploy.samples.scenes import train
from ghostdeploy.tasks.measure import Measure
from ghostdeploy.tasks.plain import array_of, plain
from ghostdeploy.tasks.table import task_of

LABELS = [f"class {index}" for index in range(10)]


class Case:
    """A task with what its network gives."""

    def __init__(self, record):
        module, _, function = record.factory.partition(":")
        model = getattr(import_module(module), function)().eval()
        load_state(model, read_checkpoint(record.weights).state, source=record.name)
        self.data = measuring.read(record.task, samples.data_path(record.data))
        self.spec, self.labels = Preprocess(**record.preprocess), list(record.labels)
        pixels = np.stack([np.asarray(self.resized(one, record.size)) for one in self.data.images])
        output = {"output": train.outputs(model, pixels)}
        self.task = task_of(record.info, record.size).fitted(output, len(self.labels) or None)
        self.serial = self.measured(output)
        self.reference = self.measured({"output": output["output"].astype(np.float16).astype(np.float32)})

    def resized(self, image, size):
        opened = Image.fromarray(image) if isinstance(image, np.ndarray) else Image.open(image)
        return opened.convert("RGB").resize(size[::-1], Image.Resampling.BILINEAR)

    def measured(self, outputs):
        return measuring.of_outputs(outputs, self.task, self.data, self.spec, self.labels)

    def merged(self, measure, parts):
        """Puts a measure together from parts that went through JSON."""
        whole = measuring.empty(self.task, self.data, self.labels)
        for part in parts:
            state = msgspec.json.decode(msgspec.json.encode(measure.state(part)), type=dict[int, object])
            whole.absorb(state)
        return whole


@pytest.fixture(scope="module", params=list(RECORDS))
def case(request):
    return Case(RECORDS[request.param])


def cuts(count, draw):
    """Draws the images of a set in any order, in any parts."""
    order = draw(st.permutations(range(count))) if count < 50 else np.random.default_rng(draw(st.integers(0, 999)))
    order = order if isinstance(order, list) else order.permutation(count).tolist()
    bounds = sorted(draw(st.lists(st.integers(0, count), max_size=9)))
    return [order[low:high] for low, high in zip([0, *bounds], [*bounds, count], strict=True)]


@given(draw=st.data())
def test_the_figures_are_those_of_one_process(case, draw):
    merged = case.merged(case.serial, cuts(len(case.data.images), draw.draw))

    assert merged.figures() == case.serial.figures()


def test_so_is_the_paired_drop(case):
    count = len(case.data.images)
    parts = [range(half, count, 2) for half in range(2)]

    merged = case.merged(case.serial, parts[::-1]), case.merged(case.reference, [range(count)])

    assert merged[0].drop(merged[1]) == case.serial.drop(case.reference)


def test_what_an_image_gave_elsewhere_is_checked(case):
    whole = measuring.empty(case.task, case.data, case.labels)
    good = case.serial.partial(0)

    for bad in (None, 3, [], {}, {"type": "<f8"}, {**good, "type": "O"}, {**good, "values": ["x"]}):
        if "type" in good or not isinstance(bad, dict) or bad in ({}, {"type": "<f8"}):
            with pytest.raises(DataError, match=r"what image 0 of .* gave is damaged"):
                whole.absorb({0: bad})


LOGITS = np.random.default_rng(3).normal(size=(60, 10)).astype(np.float32)
TRUTH = LOGITS.argmax(axis=1)
TRUTH[::4] = 0


@given(draw=st.data())
def test_classifiers_are_those_of_one_process_with_their_comparison(draw):
    images = from_arrays(np.arange(60, dtype=np.uint8).repeat(192).reshape(60, 8, 8, 3) * 4, TRUTH, source="set")
    spec = Preprocess(size=8, crop_fraction=1.0)
    logits = LOGITS.copy()
    logits[draw.draw(st.integers(0, 59))] = np.nan
    given = [logits, LOGITS.astype(np.float16).astype(np.float32)]
    found = []
    for one in given:
        partials = {}
        for part in cuts(60, draw.draw):
            partials |= dict(zip(part, best_five(one[part]).tolist(), strict=True))
        found.append(classified.of_partials(images, LABELS, spec, partials).predictions)

    serial = [Predictions.of(one, TRUTH) for one in given]

    assert [one.top5.tolist() for one in found] == [one.top5.tolist() for one in serial]
    assert compare(*found, "other") == compare(*serial, "other")


@pytest.mark.parametrize("bad", [[], [1, 2], ["a"] * 5, [10] * 5, None, [-2] * 5])
def test_what_is_no_five_best_classes_is_told(bad):
    images = from_arrays(np.arange(192, dtype=np.uint8).reshape(1, 8, 8, 3), np.array([0]), source="set")

    with pytest.raises(DataError, match="what the images of set gave"):
        classified.of_partials(images, LABELS, Preprocess(size=8, crop_fraction=1.0), {0: bad})


@given(
    values=st.lists(st.floats(width=32), max_size=8),
    kind=st.sampled_from(["<f4", "<f8", "<f2"]),
)
def test_arrays_come_back_bit_for_bit(values, kind):
    with np.errstate(over="ignore"):
        array = np.array(values, np.float64).astype(kind)

    back = array_of(msgspec.json.decode(msgspec.json.encode(plain(array))), (None,))

    assert back.dtype == array.dtype
    assert np.array_equal(back, array, equal_nan=True)
    assert np.array_equal(np.signbit(back[~np.isnan(back)]), np.signbit(array[~np.isnan(array)]))


@given(count=st.integers(1, 100_000))
def test_pieces_have_every_image_once_and_cut_no_batch(count):
    pieces = pieces_of(count)

    assert [image for piece in (pieces[0], pieces[-1]) for image in (piece.start, piece.stop)][::3] == [0, count]
    assert all(one.stop == other.start for one, other in itertools.pairwise(pieces))
    assert len(pieces) <= 130


def test_a_measure_without_parts_says_so(case):
    class Plain(Measure):
        add = figures = drop = None

    Plain.__abstractmethods__ = frozenset()
    with pytest.raises(UsageError, match="cannot be put together from parts"):
        Plain(case.task, case.data, None).state([0])
