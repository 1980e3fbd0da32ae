"""What a client can ask for at most: bodies, heads, batches, queue and time; each refusal says why."""

from __future__ import annotations

import re
import socket
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from ghostdeploy.open_inference import written
from tests.servers import Server

ONE = {"input": np.zeros((1, 3, 16, 16), np.float32)}


def test_a_larger_batch_is_refused_and_the_largest_is_not(server):
    status, found = server.post("one", *written({"input": np.zeros((17, 3, 16, 16), np.float32)}, binary=True))

    assert (status, found) == (400, {"error": "batch is 17, expected at most 16"})
    assert server.post("one", *written({"input": np.zeros((16, 3, 16, 16), np.float32)}, binary=True))[0] == 200


def test_a_body_that_is_announced_too_large_is_not_read(server):
    connection = server.connect(timeout=20)
    connection.putrequest("POST", "/v2/models/one/infer")
    connection.putheader("Content-Length", str(1 << 40))
    connection.endheaders()

    answer = connection.getresponse()

    assert answer.status == 413
    assert b"larger than 1048576 bytes" in answer.read()
    connection.close()


def test_a_body_that_grows_too_large_is_cut_off(server):
    connection = server.connect(timeout=20)
    connection.putrequest("POST", "/v2/models/one/infer")
    connection.putheader("Transfer-Encoding", "chunked")
    connection.endheaders()
    try:
        for _ in range(40):
            connection.send(b"10000\r\n" + b" " * 0x10000 + b"\r\n")
        answer = connection.getresponse()
        assert answer.status == 413
    except (BrokenPipeError, ConnectionResetError):
        pass  # it was refused while this was still sending
    connection.close()
    assert server.post("one", *written(ONE, binary=True))[0] == 200


def test_a_head_without_end_is_cut_off(server):
    with socket.create_connection(("127.0.0.1", server.port), timeout=20) as client:
        client.sendall(b"GET /v2 HTTP/1.1\r\nx: ")
        try:
            for _ in range(64):
                client.sendall(b"x" * (1 << 16))
            answer = client.recv(1 << 16)
        except (BrokenPipeError, ConnectionResetError):
            answer = b""
    assert not answer or answer.startswith(b"HTTP/1.1 431 ")
    assert server.get("/health/live")[0] == 200


def test_a_message_of_grpc_that_is_too_large_is_refused(server):
    words, sys.argv = sys.argv, sys.argv[:1]
    import grpc
    from kserve.protocol.grpc import grpc_predict_v2_pb2 as pb
    from kserve.protocol.grpc.grpc_predict_v2_pb2_grpc import GRPCInferenceServiceStub

    sys.argv = words
    with grpc.insecure_channel(server.grpc) as channel, pytest.raises(grpc.RpcError) as refused:
        GRPCInferenceServiceStub(channel).ModelInfer(
            pb.ModelInferRequest(model_name="one", raw_input_contents=[bytes(2 << 20)])
        )
    assert refused.value.code() == grpc.StatusCode.RESOURCE_EXHAUSTED


def most_resident_mb(server):
    """The largest resident memory that the server had."""
    status = Path(f"/proc/{server.process.pid}/status").read_text("ascii")
    return int(re.search(r"VmHWM:\s+(\d+)", status)[1]) / 1e3


def test_a_small_message_that_unpacks_to_a_huge_one_is_refused_without_the_memory(server):
    words, sys.argv = sys.argv, sys.argv[:1]
    import grpc
    from kserve.protocol.grpc import grpc_predict_v2_pb2 as pb
    from kserve.protocol.grpc.grpc_predict_v2_pb2_grpc import GRPCInferenceServiceStub

    sys.argv = words
    before = most_resident_mb(server)
    with (
        grpc.insecure_channel(server.grpc, compression=grpc.Compression.Gzip) as channel,
        pytest.raises(grpc.RpcError) as refused,
    ):
        GRPCInferenceServiceStub(channel).ModelInfer(
            pb.ModelInferRequest(model_name="one", raw_input_contents=[bytes(200 << 20)])
        )

    assert refused.value.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
    assert most_resident_mb(server) - before < 50


@pytest.fixture(scope="module")
def slow(bundles):
    """A server whose engine takes a second, with a queue of two and two seconds for an answer."""
    with Server(bundles["one"], "--threads", 1, "--queue", 2, "--timeout", 3, slow=1.0) as running:
        yield running


def test_beyond_the_queue_requests_are_refused_at_once_and_the_others_answered(slow):
    with ThreadPoolExecutor(5) as pool:
        found = list(pool.map(lambda _: slow.post("one", *written(ONE, binary=True)), range(5)))

    assert sorted(status for status, _ in found) == [200, 200, 503, 503, 503]
    assert all("try again later" in one["error"] for status, one in found if status == 503)
    assert slow.post("one", *written(ONE, binary=True))[0] == 200


def test_a_body_that_comes_too_slowly_is_refused(slow):
    with socket.create_connection(("127.0.0.1", slow.port), timeout=20) as client:
        client.sendall(b"POST /v2/models/one/infer HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{")
        answer = client.recv(1 << 16)

    assert answer.startswith(b"HTTP/1.1 408 ")


def test_a_head_that_comes_too_slowly_is_refused(slow):
    with socket.create_connection(("127.0.0.1", slow.port), timeout=20) as client:
        client.sendall(b"POST /v2/models/one/infer HTTP/1.1\r\n")
        assert client.recv(1 << 16) == b""


def test_a_late_answer_is_told_and_the_server_goes_on(bundles):
    with Server(bundles["one"], "--threads", 1, "--timeout", 0.5, slow=1.5) as running:
        status, found = running.post("one", *written(ONE, binary=True))
        assert (status, found) == (504, {"error": "one did not answer within 0.5 s"})
        time.sleep(1.5)
        assert running.get("/models/one/ready")[0] == 200
