"""The Open Inference Protocol v2: what REST and gRPC answer is what the bundles give, bit for bit."""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pytest

import ghostdeploy as gd
from ghostdeploy.bundle.folder import open_bundle
from ghostdeploy.open_inference import DATATYPES

NAMES = ("one", "two", "pixels", "int8")


@pytest.fixture(scope="module")
def stub(server):
    words, sys.argv = sys.argv, sys.argv[:1]
    grpc = pytest.importorskip("grpc")
    from kserve.protocol.grpc.grpc_predict_v2_pb2_grpc import GRPCInferenceServiceStub

    sys.argv = words
    with grpc.insecure_channel(server.grpc) as channel:
        yield GRPCInferenceServiceStub(channel)


def batch(path, count=None):
    """Golden inputs, and what the bundle gives for them here."""
    inputs, _ = open_bundle(path).golden()
    inputs = {name: array[:count] for name, array in inputs.items()}
    with gd.load(path, profile="throughput") as model:
        return inputs, model.infer(inputs)


@pytest.mark.parametrize("binary", [True, False], ids=["binary", "json"])
@pytest.mark.parametrize("name", NAMES)
def test_the_answer_over_http_is_the_bundles(server, bundles, name, binary):
    inputs, expected = batch(bundles[name])

    found = server.infer(name, inputs, binary=binary)

    assert found.keys() == expected.keys()
    for key, array in expected.items():
        assert np.array_equal(found[key], array)


@pytest.mark.parametrize("raw", [True, False], ids=["raw", "numbers"])
@pytest.mark.parametrize("name", NAMES)
def test_the_answer_over_grpc_is_the_bundles(server, bundles, stub, name, raw):
    from kserve.protocol.grpc import grpc_predict_v2_pb2 as pb

    inputs, expected = batch(bundles[name])
    tensors = [{"name": k, "datatype": DATATYPES[a.dtype.name], "shape": a.shape} for k, a in inputs.items()]
    if not raw:
        for tensor, array in zip(tensors, inputs.values(), strict=True):
            kind = "uint_contents" if array.dtype == np.uint8 else "fp32_contents"
            tensor["contents"] = {kind: array.reshape(-1).tolist()}
    blobs = [array.tobytes() for array in inputs.values()] if raw else []

    found = stub.ModelInfer(pb.ModelInferRequest(model_name=name, inputs=tensors, raw_input_contents=blobs))

    assert [one.name for one in found.outputs] == list(expected)
    for one, data in zip(found.outputs, found.raw_output_contents, strict=True):
        assert np.array_equal(np.frombuffer(data, np.float32).reshape(one.shape), expected[one.name])


TRITON = """
import sys
import numpy as np
from tritonclient import grpc as client

where, given, answer = sys.argv[1:]
arrays = dict(np.load(given))
tensors = [client.InferInput(name, array.shape, "FP32") for name, array in arrays.items()]
for tensor, array in zip(tensors, arrays.values()):
    tensor.set_data_from_numpy(array)
with client.InferenceServerClient(where) as triton:
    assert triton.is_server_live()
    assert triton.is_server_ready()
    assert triton.is_model_ready("two")
    told = triton.get_model_metadata("two", as_json=True)
    assert [one["name"] for one in told["inputs"]] == list(arrays)
    found = triton.infer("two", tensors)
    np.savez(answer, **{one["name"]: found.as_numpy(one["name"]) for one in told["outputs"]})
"""


def test_tritons_client_speaks_with_it(server, bundles, tmp_path):
    """In a process of its own: its messages and KServe's have the same names."""
    inputs, expected = batch(bundles["two"])
    np.savez(tmp_path / "given.npz", **inputs)
    words = [sys.executable, "-c", TRITON, server.grpc, tmp_path / "given.npz", tmp_path / "answer.npz"]

    done = subprocess.run(words, capture_output=True, text=True, check=False)

    assert done.returncode == 0, done.stderr[-2000:]
    with np.load(tmp_path / "answer.npz") as found:
        for name, array in expected.items():
            assert np.array_equal(found[name], array)


def test_a_model_says_what_the_manifest_says(server, bundles):
    manifest = open_bundle(bundles["two"]).manifest

    status, told = server.get("/models/two")

    assert status == 200
    assert [(one["name"], one["shape"]) for one in told["inputs"]] == [("input", [-1, 3, 16, 16]), ("side", [-1, 4])]
    assert [one["name"] for one in told["outputs"]] == [spec.name for spec in manifest.outputs]
    assert {one["datatype"] for one in told["inputs"] + told["outputs"]} == {"FP32"}
    assert told["parameters"]["digest"] == manifest.digest
    assert told["parameters"]["task"] == manifest.task.name
    assert (told["name"], told["versions"]) == ("two", ["1"])


def test_health_names_and_server(server):
    assert server.get("/health/live") == (200, {"live": True})
    assert server.get("/health/ready") == (200, {"ready": True})
    assert server.get("/models/one/ready") == (200, {"name": "one", "ready": True})
    assert sorted(server.get("/models")[1]["models"]) == sorted([*NAMES, "net"])
    assert server.get("")[1]["name"] == "kserve"


def test_versions_are_named_and_the_highest_is_the_default(server, versions, stub):
    from kserve.protocol.grpc import grpc_predict_v2_pb2 as pb

    digests = [open_bundle(path).manifest.digest for path in versions]
    assert len(set(digests)) == 2

    told = [server.get(f"/models/net{place}")[1] for place in ("/versions/1", "/versions/2", "")]

    assert [one["parameters"]["digest"] for one in told] == [*digests, digests[1]]
    assert told[0]["versions"] == ["1", "2"]
    assert server.get("/models/net/versions/1/ready")[0] == 200
    assert server.get("/models/net/versions/3")[0] == 404
    assert list(stub.ModelMetadata(pb.ModelMetadataRequest(name="net", version="1")).versions) == ["1", "2"]
    inputs, expected = batch(versions[0])
    found = server.infer("net/versions/1", inputs)
    assert np.array_equal(found["logits"], expected["logits"])


def test_outputs_are_chosen_by_name_and_form(server, bundles):
    inputs, expected = batch(bundles["two"], 1)
    tensors = [{"name": k, "datatype": "FP32", "shape": a.shape, "data": a.tolist()} for k, a in inputs.items()]
    asked = [{"name": "features", "parameters": {"binary_data": True}}]

    status, found = server.post("two", json.dumps({"id": "42", "inputs": tensors, "outputs": asked}).encode())

    assert status == 200
    assert list(found) == ["features"]
    assert np.array_equal(found["features"], expected["features"])


def test_the_id_of_a_request_comes_back(server, bundles):
    inputs, _ = batch(bundles["one"], 1)
    tensors = [{"name": k, "datatype": "FP32", "shape": a.shape, "data": a.tolist()} for k, a in inputs.items()]

    _, found = server.ask("POST", "/v2/models/one/infer", json.dumps({"id": "42", "inputs": tensors}))

    assert (found["id"], found["model_name"], found["model_version"]) == ("42", "one", "1")


def test_metrics_count_answers_and_latencies(server, bundles):
    inputs, _ = batch(bundles["one"], 1)
    server.infer("one", inputs)
    server.post("one", b"{")

    status, text = server.ask("GET", "/metrics")

    assert status == 200
    for line in ('status="200"', 'status="400"', 'request_predict_seconds_count{model_name="one"}', "bundle_info"):
        assert line in text.decode()


def test_clients_neither_load_nor_unload_models(server, stub):
    import grpc
    from kserve.protocol.grpc import grpc_predict_v2_pb2 as pb

    assert server.ask("POST", "/v2/repository/models/one/unload")[0] == 404
    assert server.ask("POST", "/v1/models/one:predict", b"{}")[0] == 404
    with pytest.raises(grpc.RpcError) as refused:
        stub.RepositoryModelUnload(pb.RepositoryModelUnloadRequest(model_name="one"))
    assert refused.value.code() == grpc.StatusCode.UNIMPLEMENTED
    assert server.get("/models/one/ready")[0] == 200
