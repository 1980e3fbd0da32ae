"""ONNX files that leave the house: sorted, valid for the checker in full, the same bytes again; types read back."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from ghostdeploy.convert.graph import file as onnx_file
from ghostdeploy.exporters.openvino.exporter import fold_constants
from tests import quantized
from tests.bundles import Tiny, network
from tests.recipes import RECIPES


def parsed(text):
    graph = onnx.parser.parse_graph(text)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)


def names(graph):
    return [node.output[0] for node in graph.node]


def test_nodes_are_put_in_an_order_that_runs():
    graph = parsed("a (float[1] x) => (float[1] y) { y = Add(z, w) z = Relu(w) w = Relu(x) }").graph

    onnx_file.sort(graph)

    assert names(graph) == ["w", "z", "y"]


def test_what_is_in_order_stays_as_it_is():
    model = parsed("a (float[1] x) => (float[1] y) { b = Relu(x) a = Abs(x) y = Add(a, b) }")
    before = model.SerializeToString(deterministic=True)

    assert onnx_file.encode(model) == before


def test_a_cycle_is_refused():
    graph = parsed("a (float[1] x) => (float[1] y) { z = Add(x, w) w = Relu(z) y = Relu(w) }").graph

    with pytest.raises(ValueError, match="is part of a cycle"):
        onnx_file.sort(graph)


def branches():
    """An If in front of what its branch takes from around it, the branch itself upside down."""
    model = parsed("""a (float[1] x, bool c) => (float[1] y) {
        y = If (c) <
            then_branch = t () => (float[1] t) { t = Relu(s) s = Abs(taken) },
            else_branch = e () => (float[1] x2) { x2 = Identity(x) }
        >
        taken = Neg(x)
    }""")
    assert names(model.graph) == ["y", "taken"]
    return model


def test_what_a_branch_takes_from_around_it_stands_before_it():
    model = branches()
    with pytest.raises(onnx.checker.ValidationError):
        onnx.checker.check_model(model)

    found = onnx.load_from_string(onnx_file.encode(model))

    assert names(found.graph) == ["taken", "y"]
    assert [names(graph) for graph in onnx_file.subgraphs(found.graph.node[1])] == [["s", "t"], ["x2"]]
    x, on = np.float32([2]), np.array(True)
    assert ReferenceEvaluator(found).run(None, {"x": x, "c": on})[0] == 2


def test_an_invalid_graph_is_not_written(tmp_path):
    model = parsed("a (float[1] x) => (float[2] y) { y = Relu(x) }")

    with pytest.raises(onnx.shape_inference.InferenceError):
        onnx_file.write(model, tmp_path / "model.onnx")

    assert not (tmp_path / "model.onnx").exists()


@pytest.mark.parametrize("recipe", ["onnxruntime", "openvino", "tensorrt"])
def test_a_quantized_graph_comes_out_of_the_tool_unsorted_and_is_sorted(recipe):
    tiny = Tiny()
    graph = quantized.quantize(quantized.named(network(tiny)), tiny, RECIPES[recipe])
    with pytest.raises(onnx.checker.ValidationError, match="topologically sorted"):
        onnx.checker.check_model(graph)

    found = onnx.load_from_string(onnx_file.encode(graph))

    onnx.checker.check_model(found, full_check=True)
    assert sorted(node.name for node in found.graph.node) == sorted(node.name for node in graph.graph.node)
    images = tiny.example(1)
    ours, theirs = (quantized.simulate(one, images)["logits"] for one in (found, graph))
    np.testing.assert_array_equal(ours, theirs)


def test_types_and_sizes_are_read_back():
    ends = [
        helper.make_tensor_value_info("map", TensorProto.INT64, ["batch", 4, None]),
        helper.make_tensor_value_info("mask", TensorProto.BOOL, ["batch", 4, 8]),
        helper.make_tensor_value_info("half", TensorProto.FLOAT16, [1]),
    ]
    begin = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", 3]) for name in ("x", "weight")]
    graph = helper.make_graph([], "g", begin, ends, [numpy_helper.from_array(np.zeros((1, 3), np.float32), "weight")])

    found = onnx_file.ports(helper.make_model(graph))

    assert [spec.name for spec in found.inputs] == ["x"]
    assert [(spec.dtype, spec.shape) for spec in found.outputs] == [
        ("int64", (None, 4, None)),
        ("bool", (None, 4, 8)),
        ("float16", (1,)),
    ]


@pytest.mark.parametrize("recipe", [None, "openvino"])
@pytest.mark.parametrize("batch", [1, None])
def test_an_openvino_graph_is_folded_and_its_integers_stay(recipe, batch):
    import openvino

    tiny = Tiny(batch=batch)
    model = quantized.named(network(tiny))
    if recipe is not None:
        model = quantized.quantize(model, tiny, RECIPES[recipe])
    core = openvino.Core()
    plain, folded = (core.read_model(model.SerializeToString(), b"") for _ in range(2))

    fold_constants(folded)

    def count(graph, *kinds):
        return sum(op.get_type_name() in kinds for op in graph.get_ops())

    def integers(graph):
        constants = (op for op in graph.get_ops() if op.get_type_name() == "Constant")
        return sum(op.get_element_type().to_string() in ("i8", "u8") for op in constants)

    assert len(folded.get_ops()) < len(plain.get_ops())
    assert [port.get_any_name() for port in folded.inputs] == [port.get_any_name() for port in plain.inputs]
    assert integers(folded) == integers(plain) == (0 if recipe is None else integers(plain))
    assert (recipe is None) == (integers(folded) == 0)
    assert batch is None or count(folded, "ShapeOf") == 0
    assert count(folded, "FakeQuantize") == count(plain, "FakeQuantize")
    images = tiny.example(1)["input"]
    options = {"INFERENCE_PRECISION_HINT": "f32"}
    got, wanted = (core.compile_model(one, "CPU", options)(images)[0] for one in (folded, plain))
    np.testing.assert_allclose(got, wanted, rtol=1e-5, atol=1e-6)
