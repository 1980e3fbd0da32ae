"""The client of model servers: what it makes of answers that are slow, huge, strange, or none."""

from __future__ import annotations

import json
import re
import threading
import time
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest

from ghostdeploy.bundle.folder import open_bundle
from ghostdeploy.deploy.prove.endpoint import Endpoint
from ghostdeploy.deploy.prove.served import verify_endpoint
from ghostdeploy.errors import BadInput, BundleError, UnsupportedHardware, UsageError
from ghostdeploy.open_inference import JSON_LENGTH, little, read_request
from ghostdeploy.runtimes import load
from tests.bundles import make_bundle

PATH = "/v2/models/net"


class Fake:
    """A server that answers as it is told: path → (status, body) or a function of the handler."""

    def __init__(self, answers):
        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self):
                body = self.rfile.read(int(self.headers.get("content-length") or 0))
                answer = answers.get(self.path, (404, {"error": "nothing here"}))
                if callable(answer):
                    answer = answer(self, body)
                if answer is None:
                    return
                status, document, *headers = answer
                data = document if isinstance(document, bytes) else json.dumps(document).encode()
                self.send_response(status)
                for name, value in [("Content-Length", len(data)), *headers]:
                    self.send_header(name, str(value))
                self.end_headers()
                self.wfile.write(data)

            do_POST = do_GET  # noqa: N815

            def log_message(self, *_):
                pass

            def handle(self):
                with suppress(OSError):
                    super().handle()

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}{PATH}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    return make_bundle(tmp_path_factory.mktemp("net"), "onnx")


@pytest.fixture(scope="module")
def model(bundle):
    with load(bundle) as runtime:
        yield runtime


def told(**changes):
    """What a server says of the tiny network."""
    found = {
        "name": "net",
        "versions": ["1"],
        "platform": "onnxruntime_onnx",
        "inputs": [{"name": "input", "datatype": "FP32", "shape": [-1, 3, 16, 16]}],
        "outputs": [{"name": "logits", "datatype": "FP32", "shape": [-1, 10]}],
    }
    return found | changes


def answering(model, *, binary=True, change=lambda array: array):
    """A server that computes, by the model; without binary data it refuses them."""

    def infer(handler, body):
        length = handler.headers.get(JSON_LENGTH)
        if length is not None and not binary:
            return 400, {"error": "no JSON"}
        _, inputs = read_request(body, length)
        array = change(model.infer(inputs)["logits"])
        tensor = {"name": "logits", "datatype": "FP32", "shape": list(array.shape)}
        if length is None:
            return 200, {"model_name": "net", "outputs": [tensor | {"data": array.tolist()}]}
        data = little(array)
        head = json.dumps({"outputs": [tensor | {"parameters": {"binary_data_size": len(data)}}]}).encode()
        return 200, head + data, (JSON_LENGTH, len(head))

    return {PATH: (200, told()), "/v2": (200, {"name": "fake", "version": "3"}), f"{PATH}/infer": infer}


@pytest.mark.parametrize("binary", [True, False])
def test_a_server_without_digest_is_judged_by_its_outputs(bundle, model, binary):
    with Fake(answering(model, binary=binary)) as fake:
        found = verify_endpoint(fake.url, bundle)

    assert (found.parity.verdict, found.digest, found.binary, found.engine) == ("passed", None, binary, "fake 3")


def test_wrong_outputs_fail_by_the_table(bundle, model):
    with Fake(answering(model, change=lambda array: array * 1.001)) as fake:
        assert verify_endpoint(fake.url, bundle).verdict == "failed"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"parameters": {"digest": "0" * 64}}, "serves a bundle of digest 000000000000…"),
        ({"inputs": []}, "has inputs none"),
        ({"inputs": [{"name": "input", "datatype": "FP32", "shape": [-1, 3, 32, 32]}]}, "not those of"),
        ({"outputs": [{"name": "other", "datatype": "FP32", "shape": [-1, 10]}]}, "has outputs other FP32"),
    ],
)
def test_another_model_is_told_before_it_is_asked(bundle, model, change, said):
    with (
        Fake(answering(model) | {PATH: (200, told(**change))}) as fake,
        pytest.raises(BundleError, match=re.escape(said)),
    ):
        verify_endpoint(fake.url, bundle)


@pytest.mark.parametrize(
    ("answers", "said"),
    [
        ({}, "no such model: HTTP 404, nothing here"),
        ({PATH: (200, b"<html>")}, "does not speak the Open Inference Protocol v2"),
        ({PATH: (200, {"name": "net"})}, "does not speak the Open Inference Protocol v2"),
        ({PATH: (200, b"[" * 100_000)}, "does not speak the Open Inference Protocol v2"),
        ({PATH: (200, b" " * (2 << 20))}, "more than 1048576 bytes"),
        ({PATH: (302, b"", ("Location", "http://127.0.0.1:1/"))}, "HTTP 302"),
        ({PATH: lambda handler, _: handler.wfile.write(b"SSH-2.0-x\r\n")}, "does not speak HTTP as expected"),
        ({f"{PATH}/infer": (500, {"error": "out of\x1b[31m order"})}, "HTTP 500, out of"),
        ({f"{PATH}/infer": (200, {"outputs": [{"name": "logits"}]})}, "an answer that cannot be read"),
        ({f"{PATH}/infer": (200, {"outputs": []})}, "gave outputs none, expected logits"),
        ({f"{PATH}/infer": (200, b" " * (4 << 20))}, "gave an answer of more than"),
    ],
)
def test_what_is_no_answer_is_bad_input(bundle, model, answers, said):
    base = answering(model) if f"{PATH}/infer" in answers else {}
    with Fake(base | answers) as fake, pytest.raises(BadInput) as refused:
        verify_endpoint(fake.url, bundle)

    assert said in refused.value.message
    assert refused.value.exit_code == 3
    assert "\x1b" not in refused.value.message


def drip(head):
    def answer(handler, _):
        handler.wfile.write(b"HTTP/1.1 200 OK\r\n" + head + b"\r\n")
        for _ in range(100):
            time.sleep(0.05)
            handler.wfile.write(b" ")

    return answer


SLOW = [lambda *_: time.sleep(3), drip(b"Content-Length: 1000\r\n"), drip(b"")]


@pytest.mark.parametrize("answer", SLOW, ids=["silence", "drops", "drops without end"])
def test_an_answer_that_takes_too_long_is_given_up(bundle, answer):
    with Fake({PATH: answer}) as fake, pytest.raises(UnsupportedHardware, match=r"did not answer within 0\.5 s"):
        verify_endpoint(fake.url, bundle, seconds=0.5)


def test_an_answer_that_is_cut_off_is_bad_input(bundle):
    def cut(handler, _):
        handler.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n{")
        handler.close_connection = True

    with Fake({PATH: cut}) as fake, pytest.raises(BadInput, match="does not speak HTTP as expected"):
        verify_endpoint(fake.url, bundle)


def test_nobody_there(bundle):
    with pytest.raises(UnsupportedHardware, match="cannot be reached"):
        verify_endpoint("http://127.0.0.1:1/v2/models/net", bundle)
    with pytest.raises(UnsupportedHardware, match="cannot be reached"):
        verify_endpoint("http://no-such-host.invalid/v2/models/net", bundle)


@pytest.mark.parametrize(
    "url",
    [
        "http:///v2/models/net",
        "http://host/v1/models/net",
        "http://host/v2/models/",
        "http://user:secret@host/v2/models/net",
        "http://host/v2/models/net?x=1",
        "http://host:port/v2/models/net",
        "http://[::1/v2/models/net",
        "http://host/v2/models/n\r\nX: y",
    ],
)
def test_another_kind_of_url_is_a_usage_error(url):
    with pytest.raises(UsageError):
        Endpoint(url)


def test_a_server_behind_a_path_is_found(bundle, model):
    answers = {f"/proxy{path}": answer for path, answer in answering(model).items()}
    with Fake(answers) as fake:
        found = verify_endpoint(fake.url.replace(PATH, f"/proxy{PATH}"), bundle)

    assert found.parity.verdict == "passed"
    assert np.isfinite(found.parity.max_abs)
    assert open_bundle(bundle).manifest.digest is not None
