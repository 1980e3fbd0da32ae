"""Activation ranges: the histogram is that of all values, the search finds the least error, zero is exact."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import helper, numpy_helper

from ghostdeploy import samples
from ghostdeploy.deploy.prove.images import open_images
from ghostdeploy.deploy.quantize import activations
from ghostdeploy.deploy.quantize.calibration import select
from ghostdeploy.deploy.quantize.histogram import BINS
from ghostdeploy.deploy.quantize.pixels import read_batches
from ghostdeploy.deploy.quantize.ranges import Histogram, choose_range, clipped_share, collect, dead_share
from ghostdeploy.errors import CheckpointError
from ghostdeploy.preprocess import Preprocess
from tests.bundles import Tiny, network
from tests.exported import plain_graph

METHODS = ("absolute", "percentile", "mse")
TENSORS = ["input", "a", "b", "c", "d", "features", "logits"]
RNG = np.random.default_rng(0)
SHAPES = {
    "normal": RNG.normal(size=20_000),
    "skewed": RNG.gamma(1, size=20_000) - 0.5,
    "heavy tails": RNG.standard_t(2.5, size=20_000),
    "behind a ReLU": np.maximum(RNG.laplace(size=20_000), 0),
    "behind a ReLU6": np.clip(RNG.normal(3, 3, size=20_000), 0, 6),
    "far from zero": RNG.uniform(5, 10, size=20_000),
    "negative": -np.abs(RNG.normal(size=20_000)),
}


def histogram(values):
    low, high = min(0.0, float(values.min())), max(0.0, float(values.max()))
    return Histogram(low, high, np.histogram(values, BINS, (low, high))[0])


def error(values, low, high, steps):
    """Returns the mean square error of really quantizing the values."""
    scale = (high - low) / steps
    zero = round(-low / scale)
    return np.square(np.clip(np.rint(values / scale), -zero, steps - zero) * scale - values).mean()


def tiny_stream(tiny, count=70, size=16):
    images = tiny.example(count)["input"]
    return lambda: (images[i : i + size] for i in range(0, count, size))


def outputs_of(model, names, batches):
    """Returns all values of some tensors, by an engine that holds everything."""
    exposed = onnx.ModelProto.FromString(model.SerializeToString())
    del exposed.graph.output[:]
    exposed.graph.output.extend(helper.make_tensor_value_info(n, onnx.TensorProto.FLOAT, None) for n in names)
    session = ort.InferenceSession(exposed.SerializeToString(), providers=["CPUExecutionProvider"])
    rows = [session.run(names, {"input": batch}) for batch in batches]
    return dict(zip(names, map(np.concatenate, zip(*rows, strict=True)), strict=True))


def test_the_histogram_counts_all_values_between_the_extremes():
    tiny = Tiny(batch=None)
    stream = tiny_stream(tiny)

    found = collect(network(tiny), TENSORS, stream)

    values = outputs_of(network(tiny), TENSORS[1:], stream()) | {"input": np.concatenate(list(stream()))}
    for name in TENSORS:
        expected = histogram(values[name])
        ours = found[name]
        assert (ours.low, ours.high) == pytest.approx((expected.low, expected.high), rel=1e-5)
        assert ours.counts.sum() == values[name].size
        moved = np.abs(np.cumsum(ours.counts) - np.cumsum(expected.counts)).max()
        assert moved <= max(2, 1e-3 * values[name].size)  # float32 rounding at the edges of bins


@pytest.mark.parametrize("batch", [None, 1, 8], ids=["free batch", "batch 1", "batch 8"])
@pytest.mark.parametrize("held", [1, 20_000, 1 << 20])
def test_what_fits_into_memory_changes_nothing(batch, held, monkeypatch):
    tiny = Tiny(batch=batch)
    whole = collect(network(Tiny(batch=None)), TENSORS, tiny_stream(tiny))
    monkeypatch.setattr(activations, "HELD_BYTES", held)

    found = collect(network(tiny), TENSORS, tiny_stream(tiny))

    assert list(found) == TENSORS
    for name in TENSORS:
        assert (found[name].low, found[name].high) == pytest.approx((whole[name].low, whole[name].high), rel=1e-5)
        assert found[name].counts.sum() == whole[name].counts.sum()
        assert found[name].quantile(0.7) == pytest.approx(whole[name].quantile(0.7), rel=1e-3)


def test_tensors_are_taken_in_groups_that_fit_and_images_as_many_as_fit(monkeypatch):
    fixed, free = network(Tiny(batch=8)), network(Tiny(batch=None))
    sizes = activations.image_bytes(fixed, TENSORS)
    assert sizes["a"] == 4 * 8 * 8 * 8
    monkeypatch.setattr(activations, "HELD_BYTES", 8 * 2 * sizes["a"])

    groups = activations.in_groups(fixed, TENSORS)

    assert [name for group in groups for name in group] == TENSORS
    assert len(groups) > 1
    assert all(8 * sum(sizes[name] for name in group) <= activations.HELD_BYTES for group in groups)
    images = np.zeros((10, 3, 16, 16), np.float32)
    for fit, pieces in ((3, [3, 3, 3, 3, 3, 3, 1, 1]), (8, [4, 4, 4, 4, 2, 2])):
        monkeypatch.setattr(activations, "HELD_BYTES", fit * 2 * sizes["a"])
        assert [len(values) for _, values in activations.Activations(free, ["a", "b"])(images)] == pieces


def test_memory_does_not_grow_with_the_number_of_images():
    tiny = Tiny(batch=None)
    batch, peak = tiny.example(50)["input"], []

    def stream(count):
        def batches():
            for _ in range(count // len(batch)):
                yield batch
                with open("/proc/self/status") as status:  # noqa: PTH123 - many times, quickly
                    peak.append(next(int(line.split()[1]) for line in status if line.startswith("RssAnon")))

        return batches

    def highest(count):
        peak.clear()
        found = collect(network(tiny), TENSORS, stream(count), threads=1)
        assert found["a"].counts.sum() == count * 8 * 8 * 8
        return max(peak)

    highest(1000)  # allocators warm up
    few, many = highest(1000), highest(10_000)

    assert many - few < 9000 * sum(activations.image_bytes(network(tiny), TENSORS).values()) / 1024 / 20


def test_nan_in_an_activation_names_the_tensor_and_the_layer_where_it_arises():
    model = network(Tiny(batch=None))
    model.graph.node[2].name = "blocks.0.cheap"
    weight = next(tensor for tensor in model.graph.initializer if tensor.name == "depthwise")
    damaged = numpy_helper.to_array(weight).copy()
    damaged[3] = np.nan
    weight.CopyFrom(numpy_helper.from_array(damaged, "depthwise"))

    with pytest.raises(CheckpointError, match=r"activation c of blocks\.0\.cheap is NaN or infinite"):
        collect(model, TENSORS, tiny_stream(Tiny(batch=None)))


def test_progress_of_both_passes_is_heard_when_the_length_is_known():
    tiny, heard = Tiny(batch=None), []

    collect(network(tiny), ["a"], tiny_stream(tiny), batch_count=5, on_progress=lambda *args: heard.append(args))

    assert heard == [(i, 10) for i in range(1, 11)]


@pytest.mark.parametrize("symmetric", [False, True], ids=["asymmetric", "symmetric"])
@pytest.mark.parametrize("shape", SHAPES)
def test_the_mse_range_is_as_good_as_the_best_of_a_dense_search_over_the_values(shape, symmetric):
    values, steps = SHAPES[shape], 254 if symmetric else 255
    counted = histogram(values)
    shares = np.linspace(0.05, 1, 40)
    lows = counted.low * shares if counted.low < 0 else [0.0]
    highs = counted.high * shares if counted.high > 0 else [0.0]
    if symmetric:
        largest = max(-counted.low, counted.high)
        candidates = [(-largest * share, largest * share) for share in np.linspace(0.05, 1, 200)]
    else:
        candidates = [(low, high) for low in lows for high in highs]

    low, high = choose_range(counted, "mse", symmetric=symmetric)

    best = min(error(values, *candidate, steps) for candidate in candidates)
    assert error(values, low, high, steps) <= 1.02 * best


@pytest.mark.parametrize("shape", SHAPES)
def test_the_absolute_range_holds_every_value_and_is_at_most_one_percent_wider(shape):
    counted = histogram(SHAPES[shape])

    low, high = choose_range(counted, "absolute", symmetric=False)

    assert low <= counted.low
    assert high >= counted.high
    assert high - low <= 1.01 * (counted.high - counted.low)
    assert clipped_share(counted, low, high) == 0


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("percentile", [99, 99.99])
def test_the_percentile_range_clips_the_share_it_names(shape, percentile):
    counted, outside = histogram(SHAPES[shape]), 1 - percentile / 100

    asymmetric = choose_range(counted, "percentile", symmetric=False, percentile=percentile)
    symmetric = choose_range(counted, "percentile", symmetric=True, percentile=percentile)

    assert clipped_share(counted, *asymmetric) <= 2 * outside + 1e-9
    assert clipped_share(counted, *symmetric) <= outside + 1e-9
    inner = [0.98 * end for end in symmetric]
    bulk = (np.abs(SHAPES[shape]) > inner[1]).mean()  # a spike of equal values cannot be halved
    assert bulk >= outside


@given(
    low=st.floats(-1e4, 0, width=32),
    high=st.floats(0, 1e4, width=32),
    method=st.sampled_from(METHODS),
    bits=st.sampled_from([4, 8]),
    seed=st.integers(0, 9),
)
def test_zero_is_exactly_representable(low, high, method, bits, seed):
    counted = Histogram(low, high, np.random.default_rng(seed).integers(0, 100, BINS))

    bottom, top = choose_range(counted, method, symmetric=False, bits=bits)

    assert bottom <= 0 <= top
    if top > bottom:
        zero = -bottom / ((top - bottom) / (2**bits - 1))
        assert zero == pytest.approx(round(zero), abs=1e-6)


@pytest.mark.parametrize("method", METHODS)
def test_symmetric_ranges_mirror_each_other_and_unsigned_ones_begin_at_zero(method):
    counted = histogram(SHAPES["skewed"])

    low, high = choose_range(counted, method, symmetric=True)
    assert low == -high < 0
    low, high = choose_range(counted, method, symmetric=True, unsigned=True)
    assert low == 0 < high


def test_exact_cases():
    values = np.array([-1.0, 3.0])

    assert choose_range(histogram(values), "absolute", symmetric=True) == (-3.0, 3.0)
    low, high = choose_range(histogram(values * 255), "absolute", symmetric=False, bits=10)
    assert (low, high) == pytest.approx((-255 * 1023 / 1020 + 0.75, 765.0), abs=1)
    assert choose_range(histogram(np.zeros(4)), "mse", symmetric=False) == (0.0, 0.0)
    assert choose_range(histogram(np.full(4, 1e-40)), "mse", symmetric=True) == (0.0, 0.0)


def test_an_outlier_is_clipped_by_mse_and_kept_by_absolute():
    values = np.append(RNG.normal(size=500_000), 40.0)
    counted = histogram(values)

    low, high = choose_range(counted, "mse", symmetric=False)

    assert high < 30
    assert 0 < clipped_share(counted, low, high) < 1e-3
    assert choose_range(counted, "absolute", symmetric=False)[1] >= 40


def test_the_dead_share_is_the_part_of_the_range_that_hardly_any_value_reaches():
    even = histogram(np.linspace(0, 1, 100_001))

    assert dead_share(even, 0.0, 1.0) == 0
    assert dead_share(even, 0.0, 4.0) == pytest.approx(0.75, abs=0.01)
    assert dead_share(even, -1.0, 1.0, steps=254) == pytest.approx(0.5, abs=0.01)
    assert dead_share(histogram(np.zeros(3)), 0.0, 0.0) == 1
    outlier = histogram(np.append(np.linspace(0, 1, 100_001), 100.0))
    assert dead_share(outlier, 0.0, 100.0) == pytest.approx(0.985, abs=0.005)


def test_a_merged_histogram_is_that_of_both_tensors_values():
    first, second = SHAPES["normal"], 3 * SHAPES["behind a ReLU"]

    merged, expected = histogram(first).merged(histogram(second)), histogram(np.concatenate([first, second]))

    assert (merged.low, merged.high) == (expected.low, expected.high)
    assert merged.counts.sum() == expected.counts.sum()
    for share in (0.001, 0.1, 0.5, 0.9, 0.999):
        width = (merged.high - merged.low) / BINS
        assert merged.quantile(share) == pytest.approx(expected.quantile(share), abs=2 * width)


def test_on_a_sample_model_no_estimator_has_less_error_than_mse(tmp_path_factory, tmp_path):
    model = onnx.load(plain_graph(tmp_path_factory, "ghostnet_050"))
    spec = Preprocess(size=64, crop_fraction=1.0, interpolation="bilinear")
    chosen = select(open_images(samples.calibration_set()), spec, folder=tmp_path, count=32)
    tensors = [node.output[0] for node in model.graph.node if node.op_type in {"Conv", "Relu", "Concat"}]

    found = collect(model, tensors, lambda: read_batches(chosen.path, spec, 8), threads=1)

    values = outputs_of(model, tensors, read_batches(chosen.path, spec))
    for symmetric, steps in ((False, 255), (True, 254)):
        errors = {
            method: np.array(
                [error(values[t], *choose_range(found[t], method, symmetric=symmetric), steps) for t in tensors]
            )
            for method in METHODS
        }
        assert (errors["mse"] <= 1.03 * errors["absolute"]).all()
        assert (errors["mse"] <= 1.03 * errors["percentile"]).all()
        assert np.median(errors["mse"] / errors["absolute"]) < 0.97
