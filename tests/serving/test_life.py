"""From start to end: what is refused before anything listens, and how the server leaves."""

from __future__ import annotations

import json
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from ghostdeploy.open_inference import written
from ghostdeploy.supply.sign import make_key, sign
from tests.servers import Server

ONE = {"input": np.zeros((1, 3, 16, 16), np.float32)}


def refused(*words, code):
    """Returns the error of a server that does not start."""
    command = [sys.executable, "-m", "ghostdeploy", "serve", *map(str, words), "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == code, done.stderr
    return json.loads(done.stdout)["error"]["message"]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=lambda number: number.name)
def test_it_answers_what_is_under_way_refuses_what_comes_and_leaves_with_zero(bundles, number):
    with Server(bundles["one"], slow=2.0) as running:
        found = []
        asking = threading.Thread(target=lambda: found.append(running.post("one", *written(ONE, binary=True))))
        asking.start()
        time.sleep(1.0)
        running.process.send_signal(number)
        time.sleep(0.5)
        with pytest.raises(OSError):  # noqa: PT011 - refused or reset
            socket.create_connection(("127.0.0.1", running.port), timeout=5).close()
        asking.join()
        log = running.ended()

    assert found[0][0] == 200
    assert running.process.returncode == 0
    assert "Traceback" not in log
    assert "error" not in log


def test_it_answers_what_is_under_way_over_grpc(bundles):
    words, sys.argv = sys.argv, sys.argv[:1]
    import grpc
    from kserve.protocol.grpc import grpc_predict_v2_pb2 as pb
    from kserve.protocol.grpc.grpc_predict_v2_pb2_grpc import GRPCInferenceServiceStub

    sys.argv = words
    tensor = {"name": "input", "datatype": "FP32", "shape": ONE["input"].shape}
    request = pb.ModelInferRequest(model_name="one", inputs=[tensor], raw_input_contents=[ONE["input"].tobytes()])
    with Server(bundles["one"], slow=2.0) as running, grpc.insecure_channel(running.grpc) as channel:
        stub = GRPCInferenceServiceStub(channel)
        under_way = stub.ModelInfer.future(request, timeout=30)
        time.sleep(1.0)
        running.process.send_signal(signal.SIGTERM)
        time.sleep(0.5)
        with pytest.raises(grpc.RpcError) as refused:
            stub.ModelInfer(request, timeout=30)
        assert len(under_way.result().raw_output_contents) == 1
        running.ended()

    assert refused.value.code() == grpc.StatusCode.UNAVAILABLE
    assert running.process.returncode == 0


def test_a_port_that_is_taken_is_a_usage_error(bundles, server):
    message = refused(bundles["one"], "--http-port", server.port, "--grpc-port", 0, code=2)
    assert f"HTTP cannot listen on 127.0.0.1 port {server.port}" in message

    port = server.grpc.rpartition(":")[2]
    assert f"gRPC cannot listen on 127.0.0.1 port {port}" in refused(
        bundles["one"], "--http-port", 0, "--grpc-port", port, code=2
    )


def test_two_of_one_name_are_a_usage_error(bundles, tmp_path):
    other = shutil.copytree(bundles["one"], tmp_path / "one")

    assert "are both one version 1" in refused(bundles["one"], other, code=2)


def test_versions_with_other_inputs_are_a_usage_error(bundles, tmp_path):
    shutil.copytree(bundles["one"], tmp_path / "net" / "1")
    shutil.copytree(bundles["two"], tmp_path / "net" / "2")

    message = refused(tmp_path / "net" / "1", tmp_path / "net" / "2", code=2)

    assert "other inputs or outputs" in message


def test_an_altered_bundle_is_refused_before_its_payload_is_parsed(bundles, tmp_path):
    copy = shutil.copytree(bundles["one"], tmp_path / "one")
    payload = copy / "model.onnx"
    payload.write_bytes(payload.read_bytes()[:-1] + b"x")

    assert "was altered" in refused(copy, code=3)


def test_a_failed_bundle_is_not_served(bundles, tmp_path):
    from msgspec.structs import replace

    from ghostdeploy.bundle import manifest as mf
    from ghostdeploy.bundle.folder import open_bundle

    copy = shutil.copytree(bundles["one"], tmp_path / "one")
    found = replace(open_bundle(copy).manifest, verdict="failed", failed_because="it is bad")
    (copy / "manifest.json").write_bytes(mf.encode(found))

    assert "failed a gate and is not served: it is bad" in refused(copy, code=1)


def test_a_signature_can_be_required(bundles, tmp_path):
    copy = shutil.copytree(bundles["one"], tmp_path / "one")
    make_key(tmp_path / "key")
    words = ("--require-signature", "--key", tmp_path / "key.pub")
    assert "sign" in refused(copy, *words, code=3)
    sign(copy, tmp_path / "key", release="1.0")

    with Server(copy, *words) as running:
        assert running.get("/health/ready")[0] == 200
        assert running.stop() == 0


def test_it_listens_on_loopback_alone_and_loads_no_torch(server):
    pid = server.process.pid
    maps = Path(f"/proc/{pid}/maps").read_text()
    inodes = {
        link.removeprefix("socket:[").rstrip("]")
        for one in Path(f"/proc/{pid}/fd").iterdir()
        if (link := str(one.readlink())).startswith("socket:")
    }
    rows = [
        line.split()
        for table in ("tcp", "tcp6")
        for line in Path(f"/proc/{pid}/net/{table}").read_text().splitlines()[1:]
    ]
    listening = [row[1] for row in rows if row[3] == "0A" and row[9] in inodes]

    assert len(listening) == 2
    assert {one.partition(":")[0] for one in listening} <= {"0100007F", "0000000000000000FFFF00000100007F"}
    assert "libtorch" not in maps


def test_without_kserve_it_says_what_to_install(bundles, monkeypatch):
    program = "import sys; sys.modules['kserve'] = None; from ghostdeploy.cli import main; main(sys.argv[1:])"
    command = [sys.executable, "-c", program, "serve", str(bundles["one"])]

    done = subprocess.run(command, capture_output=True, text=True, check=False)

    assert done.returncode == 4
    assert 'pip install "ghostdeploy[serve]"' in done.stderr
