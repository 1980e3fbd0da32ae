"""The linter against those who read and write Q/DQ graphs: NVIDIA's parser, ONNX Runtime's quantizer, and our own."""

from __future__ import annotations

import copy

import numpy as np
import onnx
import pytest
from onnxruntime.quantization import CalibrationMethod, QuantType
from onnxruntime.quantization.calibrate import TensorData, TensorsData
from onnxruntime.quantization.qdq_quantizer import QDQQuantizer
from onnxruntime.quantization.registry import QDQRegistry, QLinearOpsRegistry

from ghostdeploy.deploy.quantize import writer
from ghostdeploy.deploy.quantize.qdq_lint import lint, profile_of
from ghostdeploy.exporters.tensorrt.engine import GraphRefused, build_engine
from ghostdeploy.nvidia.kit import KitSpec
from ghostdeploy.nvidia.library import load_library
from tests.exported import plain_graph
from tests.further import further
from tests.qdq_graphs import (
    attention_network,
    find,
    g_ghost_network,
    ghost_network,
    insert_pair,
    quantizer_of,
    set_constant,
)
from tests.recipes import FUSED

SAMPLES = ("ghostnet_050", "g_ghost_regnetx_002")


@pytest.fixture(scope="module", params=further(SAMPLES, usual=SAMPLES[:1]))
def sample(request, tmp_path_factory):
    """The float graph of a trained model, folded, its layers named by module."""
    return onnx.load(plain_graph(tmp_path_factory, request.param))


def ranges(model):
    """Returns made-up ranges of all tensors: not negative behind a ReLU."""
    values = (*model.graph.input, *model.graph.value_info, *model.graph.output)
    positive = {node.output[0] for node in model.graph.node if node.op_type == "Relu"}
    return {value.name: (0.0 if value.name in positive else -4.0, 4.0) for value in values}


def by_habit(model):
    """Returns what ONNX Runtime's quantizer makes of a model when asked for TensorRT's number formats alone."""
    data = {
        name: TensorData(lowest=np.float32(low), highest=np.float32(high))
        for name, (low, high) in ranges(model).items()
    }
    quantizer = QDQQuantizer(
        copy.deepcopy(model),
        per_channel=True,
        reduce_range=False,
        weight_qType=QuantType.QInt8,
        activation_qType=QuantType.QInt8,
        tensors_range=TensorsData(CalibrationMethod.MinMax, data),
        nodes_to_quantize=[],
        nodes_to_exclude=[],
        op_types_to_quantize=list(QDQRegistry | QLinearOpsRegistry),
        extra_options={"ActivationSymmetric": True, "WeightSymmetric": True},
    )
    quantizer.quantize_model()
    return quantizer.model.model


@pytest.mark.parametrize("recipe", FUSED)
def test_the_linter_passes_our_own_graphs(sample, recipe):
    chosen = writer.plan(sample, FUSED[recipe])
    tied = {name: (-4.0, 4.0) for group in chosen.shared_scales for name in group}
    model = writer.write(sample, FUSED[recipe], chosen, ranges(sample) | tied)

    assert lint(model, profile=profile_of(FUSED[recipe])) == ()


def test_the_linter_names_what_a_quantizer_does_by_habit(sample):
    found = lint(by_habit(sample))

    merges = any(node.op_type == "Slice" for node in sample.graph.node)
    assert {violation.rule for violation in found} >= {
        "output-not-quantized",
        "merge-branch-float" if merges else "se-gate-float",
    }
    modules = {node.name for node in sample.graph.node if node.op_type in ("Conv", "Gemm")}
    assert {violation.module for violation in found} <= modules


def built(model):
    """Builds an engine without a GPU."""
    pytest.importorskip("tensorrt_rtx", reason="TensorRT for RTX is not installed here")
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.shape.dim[0].dim_value = 1
    del model.graph.value_info[:]
    spec = KitSpec(precision="int8", float_part="fp32", tf32=False, layers={})
    library = load_library("tensorrt_rtx")
    return build_engine(library, model.SerializeToString(), spec, compute_capability="89").data


@pytest.mark.parametrize("network", [ghost_network, g_ghost_network, attention_network])
def test_nvidia_accepts_what_the_linter_passes(network):
    assert len(built(network())) > 0


def asymmetric(model):
    set_constant(model, quantizer_of(model, "conv_head").input[2], np.int8(3))


def without_scale(model):
    set_constant(model, quantizer_of(model, "conv_head").input[1], np.float32(0))


def with_integer_bias(model):
    set_constant(model, "integers", np.zeros(32, np.int32))
    set_constant(model, "scales", np.full(32, 1e-4, np.float32))
    restore = onnx.helper.make_node("DequantizeLinear", ["integers", "scales"], ["bias"], name="bias_dq", axis=0)
    model.graph.node.insert(0, restore)
    find(model, "conv_head").input[2] = "bias"


@pytest.mark.parametrize(
    ("plant", "rule", "said"),
    [
        (asymmetric, "zero-zero-point", "Non-zero zero point is not supported"),
        (without_scale, "positive-finite-scale", "Scale coefficients must all be positive"),
        (with_integer_bias, "bias-not-quantized", "Int32"),
    ],
)
def test_what_nvidias_parser_refuses_the_linter_has_found(plant, rule, said):
    model = ghost_network()
    plant(model)

    assert {violation.rule for violation in lint(model)} == {rule}
    with pytest.raises(GraphRefused, match=said):
        built(model)


def test_the_parser_accepts_what_only_costs_speed_so_the_linter_is_needed():
    model = ghost_network()
    insert_pair(model, "conv_head")

    assert [violation.rule for violation in lint(model)] == ["no-double-qdq"]
    assert len(built(model)) > 0
