#!/usr/bin/env bash
# OpenVINO gives the one-sided DFT of a real signal one dimension more than ONNX says.
#
# Expected: ONNX's DFT (opset 17, onesided=1) of a real signal [1, 3, 8, 8, 1] along axis 3 has shape [1, 3, 8, 5, 2],
#   from every reader of the file: the last dimension of 1 holds the real part and becomes 2.
# Seen: ONNX Runtime 1.32.0 and the evaluator of onnx 1.23.2 do so. openvino 2026.4.1 reads the file without a word and
#   gives [1, 3, 8, 5, 1, 2]: it keeps the dimension of 1 and adds another. The values are right. A layer behind the DFT
#   fails for it, or broadcasts, and the message names that layer.
# Exits 0 while this holds, 1 when any part of it changes.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check \
    numpy==2.4.6 onnx==1.23.2 onnxruntime==1.32.0 openvino==2026.4.1

cd "$folder"
"$folder/venv/bin/python" - <<'PROGRAM'
import sys

import numpy as np
import onnx
import onnxruntime
import openvino
from onnx import TensorProto, helper
from onnx.reference import ReferenceEvaluator

signal = np.random.default_rng(0).normal(size=(1, 3, 8, 8, 1)).astype(np.float32)
spectrum = np.fft.rfft(signal[..., 0], axis=3)
expected = np.stack([spectrum.real, spectrum.imag], axis=-1)

graph = helper.make_graph(
    [helper.make_node("DFT", ["signal"], ["spectrum"], axis=3, onesided=1)],
    "one_sided",
    [helper.make_tensor_value_info("signal", TensorProto.FLOAT, signal.shape)],
    [helper.make_tensor_value_info("spectrum", TensorProto.FLOAT, expected.shape)],
)
model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=10)
onnx.checker.check_model(model, full_check=True)
data, core = model.SerializeToString(), openvino.Core()

found = {
    f"onnx {onnx.__version__}": ReferenceEvaluator(model).run(None, {"signal": signal})[0],
    f"onnxruntime {onnxruntime.__version__}": onnxruntime.InferenceSession(
        data, providers=["CPUExecutionProvider"]
    ).run(None, {"signal": signal})[0],
    f"openvino {openvino.__version__.split('-')[0]}": core.compile_model(core.read_model(data), "CPU")([signal])[0],
}
for name, values in found.items():
    error = np.abs(values.reshape(-1) - expected.reshape(-1)).max()
    print(f"{name:24} shape {list(values.shape)}, largest error {error:.1e}")

shapes = [values.shape for values in found.values()]
right = all(np.allclose(values.reshape(-1), expected.reshape(-1), atol=1e-5) for values in found.values())
as_seen = shapes == [expected.shape, expected.shape, (1, 3, 8, 5, 1, 2)] and right
print("as seen before" if as_seen else "CHANGED: not what was seen before")
sys.exit(not as_seen)
PROGRAM
