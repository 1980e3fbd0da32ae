#!/usr/bin/env bash
# A request with binary tensors that contradicts itself is an error of KServe's server, and a right one becomes a list.
#
# Expected: a malformed request of the Open Inference Protocol is a 4xx; a binary tensor is read in place, which is what
#   the binary data extension is for.
# Seen, kserve 0.21.0: data that are cut short, a JSON length that is no number, and numbers that do not fit the shape are
#   answered with 500 and the text of a ValueError, each with a traceback in the log. A right binary tensor is spelled out
#   as a Python list, value by value (`InferRequest.from_bytes` → `set_data_from_numpy(…, binary_data=False)`), before the
#   model sees it: 150,528 Python numbers for one float32 image of 224 px.
# Exits 0 while this holds, 1 when any part of it changes.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check 'kserve==0.21.0' httpx

cd "$folder"
"$folder/venv/bin/python" - 2>/dev/null <<'PROGRAM'
import json
import sys

import numpy as np
from fastapi.testclient import TestClient
from kserve import InferOutput, InferRequest, InferResponse, Model, ModelRepository
from kserve.model_server import app
from kserve.protocol.dataplane import DataPlane
from kserve.protocol.model_repository_extension import ModelRepositoryExtension
from kserve.protocol.rest.server import RESTServer


class Echo(Model):
    def __init__(self):
        super().__init__("echo")
        self.ready = True

    async def predict(self, payload, headers=None, response_headers=None):
        array = payload.inputs[0].as_numpy()
        output = InferOutput("o", list(array.shape), "FP32")
        output.set_data_from_numpy(array, binary_data=True)
        return InferResponse("1", "echo", [output])


models = ModelRepository()
models.update(Echo())
RESTServer("kserve.model_server:app", DataPlane(models), ModelRepositoryExtension(models), 0).create_application()
client = TestClient(app, raise_server_exceptions=False)
tensor = {"name": "i", "shape": [1, 4], "datatype": "FP32", "parameters": {"binary_data_size": 16}}
head, data = json.dumps({"inputs": [tensor]}).encode(), np.zeros(4, np.float32).tobytes()


def status(body, length, kind="application/octet-stream"):
    headers = {"Content-Type": kind} | ({} if length is None else {"Inference-Header-Content-Length": str(length)})
    return client.post("/v2/models/echo/infer", content=body, headers=headers).status_code


numbers = json.dumps({"inputs": [{"name": "i", "shape": [1, 5], "datatype": "FP32", "data": [0.0] * 4}]})
seen = {
    "a right request": status(head + data, len(head)),
    "data cut short": status(head + data[:7], len(head)),
    "a length that is no number": status(head + data, "x"),
    "numbers that do not fit the shape": status(numbers, None, "application/json"),
}
kind = type(InferRequest.from_bytes(head + data, len(head), "echo").inputs[0].data).__name__
print(seen, "binary data become a", kind)
sys.exit([*seen.values(), kind] != [200, 500, 500, 500, "list"])
PROGRAM
