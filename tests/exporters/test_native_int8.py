"""Native INT8: random quantized networks are the integers of a NumPy reference, to the last bit."""

from __future__ import annotations

import numpy as np
import pytest

from ghostdeploy.machine import architecture
from tests.conftest import require

PLAIN = {"x86-64": "x86-64"}.get(architecture())
"""Instructions that every processor has: vectors of four."""
STREAMED = {"_WHOLE_PIXELS": 9, "_PASS_PIXELS": 8}
"""Limits below which even these maps keep a few rows at a time."""


@pytest.fixture(autouse=True, scope="module")
def compiler():
    require("native")
    require("onnx")  # its quantizer


@pytest.mark.parametrize(
    ("seeds", "limits", "level"),
    [(range(40), {}, None), (range(40, 80), STREAMED, None), (range(80, 110), STREAMED, PLAIN)],
    ids=["whole", "streamed", "plain"],
)
def test_random_quantized_networks_are_the_integers_of_the_reference(seeds, limits, level, tmp_path, monkeypatch):
    from ghostdeploy.exporters.native import plan
    from tests.integer_networks import Integers, images, quantized_model
    from tests.native_networks import compile_all

    for name, value in limits.items():
        monkeypatch.setattr(plan, name, value)
    models, wrong = [quantized_model(seed) for seed in seeds], {}
    for seed, model, network in zip(seeds, models, compile_all(models, tmp_path / "networks", level), strict=True):
        (image,) = images(model, 1, 1000 + seed)
        alone, wanted = network(image), Integers(model)(image)
        if not all(np.array_equal(*pair) for pair in zip(alone, wanted, strict=True)):
            wrong[seed] = [float(np.abs(a - b).max() / np.abs(b).max()) for a, b in zip(alone, wanted, strict=True)]
        for threads in (2, 3):
            together = network(image, threads=threads)
            if not all(np.array_equal(*pair) for pair in zip(alone, together, strict=True)):
                wrong[seed] = f"{threads} threads"

    assert wrong == {}


def quantized_chain(weight, bias):
    """A pointwise and a depthwise layer of integers; `weight` is every one of the first, `bias` that of the second."""
    from tests.native_networks import Graph, model_of

    graph = Graph(1)
    graph.size = (4, 6, 6)

    def paired(name, zero):
        given = [graph.constant(0.05), graph.constant(zero, np.uint8)]
        return graph.node("DequantizeLinear", [graph.node("QuantizeLinear", [name, *given]), *given])

    def layer(name, codes, start, **attributes):
        count = len(codes)
        scales, zeros = graph.constant(np.full(count, 0.01)), graph.constant(np.zeros(count), np.int8)
        weights = graph.node("DequantizeLinear", [graph.constant(codes, np.int8), scales, zeros], axis=0)
        return graph.node("Conv", [name, weights, graph.constant(np.full(count, start))], **attributes)

    made = paired(layer(paired("input", 128), np.full((4, 4, 1, 1), weight), 0.1), 128)
    name = paired(layer(made, np.ones((4, 1, 3, 3)), bias, group=4, pads=[1, 1, 1, 1]), 100)
    return model_of(graph, [(name, (1, 4, 6, 6))])


def test_a_depthwise_layer_whose_sums_floats_do_not_hold_goes_the_dense_way(tmp_path):
    from ghostdeploy.exporters.native.operators import lower
    from tests.integer_networks import Integers, images
    from tests.native_networks import compile_all

    models = [quantized_chain(30, 1.0), quantized_chain(30, 2.0**24 * 0.0005)]
    kinds = [[step.kind for step in lower(model).steps][-1] for model in models]

    assert kinds == ["DEPTHWISE", "DENSE"]
    for model, network in zip(models, compile_all(models, tmp_path / "networks"), strict=True):
        (image,) = images(model, 1, 0)
        wanted = Integers(model)(image)
        assert np.array_equal(network(image)[0], wanted[0])


def test_weights_that_overflow_sixteen_bits_are_refused():
    from ghostdeploy.convert.base import RefusedError
    from ghostdeploy.exporters.native.operators import lower
    from ghostdeploy.exporters.native.rounding import require_safe

    require_safe(lower(quantized_chain(64, 0.0)).steps)
    with pytest.raises(RefusedError, match="which weights of n"):
        require_safe(lower(quantized_chain(65, 0.0)).steps)


def test_a_network_of_integers_is_attested_from_the_library(tiny_bundle):
    from ghostdeploy.bundle.folder import open_bundle
    from ghostdeploy.runtimes.native import program

    found = open_bundle(tiny_bundle("native", "int8"))
    steps = program.read(found.read(program.PLAN)).steps

    assert {(step.bits, step.data_bits) for step in steps if step.bits} == {(8, 8)}
    assert "int8 x uint8" in found.manifest.precision_achieved.how


def test_instruction_sets_with_dot_products_are_for_integers_alone(monkeypatch):
    from ghostdeploy.exporters.native import options
    from ghostdeploy.runtimes.native import program

    flags = program.LEVELS["x86-64"]["x86-64-v4-vnni"]
    monkeypatch.setattr(options, "cpu_flags", lambda: frozenset(flags))
    monkeypatch.setattr(options, "architecture", lambda: "x86-64")

    assert options.default_levels() == ("x86-64-v4",)
    assert options.levels_of(None, integers=True) == ("x86-64-v4-vnni",)
    assert program.chosen(["x86-64-v3", "x86-64-v4-vnni"], "x86-64", flags) == "x86-64-v4-vnni"
