"""An engine that fails while it computes: the same error from a call and from a future, and the next input is fine."""

from __future__ import annotations

import shutil

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import ghostdeploy as gd
from ghostdeploy.errors import BundleError
from tests.bundles import WRITERS, Tiny
from tests.commands import assert_one_sentence, run
from tests.signing import sign_again

TINY = Tiny()
GOOD = np.zeros((1, 3, 16, 16), np.float32)
GOOD[0, 0, 0, 0] = 1
NO_DIVISORS = ((5, 7), (9, 10), (11, 13), (14, 15), (17, 18))
"""Of the 768 values of the input. Each is used once: a stream of OpenVINO finds no fault twice in the same numbers."""


def fragile():
    """Reshapes its input to (sum of the input, rest), and gives the sum of all of it for each class."""
    weights = [
        numpy_helper.from_array(np.array([-1], np.int64), "rest"),
        numpy_helper.from_array(np.array([1], np.int64), "one"),
        numpy_helper.from_array(np.ones((1, 10), np.float32), "classes"),
    ]
    nodes = [
        helper.make_node("ReduceSum", ["input"], ["sum"], keepdims=0),
        helper.make_node("Cast", ["sum"], ["whole"], to=TensorProto.INT64),
        helper.make_node("Reshape", ["whole", "one"], ["rows"]),
        helper.make_node("Concat", ["rows", "rest"], ["shape"], axis=0),
        helper.make_node("Reshape", ["input", "shape"], ["shaped"]),
        helper.make_node("ReduceSum", ["shaped"], ["total"], keepdims=0),
        helper.make_node("Mul", ["classes", "total"], ["logits"]),
    ]
    values = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)
        for name, shape in (("input", (1, 3, 16, 16)), ("logits", (1, 10)))
    ]
    graph = helper.make_graph(nodes, "fragile", values[:1], values[1:], weights)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)


@pytest.fixture(params=["onnx", "openvino"])
def path(request, tiny_bundle, tmp_path):
    copy = shutil.copytree(tiny_bundle(request.param), tmp_path / "fragile")
    model = fragile()
    onnx.checker.check_model(model)
    WRITERS[request.param](model, copy, "fp32", Tiny())
    sign_again(copy)
    return copy


@pytest.mark.parametrize("profile", ["latency", "throughput"])
def test_a_call_and_a_future_tell_it_and_the_next_ones_are_right(path, profile):
    with gd.load(path, threads=2, profile=profile, queue=3) as runtime:
        for called, submitted in NO_DIVISORS:
            with pytest.raises(BundleError, match=f"{runtime.engine} failed while running .*fragile: "):
                runtime(called * GOOD)
            assert np.array_equal(runtime(GOOD), np.ones((1, 10)))
            failing, fine = runtime.submit(submitted * GOOD), runtime.submit(GOOD)
            with pytest.raises(BundleError, match=f"{runtime.engine} failed while running .*fragile: ") as caught:
                failing.result(60)
            assert np.array_equal(fine.result(60), np.ones((1, 10)))
            assert np.array_equal(runtime(GOOD), np.ones((1, 10)))

    assert "\n" not in caught.value.message


def test_one_bad_image_of_a_batch_fails_the_batch_and_not_its_neighbours(path):
    with gd.load(path, threads=2, queue=3) as runtime:
        mixed = runtime.submit(np.concatenate([GOOD] * 9 + [7 * GOOD] + [GOOD] * 9))
        clean = runtime.submit(np.concatenate([GOOD] * 9))
        with pytest.raises(BundleError, match="failed while running"):
            mixed.result(60)
        assert clean.result(60).shape == (9, 10)


SAID = [
    "Exception from src/core.cpp:12:\nstd::bad_alloc",
    "Failed to allocate memory for requested buffer of size 9",
    "CUDA error 2: out of memory",
]


@pytest.mark.parametrize("said", SAID)
@pytest.mark.parametrize("where", ["_open", "_run"])
def test_too_little_memory_is_no_fault_of_the_bundle(said, where, tiny_bundle, monkeypatch, capsys):
    from ghostdeploy.runtimes.onnx.runtime import OnnxRuntime as Backend

    def fail(*_):
        raise RuntimeError(said)

    monkeypatch.setattr(Backend, where, fail)

    assert_one_sentence(run(capsys, "verify", tiny_bundle("onnx")), 4, "ran out of memory for")


def test_too_little_memory_of_our_own_is_a_sentence(capsys, monkeypatch):
    from ghostdeploy.bundle import folder as bundle

    def fail(*_, **__):
        raise MemoryError

    monkeypatch.setattr(bundle, "read_limited", fail)

    assert_one_sentence(run(capsys, "inspect", "net", "--json"), 4, "out of memory")
