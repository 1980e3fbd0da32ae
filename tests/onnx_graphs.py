"""Small ONNX graphs for the intake passes, and a pass applied with the proof that the outputs stay."""

from __future__ import annotations

from collections import Counter

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from ghostdeploy.deploy.intake.onnx.rewrite import rewrite
from ghostdeploy.deploy.quantize.simulate import GraphRunner
from tests.onnx_files import norm

CHANNELS = 8


def node(kind, names, result, **settings):
    return helper.make_node(kind, names.split(), result.split(), **settings)


def batch_norm(name, source, result, **settings):
    keys = [f"{name}.{key}" for key in ("weight", "bias", "running_mean", "running_var")]
    return helper.make_node("BatchNormalization", [source, *keys], result.split(), **settings)


def graph(nodes, shape=("N", CHANNELS, 9, 7), outputs=("y",), **arrays):
    """Returns a model of one input `x`; constants `w…` are random of the given shape, others as given."""
    rng = np.random.default_rng(0)
    constants = {}
    for name, value in arrays.items():
        if name.startswith("bn"):
            constants |= norm(name, value, rng)
        elif isinstance(value, tuple):
            constants[name] = rng.normal(size=value)
        else:
            constants[name] = value
    tensors = [
        numpy_helper.from_array(a.astype(np.float32) if a.dtype == np.float64 else a, n) for n, a in constants.items()
    ]
    proto = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in outputs],
        tensors,
    )
    model = helper.make_model(proto, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    return onnx.shape_inference.infer_shapes(model, data_prop=True)


def applied(step, model):
    """Returns sites and operator counts, after checking that the outputs stay."""
    dims = model.graph.input[0].type.tensor_type.shape.dim[1:]
    batch = np.random.default_rng(1).normal(size=(2, *(dim.dim_value for dim in dims))).astype(np.float32)
    after, (record,) = rewrite(model, batch, [step])
    for was, now in zip(GraphRunner(model)(batch), GraphRunner(after)(batch), strict=True):
        assert np.allclose(was, now, rtol=1e-4, atol=1e-4)
    assert record.max_relative_error <= 1e-9
    onnx.checker.check_model(after, full_check=True)
    return record.sites, Counter(one.op_type for one in after.graph.node)
