"""ExecuTorch programs: what they hold, what is read back from them, and what would not load."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import nn

import ghostdeploy as gd
from ghostdeploy import targets
from ghostdeploy.bundle.folder import open_bundle
from ghostdeploy.convert.graph.index import OnnxGraph
from ghostdeploy.errors import ExportFailed, UsageError
from ghostdeploy.exporters.executorch import quantized
from ghostdeploy.runtimes.executorch import contents, program
from tests.bundles import Tiny, network, writer_of
from tests.conftest import require
from tests.quantized import named

SIZE = 32


@pytest.fixture(autouse=True)
def installed():
    require("executorch")


class Head(nn.Module):
    """A small network with one operation at its end."""

    def __init__(self, last):
        super().__init__()
        self.stem, self.maps = nn.Conv2d(3, 8, 3, 2, 1), nn.Conv2d(8, 4, 1)
        self.last = last

    def forward(self, x):
        return self.last(self.maps(torch.relu(self.stem(x))))


def exported(last, folder, **options):
    torch.manual_seed(0)
    return gd.export(
        Head(last).eval(), target="executorch", name="head", out=folder, preprocess={"size": SIZE}, **options
    )


def held(path):
    """Returns what the program of a bundle holds."""
    return contents.read((path / "model.pte").read_bytes())


def test_a_program_names_its_inputs_outputs_and_layers(tiny_bundle):
    path = tiny_bundle("executorch", side=True)
    inputs, outputs = program.read_names((path / "model.pte").read_bytes())
    found = held(path)

    assert inputs == ["input", "side"]
    assert outputs == ["logits", "features"]
    assert [layer.name for layer in found.layers] == ["first", "depthwise", "classifier", "mix"]
    assert [layer.kind for layer in found.layers] == ["Conv2d", "DepthwiseConv2d", "FullyConnected", "FullyConnected"]


def test_all_of_a_plain_network_is_one_delegate(tiny_bundle):
    found = held(tiny_bundle("executorch"))

    assert found.delegates == ("XnnpackBackend",)
    assert found.outside == found.undelegated == ()


def test_half_precision_is_that_of_data_and_arithmetic(tiny_bundle):
    found = held(tiny_bundle("executorch", "fp16"))

    assert {layer.data.kind for layer in found.layers} == {"float16"}
    assert set(found.outside) == {"dim_order_ops::_to_dim_order_copy.out"}  # to half at the start, to float at the end
    assert len(found.outside) == 2


def test_int8_layers_read_and_give_integers(tiny_bundle):
    path = tiny_bundle("executorch", "int8")

    assert {(one.data.kind, one.weights.kind, one.output.kind) for one in held(path).layers} == {("int8",) * 3}
    achieved = open_bundle(path).manifest.precision_achieved
    assert (achieved.int8_layers, achieved.float_layers, achieved.int8_mac_share) == (3, 0, 1.0)
    assert "in 1 XNNPACK delegate, none outside" in achieved.how


def test_a_payload_is_the_same_every_time(tmp_path):
    datas = []
    for name in ("one", "two"):
        folder = tmp_path / name
        folder.mkdir()
        writer_of("executorch")(named(network(Tiny())), folder, "fp32", Tiny())
        datas.append((folder / "model.pte").read_bytes())

    assert datas[0] == datas[1]


def test_what_the_delegate_does_not_take_is_counted(tmp_path):
    bundle = exported(lambda x: torch.erf(x).mean((2, 3)), tmp_path)

    assert held(bundle.path).outside == ("aten::erf.out",)
    assert "1 outside" in bundle.manifest.precision_achieved.how
    assert "1 erf.out" in bundle.manifest.precision_achieved.how
    assert bundle.manifest.verdict == "passed"


def test_an_output_may_repeat_another(tmp_path):
    def last(x):
        pooled = x.mean((2, 3))
        return {"first": pooled, "second": pooled}

    bundle = exported(last, tmp_path)

    with gd.load(bundle.path, threads=1) as runtime:
        found = runtime.infer({"input": np.ones((1, 3, SIZE, SIZE), np.float32)})
    assert np.array_equal(found["first"], found["second"])


def test_an_operator_without_a_form_is_named(tmp_path):
    with pytest.raises(ExportFailed, match="ghostdeploy cannot write CumSum") as caught:
        exported(lambda x: torch.cumsum(x, 1).mean((2, 3)), tmp_path)

    assert "for ExecuTorch" in caught.value.message


def test_a_free_batch_is_refused_before_any_work(tmp_path):
    with pytest.raises(UsageError, match="executorch"):
        exported(lambda x: x.mean((2, 3)), tmp_path, batch=None)


def constants(**arrays):
    return [numpy_helper.from_array(np.asarray(value), name) for name, value in arrays.items()]


def conv(*, scale, rounded=True):
    """Returns a Q/DQ graph of one 1×1 convolution whose second channel never fires and has weights of `scale`."""
    around = {"s": np.float32(0.02), "z": np.uint8(0), "t": np.float32(0.02), "zero": np.uint8(0)}
    codes = np.array([[90, -40, 30], [127, 127, 127]], np.int8).reshape(2, 3, 1, 1)
    weights = {"codes": codes, "scales": np.array([0.01, scale], np.float32), "zeros": np.zeros(2, np.int8)}
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "s", "z"], ["q"]),
        helper.make_node("DequantizeLinear", ["q", "s", "z"], ["d"]),
        helper.make_node("DequantizeLinear", ["codes", "scales", "zeros"], ["w"], axis=0),
        helper.make_node("Conv", ["d", "w", "b"], ["c"], name="conv"),
    ]
    ends = [
        helper.make_node("QuantizeLinear", ["c", "t", "zero"], ["r"]),
        helper.make_node("DequantizeLinear", ["r", "t", "zero"], ["y"]),
    ]
    nodes += ends if rounded else [helper.make_node("Relu", ["c"], ["y"])]
    bias = np.array([0.1, -2 * 127 * 3 * scale], np.float32)
    shapes = (("x", (1, 3, 4, 4)), ("y", (1, 2, 4, 4)))
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in shapes]
    graph = helper.make_graph(nodes, "g", values[:1], values[1:], constants(**around, **weights, b=bias))
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    return onnx.shape_inference.infer_shapes(model)


def test_a_channel_that_never_fires_loads_and_stays_silent(tmp_path):
    """Its ratio of scales is 741, where XNNPACK takes less than 256: the file would not load."""
    model = conv(scale=741.0)
    writer_of("executorch")(model, tmp_path, "int8", Tiny())

    from ghostdeploy.runtimes.executorch.engine import Network

    data = np.random.default_rng(0).uniform(0, 1, (1, 3, 4, 4)).astype(np.float32)
    engine = Network((tmp_path / "model.pte").read_bytes(), threads=1)
    (found,) = engine.run([data])
    engine.close()
    (wanted,) = onnx.reference.ReferenceEvaluator(model).run(None, {"x": data})
    assert not found[:, 1].any()
    np.testing.assert_allclose(found, wanted, atol=0.0201)


def test_the_capped_scales_are_those_that_xnnpack_takes():
    model = conv(scale=741.0)
    graph = OnnxGraph(model)
    static = {name: numpy_helper.to_array(tensor) for name, tensor in graph.constants.items()}

    (found,) = quantized.integer_layers(graph, static).values()

    assert found.scales.tolist() == pytest.approx([0.01, 255.0])
    assert found.shrink.tolist() == pytest.approx([1.0, 255 / 741])


def test_a_layer_whose_result_is_not_rounded_is_float_with_restored_weights(tmp_path):
    writer_of("executorch")(conv(scale=0.02, rounded=False), tmp_path, "int8", Tiny())

    found = contents.read((tmp_path / "model.pte").read_bytes())

    (layer,) = found.layers
    assert layer.weights.kind == "float32"
    assert found.outside == ()


def test_the_default_route_writes_the_untouched_module(tmp_path):
    row = targets.find("executorch")
    route = targets.resolve(row.default_route, requirement="")()
    written = route.write(Head(lambda x: x.mean((2, 3))).eval(), torch.zeros(1, 3, SIZE, SIZE), tmp_path)

    assert [spec.name for spec in written.ports.inputs] == ["input"]
    assert [spec.name for spec in written.ports.outputs] == ["output_0"]
    assert [layer.name for layer in held(tmp_path).layers] == ["Conv2d", "Conv2d"]


def joined():
    """Returns a Q/DQ graph that joins what was rounded in two ways."""
    arrays = {"s": np.float32(0.02), "z": np.uint8(100), "t": np.float32(0.01), "w": np.uint8(0)}
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "s", "z"], ["a"]),
        helper.make_node("DequantizeLinear", ["a", "s", "z"], ["b"]),
        helper.make_node("Relu", ["x"], ["r"]),
        helper.make_node("QuantizeLinear", ["r", "t", "w"], ["c"]),
        helper.make_node("DequantizeLinear", ["c", "t", "w"], ["d"]),
        helper.make_node("Concat", ["b", "d"], ["j"], axis=1),
        helper.make_node("QuantizeLinear", ["j", "s", "z"], ["q"]),
        helper.make_node("DequantizeLinear", ["q", "s", "z"], ["y"]),
    ]
    values = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, (1, size, 4, 4)) for name, size in (("x", 3), ("y", 6))
    ]
    graph = helper.make_graph(nodes, "g", values[:1], values[1:], constants(**arrays))
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    return onnx.shape_inference.infer_shapes(model)


def test_parts_of_several_scales_are_joined(tmp_path):
    """XNNPACK does not load a concatenation of several scales."""
    from ghostdeploy.runtimes.executorch.engine import Network

    writer_of("executorch")(joined(), tmp_path, "int8", Tiny())

    data = np.random.default_rng(0).normal(size=(1, 3, 4, 4)).astype(np.float32)
    engine = Network((tmp_path / "model.pte").read_bytes(), threads=1)
    (found,) = engine.run([data])
    engine.close()
    (wanted,) = onnx.reference.ReferenceEvaluator(joined()).run(None, {"x": data})
    np.testing.assert_allclose(found, wanted, atol=0.0201)
    assert (found == wanted).mean() > 0.95
