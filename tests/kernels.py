"""INT8 graphs and the kernels that run them: one layer with all its weights at one value, and engines kept to AVX2."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

_RUN = {
    "openvino": """
import sys, numpy as np, openvino
core = openvino.Core()
config = {"INFERENCE_PRECISION_HINT": "f32", "ENABLE_CPU_PINNING": False, "INFERENCE_NUM_THREADS": 1}
for path, images, out in zip(sys.argv[1::3], sys.argv[2::3], sys.argv[3::3]):
    compiled = core.compile_model(core.read_model(path), "CPU", config)
    x = np.load(images)
    np.save(out, np.concatenate([np.array(compiled(x[i : i + 16])[0]) for i in range(0, len(x), 16)]))
""",
    "onnxruntime": """
import sys, numpy as np, onnxruntime
options = onnxruntime.SessionOptions()
options.log_severity_level, options.intra_op_num_threads = 3, 1
for path, images, out in zip(sys.argv[1::3], sys.argv[2::3], sys.argv[3::3]):
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    x = np.load(images)
    np.save(out, np.concatenate([session.run(None, {"input": x[i : i + 16]})[0] for i in range(0, len(x), 16)]))
""",
}


def run_on_avx2(engine, jobs, folder):
    """Returns the first output of each (ONNX graph, images), by name, from kernels without dot-product instructions.

    OpenVINO can be told to keep to AVX2; ONNX Runtime is shown an AVX2 processor by qemu.
    """
    if platform.machine().lower() not in ("x86_64", "amd64"):
        pytest.skip(f"AVX2 kernels are for x86-64, this is {platform.machine()}")
    command, environment = [sys.executable], os.environ | {"ONEDNN_MAX_CPU_ISA": "AVX2", "OMP_NUM_THREADS": "1"}
    if engine == "onnxruntime":
        emulator = shutil.which("qemu-x86_64")
        if emulator is None:
            pytest.skip("ONNX Runtime's kernels without VNNI need an emulator: qemu-x86_64 is not installed")
        command = [emulator, "-cpu", "Haswell-v4", sys.executable]
    words = []
    for name, (model, images) in jobs.items():
        paths = [folder / f"{name}{ending}" for ending in (".onnx", " images.npy", " outputs.npy")]
        onnx.save(model, paths[0])
        np.save(paths[1], images)
        words += map(str, paths)
    done = subprocess.run(
        [*command, "-c", _RUN[engine], *words], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return {name: np.load(folder / f"{name} outputs.npy") for name in jobs}


def simulate(model, images):
    """Returns the first output of a graph run as it is written, without fusion."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level, options.intra_op_num_threads = 3, 1
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return np.concatenate([session.run(None, {"input": images[i : i + 16]})[0] for i in range(0, len(images), 16)])


def one_layer(op_type, weight, *, groups=1, activations=np.uint8, image=(8, 8)):
    """Returns a Q/DQ graph of one layer `layer` for inputs in [0, 1]; its output has one step of 1/255 of its largest.

    Args:
        op_type: Conv, ConvTranspose, Gemm (transB = 1) or MatMul.
        weight: int8, as that operator wants it.
        groups: Of a convolution.
        activations: uint8 or int8, zero point 0.
        image: Height and width of a convolution's input.
    """
    top = np.iinfo(activations).max
    axis = {"Conv": 0, "Gemm": 0, "MatMul": 1, "ConvTranspose": 1}[op_type]
    convolution = op_type.startswith("Conv")
    channels = {"Conv": weight.shape[1] * groups, "ConvTranspose": weight.shape[0]}.get(op_type, weight.shape[1 - axis])
    outputs = weight.shape[axis] * (groups if op_type == "ConvTranspose" else 1)
    largest = np.abs(weight.astype(np.int64)).sum() / outputs / 127
    arrays = {
        "weight": weight,
        "weight_scale": np.full(weight.shape[axis], 1 / 127, np.float32),
        "weight_zero": np.zeros(weight.shape[axis], np.int8),
        "bias": np.zeros(outputs, np.int32),
        "bias_scale": np.full(outputs, 1 / 127 / top, np.float32),
        "scale": np.float32(1 / top),
        "zero": activations(0),
        "out_scale": np.float32(largest / top),
    }
    attributes = {"group": groups, "kernel_shape": list(weight.shape[2:])} if convolution else {}
    if op_type == "Gemm":
        attributes = {"transB": 1}
    names = ["x", "w"] if op_type == "MatMul" else ["x", "w", "b"]
    nodes = [
        helper.make_node("QuantizeLinear", ["input", "scale", "zero"], ["xq"]),
        helper.make_node("DequantizeLinear", ["xq", "scale", "zero"], ["x"]),
        helper.make_node("DequantizeLinear", ["weight", "weight_scale", "weight_zero"], ["w"], axis=axis),
        helper.make_node("DequantizeLinear", ["bias", "bias_scale"], ["b"], axis=0),
        helper.make_node(op_type, names, ["y"], "layer", **attributes),
        helper.make_node("QuantizeLinear", ["y", "out_scale", "zero"], ["yq"]),
        helper.make_node("DequantizeLinear", ["yq", "out_scale", "zero"], ["logits"]),
    ]
    if op_type == "MatMul":
        del nodes[3], arrays["bias"], arrays["bias_scale"]
    shape = ["batch", channels, *(image if convolution else ())]
    graph = helper.make_graph(
        nodes,
        "one layer",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", *[None] * (len(shape) - 1)])],
        [numpy_helper.from_array(np.asarray(array), name) for name, array in arrays.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
