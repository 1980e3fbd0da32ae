#!/usr/bin/env bash
# AI Edge Quantizer breaks a network that returns a tensor and computes on: the other operator reads floats as INT8.
#
# Expected: in a static INT8 recipe that leaves inputs and outputs in float, an output gets a DEQUANTIZE of its own, and
#   operators that read the same tensor go on in INT8. So `return y, y.view(...)`, a backbone that returns a stage and
#   pads or activates it, keep their accuracy.
# Seen: ai-edge-quantizer 0.10.0 on files of litert-torch 0.10.0, run by ai-edge-litert 2.3.0. The reader is put behind
#   the DEQUANTIZE of the output although its own output is INT8. RESHAPE takes that without a word, and its values are
#   noise (1 dB, the output itself 26 dB); a file with RELU or PAD is written and then not prepared ("input->type !=
#   output->type (FLOAT32 != INT8)"). The same convolution as the only output keeps 41 dB.
# Exits 0 while this holds, 1 when any part of it changes.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check numpy==2.4.6 torch==2.13.0 torchao==0.18.0 \
    litert-torch==0.10.0 ai-edge-quantizer==0.10.0 ai-edge-litert==2.3.0

cd "$folder"
cat > program.py <<'PROGRAM'
import sys
import warnings

import numpy as np
import torch

warnings.simplefilter("ignore")
import litert_torch
from ai_edge_litert.interpreter import Interpreter
from ai_edge_quantizer import qtyping, quantizer
from ai_edge_quantizer.algorithm_manager import AlgorithmName

READERS = {
    "nothing": None,
    "reshape": lambda y: y.view(-1, 4, 2),
    "relu": torch.relu,
    "pad": lambda y: torch.nn.functional.pad(y, (1, 1)),
}
INT8 = qtyping.OpQuantizationConfig(
    activation_tensor_config=qtyping.TensorQuantizationConfig(num_bits=8, symmetric=False),
    weight_tensor_config=qtyping.TensorQuantizationConfig(
        num_bits=8, symmetric=True, granularity=qtyping.QuantGranularity.CHANNELWISE
    ),
    compute_precision=qtyping.ComputePrecision.INTEGER,
    explicit_dequantize=False,
)


class Network(torch.nn.Module):
    def __init__(self, reader):
        super().__init__()
        self.conv, self.reader = torch.nn.Conv2d(3, 8, 3), reader

    def forward(self, x):
        y = self.conv(x).mean((2, 3))
        return (y,) if self.reader is None else (y, self.reader(y))


def quantized(path, images):
    work = quantizer.Quantizer(path)
    work.update_quantization_recipe(".*", qtyping.TFLOperationName.ALL_SUPPORTED, INT8)
    for name in (qtyping.TFLOperationName.INPUT, qtyping.TFLOperationName.OUTPUT):
        work.update_quantization_recipe(".*", name, algorithm_key=AlgorithmName.NO_QUANTIZE)
    (key, ports), = Interpreter(model_path=path).get_signature_list().items()
    seen = work.calibrate({key: [{ports["inputs"][0]: image} for image in images]})
    return bytes(work.quantize(seen).quantized_model)


def outputs(data, image):
    run = Interpreter(model_content=data).get_signature_runner()
    (name,) = run.get_input_details()
    return [array for _, array in sorted(run(**{name: image}).items())]


def decibels(image, floating, integer):
    pairs = zip(outputs(floating, image), outputs(integer, image))
    return [float(10 * np.log10((a**2).sum() / ((a - b) ** 2).sum())) for a, b in pairs]


def tried(reader):
    torch.manual_seed(0)
    images = np.random.default_rng(0).normal(size=(64, 1, 3, 16, 16)).astype(np.float32)
    litert_torch.convert(Network(reader).eval(), (torch.zeros(1, 3, 16, 16),)).export("float.tflite")
    integer = quantized("float.tflite", images)
    try:
        return decibels(images[0], open("float.tflite", "rb").read(), integer)
    except RuntimeError as error:
        return str(error).splitlines()[-1]


found = {name: tried(reader) for name, reader in READERS.items()}
for name, seen in found.items():
    print(f"read again by {name}:", seen if isinstance(seen, str) else ", ".join(f"{one:.1f} dB" for one in seen), file=sys.stderr)
as_seen = (
    found["nothing"][0] > 35
    and found["reshape"][0] > 20 > 10 > found["reshape"][1]
    and all("failed to prepare" in str(found[name]) for name in ("relu", "pad"))
)
print("as seen before" if as_seen else "CHANGED: not what was seen before", file=sys.stderr)
sys.exit(not as_seen)
PROGRAM
"$folder/venv/bin/python" program.py 2>&1 >/dev/null | grep -E "^read again|^as seen|^CHANGED|Error"
