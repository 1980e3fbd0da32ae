"""Requests that are wrong in every way: refused with a reason, never an error of the server, never a hang.

After each run the server still gives the bundle's answer, and its log, which has what it did not foresee, is empty.
"""

from __future__ import annotations

import json
import os
import socket
import sys
from contextlib import suppress

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import ghostdeploy as gd
from ghostdeploy.open_inference import JSON_LENGTH, written
from tests.fuzzing import mutations

MANY = os.environ.get("HYPOTHESIS_PROFILE") == "fuzz"
CASES = 4000 if MANY else 150
RANDOM = np.random.default_rng(0)
VALID = {
    "two": {
        "input": RANDOM.normal(size=(2, 3, 16, 16)).astype(np.float32),
        "side": RANDOM.normal(size=(2, 4)).astype(np.float32),
    }
}
BODY, LENGTH = written(VALID["two"], binary=True)
JSON_BODY, _ = written({"input": VALID["two"]["input"][:1, :, :2, :2], "side": VALID["two"]["side"][:1]}, binary=False)

fuzzed = settings(max_examples=CASES, suppress_health_check=list(HealthCheck))


@pytest.fixture(autouse=True)
def unharmed(server, bundles):
    """Whatever a test sent, the server answers rightly afterwards and saw nothing that it did not foresee."""
    before = len(server.log)
    yield
    with gd.load(bundles["two"], profile="throughput") as model:
        expected = model.infer(VALID["two"])
    found = server.infer("two", VALID["two"])
    assert all(np.array_equal(found[name], array) for name, array in expected.items())
    assert server.process.poll() is None
    assert server.log[before:] == []


@pytest.fixture(scope="module")
def post(server):
    """Sends bodies over one connection for as long as it lives; returns status and reason."""
    connection = server.connect(timeout=30)

    def posting(body, path="/v2/models/two/infer", method="POST", **headers):
        connection.request(method, path, body, {name.replace("_", "-"): value for name, value in headers.items()})
        answer = connection.getresponse()
        data = answer.read()
        return answer.status, data

    yield posting
    connection.close()


def assert_refused(found, *, good=False):
    """The answer is a refusal with a reason; where `good`, it may be a right answer too."""
    status, data = found
    if good and status == 200:
        return
    assert 400 <= status < 500, (status, data)
    reason = json.loads(data)["error"]
    assert isinstance(reason, str)
    assert 0 < len(reason) < 2000


leaves = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8)
anything = st.recursive(
    leaves, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4)
)
sizes = st.integers(-3, 20) | st.sampled_from([2**31, 2**63 - 1, 2**63, 2**64, 10**30])
shapes = st.lists(sizes, max_size=6) | st.sampled_from([[1, 3, 16, 16], [2, 4], [1] * 70, [0, 3, 16, 16]]) | anything
types = st.sampled_from(["FP32", "UINT8", "INT64", "BOOL", "FP16", "BYTES", "BF16", "fp32", ""]) | anything
names = st.sampled_from(["input", "side", "logits", "", "INPUT"]) | anything
parameters = st.fixed_dictionaries({}, optional={"binary_data_size": sizes | anything, "binary_data": anything})


def tensors(data=anything):
    """Tensors with any part wrong."""
    return st.fixed_dictionaries(
        {"name": names, "shape": shapes, "datatype": types},
        optional={"data": data, "parameters": parameters | anything},
    )


numbers = st.lists(
    st.floats() | st.integers() | st.booleans() | st.text(max_size=2) | st.lists(st.floats()), max_size=12
)
requests = st.fixed_dictionaries(
    {"inputs": st.lists(tensors(numbers), max_size=3) | anything},
    optional={
        "id": anything,
        "parameters": parameters | anything,
        "outputs": st.lists(tensors(), max_size=2) | anything,
    },
)


@fuzzed
@given(requests | anything)
def test_json_that_is_no_request(post, document):
    assert_refused(post(json.dumps(document).encode("utf-8", "surrogatepass")))


@fuzzed
@given(requests, st.binary(max_size=64))
def test_binary_data_that_do_not_fit(post, document, rest):
    head = json.dumps(document).encode("utf-8", "surrogatepass")
    assert_refused(post(head + rest, **{JSON_LENGTH: str(len(head))}))


@fuzzed
@given(
    st.text(st.characters(min_codepoint=32, max_codepoint=255, exclude_characters="\x7f"), max_size=30) | sizes.map(str)
)
def test_any_length_of_the_json(post, text):
    assert_refused(post(BODY, **{JSON_LENGTH: text}), good=text == str(LENGTH))


@pytest.mark.parametrize(("body", "length"), [(BODY, LENGTH), (JSON_BODY, None)], ids=["binary", "json"])
def test_damaged_bodies(post, body, length):
    for damaged in mutations(body[: 4096 if length is None else len(body)], CASES, 7):
        assert_refused(post(damaged, **({} if length is None else {JSON_LENGTH: str(length)})), good=True)


@fuzzed
@given(
    st.sampled_from(["GET", "POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "LOCK"]),
    st.lists(
        st.sampled_from(["v2", "models", "two", "infer", "versions", "1", "ready", "..", "%2e%2e", "two:1", "%00", "é"])
        | st.text("abc:%/?#", max_size=4),
        max_size=6,
    ),
)
def test_any_path_and_method(post, method, parts):
    path = "/" + "/".join(parts).encode("ascii", "replace").decode()
    status, data = post(b"{}", path, method)
    assert status < 500
    assert status < 400 or json.loads(data)["error"]


def test_what_is_no_http(server):
    request = b"POST /v2/models/two/infer HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n{}"
    for damaged in mutations(request, CASES // 2, 8):
        answer = b""
        with socket.create_connection(("127.0.0.1", server.port), timeout=30) as client, suppress(ConnectionError):
            client.sendall(damaged)
            client.shutdown(socket.SHUT_WR)
            answer = client.recv(1 << 16)
        assert answer == b"" or answer.split(b" ", 2)[1][:1] in b"24", (damaged, answer)


@pytest.mark.parametrize("depth", [50, 200, 2000, 100_000])
def test_lists_in_lists(post, depth):
    data = b"[" * depth + b"]" * depth
    tensor = b'{"name":"input","shape":[1],"datatype":"FP32","data":' + data + b"}"
    assert_refused(post(b'{"inputs":[' + tensor + b"]}"))
    assert_refused(post(data))


def test_a_long_list_of_numbers_too_many(post):
    data = b"[" + b"1," * 400_000 + b"1]"
    assert_refused(post(b'{"inputs":[{"name":"input","shape":[1,3,16,16],"datatype":"FP32","data":' + data + b"}]}"))


@pytest.fixture(scope="module")
def call(server):
    """Calls ModelInfer with any bytes; returns the code."""
    words, sys.argv = sys.argv, sys.argv[:1]
    import grpc

    sys.argv = words
    with grpc.insecure_channel(server.grpc) as channel:
        method = channel.unary_unary("/inference.GRPCInferenceService/ModelInfer")

        def calling(data):
            try:
                method(data, timeout=30)
            except grpc.RpcError as error:
                return error.code().name if error.details() else "no reason"
            return "OK"

        yield calling


CODES = {"INVALID_ARGUMENT", "NOT_FOUND"}
rpc_tensors = st.fixed_dictionaries(
    {},
    optional={
        "name": st.sampled_from(["input", "side", "", "x"]),
        "datatype": st.sampled_from(["FP32", "FP16", "UINT8", "BYTES", "BOOL", "", "X"]),
        "shape": st.lists(st.integers(-(2**63), 2**63 - 1) | st.integers(0, 16), max_size=5)
        | st.sampled_from([[1, 3, 16, 16], [1, 4]]),
        "contents": st.fixed_dictionaries(
            {},
            optional={
                "fp32_contents": st.lists(st.floats(width=32), max_size=5),
                "uint_contents": st.lists(st.integers(0, 2**32 - 1), max_size=5),
                "bytes_contents": st.lists(st.binary(max_size=4), max_size=3),
            },
        ),
    },
)
rpc_requests = st.fixed_dictionaries(
    {"model_name": st.sampled_from(["two", "two", "two", "none", ""])},
    optional={
        "model_version": st.sampled_from(["1", "2", "", "x"]),
        "id": st.text(max_size=4),
        "inputs": st.lists(rpc_tensors, max_size=3),
        "outputs": st.lists(st.fixed_dictionaries({"name": st.sampled_from(["logits", "x", ""])}), max_size=2),
        "raw_input_contents": st.lists(st.binary(max_size=64) | st.just(bytes(3072)), max_size=3),
    },
)


@fuzzed
@given(rpc_requests)
def test_messages_of_grpc(call, fields):
    from kserve.protocol.grpc import grpc_predict_v2_pb2 as pb

    assert call(pb.ModelInferRequest(**fields).SerializeToString()) in CODES


def test_damaged_messages_of_grpc(call):
    from kserve.protocol.grpc import grpc_predict_v2_pb2 as pb

    inputs = [{"name": k, "datatype": "FP32", "shape": a.shape} for k, a in VALID["two"].items()]
    raw = [array.tobytes() for array in VALID["two"].values()]
    whole = pb.ModelInferRequest(model_name="two", inputs=inputs, raw_input_contents=raw).SerializeToString()

    # bytes that are no message are refused by gRPC's library itself, which has one code for that
    assert {call(damaged) for damaged in mutations(whole, CASES, 9)} <= {*CODES, "OK", "INTERNAL", "UNKNOWN"}
    assert call(b"\xff\xff\xff") in {"INTERNAL", "UNKNOWN"}


@pytest.mark.parametrize("name", ["input", "side"])
@pytest.mark.parametrize("change", [-4, -1, 1, 4])
def test_raw_contents_of_another_size(call, name, change):
    from kserve.protocol.grpc import grpc_predict_v2_pb2 as pb

    inputs = [{"name": k, "datatype": "FP32", "shape": a.shape} for k, a in VALID["two"].items()]
    raw = [(a.tobytes() + bytes(4))[: a.nbytes + (change if k == name else 0)] for k, a in VALID["two"].items()]
    message = pb.ModelInferRequest(model_name="two", inputs=inputs, raw_input_contents=raw)

    assert call(message.SerializeToString()) == "INVALID_ARGUMENT"
