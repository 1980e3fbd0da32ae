#!/usr/bin/env bash
# PyTorch's ONNX exporter drops `divisor_override` of average pools without a word.
#
# Expected: torch.onnx.export(dynamo=True) refuses AvgPool2d(2, divisor_override=1), or multiplies by the factor behind it:
#   ONNX's AveragePool has no such attribute.
# Seen: torch 2.13.0 with onnxscript 0.7.2 exports it, and the file computes the plain average: a quarter of PyTorch's
#   values for a window of 2 by 2.
# Exits 0 while this holds, 1 when any part of it changes.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check \
    torch==2.13.0 numpy==2.4.6 onnx==1.23.2 onnxscript==0.7.2 onnxruntime==1.32.0

cd "$folder"
"$folder/venv/bin/python" - <<'PROGRAM'
import logging
import sys
import warnings

import onnxruntime
import onnxscript
import torch

logging.disable(logging.WARNING)
warnings.simplefilter("ignore")
pool = torch.nn.AvgPool2d(2, divisor_override=1).eval()
image = torch.arange(16.0).reshape(1, 1, 4, 4)

program = torch.onnx.export(pool, (image,), dynamo=True, verbose=False)
session = onnxruntime.InferenceSession(program.model_proto.SerializeToString(), providers=["CPUExecutionProvider"])
found = torch.from_numpy(session.run(None, {session.get_inputs()[0].name: image.numpy()})[0])
expected = pool(image)
ratio = (expected / found).unique().tolist()
kinds = [node.op_type for node in program.model_proto.graph.node]
print(f"torch {torch.__version__.split('+')[0]}, onnxscript {onnxscript.__version__}: {kinds}")
print(f"PyTorch {expected.flatten().tolist()}, the file {found.flatten().tolist()}")

as_seen = kinds == ["AveragePool"] and ratio == [4.0]
print("as seen before" if as_seen else "CHANGED: not what was seen before")
sys.exit(not as_seen)
PROGRAM
