"""The HTTP sample as a user starts it: a uvicorn process on a free port, good images, and everything that is none."""

from __future__ import annotations

import http.client
import io
import json
import re
import signal
import struct
import subprocess
import sys
import threading
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import ghostdeploy as gd
from ghostdeploy import samples
from ghostdeploy.samples import serve

PIXELS = np.asarray(Image.open(samples.photos()[2]).convert("RGB"))


class Service:
    """A running service; `stop` ends it as Ctrl-C does."""

    def __init__(self, bundle):
        command = [sys.executable, "-m", "ghostdeploy.samples.serve", bundle, "--port", "0"]
        self.process = subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True)
        said = []
        for line in self.process.stderr:
            said.append(line)
            if found := re.search(r"running on http://127\.0\.0\.1:(\d+)", line):
                self.port = int(found[1])
                break
        else:
            pytest.fail("".join(said))
        self.log = said
        self.reader = threading.Thread(target=lambda: said.extend(self.process.stderr))
        self.reader.start()

    def ask(self, method, path, body=None, **headers):
        """Returns status and decoded JSON."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        try:
            connection.request(method, path, body, {name.replace("_", "-"): value for name, value in headers.items()})
            response = connection.getresponse()
            assert response.headers["content-type"] == "application/json", response.read()
            return response.status, json.loads(response.read())
        finally:
            connection.close()

    def classify(self, body, kind, query=""):
        return self.ask("POST", f"/classify{query}", body, Content_Type=kind)

    def stop(self):
        self.process.send_signal(signal.SIGINT)
        code = self.process.wait(timeout=30)
        self.reader.join()
        self.process.stderr.close()
        return code


@pytest.fixture(scope="module")
def bundle(tiny_bundle):
    return tiny_bundle("onnx")


@pytest.fixture(scope="module")
def service(bundle):
    service = Service(bundle)
    yield service
    service.stop()
    assert "Traceback" not in "".join(service.log)


@pytest.fixture(scope="module")
def expected(bundle):
    with gd.load(bundle) as model:
        return [{"label": label, "probability": pytest.approx(p)} for label, p in model.classify(PIXELS)]


def encoded(kind, image=PIXELS):
    stream = io.BytesIO()
    Image.fromarray(image).save(stream, kind, **({"lossless": True} if kind == "WEBP" else {}))
    return stream.getvalue()


@pytest.mark.parametrize("kind", ["PNG", "WEBP"])
def test_an_image_file_is_classified(service, expected, kind):
    assert service.classify(encoded(kind), f"image/{kind.lower()}; charset=x") == (200, {"classes": expected})


def test_a_jpeg_file_is_classified_as_pillow_decodes_it(service, bundle):
    with gd.load(bundle) as model:
        best = model.classify(samples.photos()[2])

    status, answer = service.classify(samples.photos()[2].read_bytes(), "image/jpeg")

    assert status == 200
    assert [(row["label"], pytest.approx(row["probability"])) for row in answer["classes"]] == best


def test_raw_pixels_are_classified(service, expected):
    height, width, _ = PIXELS.shape

    answer = service.classify(PIXELS.tobytes(), "application/octet-stream", f"?height={height}&width={width}")

    assert answer == (200, {"classes": expected})


def test_many_requests_at_once_get_their_own_answers(service, bundle):
    images = [np.roll(PIXELS, 40 * shift, axis=2 if shift % 2 else 0) for shift in range(8)]
    with gd.load(bundle) as model:
        expected = [model.classify(image)[0][0] for image in images]

    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda image: service.classify(encoded("PNG", image), "image/png"), images * 6))

    assert [answer["classes"][0]["label"] for _, answer in answers] == expected * 6


def test_health_and_info(service, bundle):
    status, info = service.ask("GET", "/info")

    assert service.ask("GET", "/healthz") == (200, {"status": "ok"})
    assert (status, info["name"], info["profile"]) == (200, bundle.name, "throughput")


def wide_png():
    """The first bytes of a PNG of 50,000 × 50,000 pixels: a header that is true, and no pixels."""
    header = b"IHDR" + struct.pack(">IIBBBBB", 50_000, 50_000, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + header + struct.pack(">I", zlib.crc32(header)) + bytes(12)


@pytest.mark.parametrize(
    ("body", "kind", "query", "status", "words"),
    [
        (b"", "image/png", "", 400, "not valid image/png"),
        (encoded("PNG"), "image/jpeg", "", 400, "cannot identify image file"),
        (encoded("PNG")[:2000], "image/png", "", 400, "not valid image/png"),
        (encoded("JPEG")[:3000], "image/jpeg", "", 400, "truncated"),
        (wide_png(), "image/png", "", 400, "not valid image/png"),
        (encoded("PNG", np.zeros((4100, 4100), np.uint8)), "image/png", "", 413, "4100×4100 pixels"),
        (b"hello", "text/plain", "", 415, "text/plain"),
        (b"hello", "", "", 415, "expected image/jpeg, image/png, image/webp or application/octet-stream"),
        (bytes(10), "application/octet-stream", "?height=2&width=2", 400, "cannot reshape"),
        (bytes(12), "application/octet-stream", "", 400, "cannot reshape"),
        (bytes(12), "application/octet-stream", "?height=two&width=2", 400, "invalid literal"),
        (b"", "application/octet-stream", "?height=0&width=0", 400, "has shape (0, 0, 3)"),
        (bytes(serve.MAX_BYTES + 1), "image/png", "", 413, f"the limit is {serve.MAX_BYTES}"),
    ],
)
def test_what_is_no_image_is_one_sentence(service, body, kind, query, status, words):
    found, answer = service.classify(body, kind, query)

    assert found == status, answer
    assert words in answer["error"]
    assert answer.keys() == {"error"}
    assert "0x" not in answer["error"]


def test_a_body_without_length_is_refused_at_the_limit(service):
    parts = (bytes(1_000_000) for _ in range(12))

    status, answer = service.ask("POST", "/classify", parts, Content_Type="image/png")

    assert status == 413
    assert re.fullmatch(rf"body has \d+ bytes or more, the limit is {serve.MAX_BYTES}", answer["error"])


def test_a_client_that_goes_away_leaves_no_traceback(service):
    connection = http.client.HTTPConnection("127.0.0.1", service.port)
    connection.putrequest("POST", "/classify")
    connection.putheader("Content-Length", "1000")
    connection.endheaders(b"a part of it")
    connection.close()

    assert service.ask("GET", "/healthz")[0] == 200  # and the fixture looks at the log


@pytest.mark.parametrize(("method", "path", "status"), [("GET", "/classify", 405), ("GET", "/etc/passwd", 404)])
def test_other_requests_get_json_too(service, method, path, status):
    found, answer = service.ask(method, path)

    assert (found, list(answer)) == (status, ["error"])


def test_the_loop_stays_free_while_an_image_is_decoded(service):
    heavy = encoded("PNG", np.random.default_rng(0).integers(0, 256, (1500, 1500, 3), np.uint8))
    with ThreadPoolExecutor(4) as pool:
        slow = [pool.submit(service.classify, heavy, "image/png") for _ in range(4)]
        quick = 0
        while not all(future.done() for future in slow):
            assert service.ask("GET", "/healthz")[0] == 200
            quick += 1

    assert [future.result()[0] for future in slow] == [200] * 4
    assert quick >= 2  # on a blocked loop the first answer would come after all four


def test_ctrl_c_ends_it_and_frees_the_model(bundle):
    service = Service(bundle)

    assert service.ask("GET", "/healthz")[0] == 200
    assert service.stop() in {0, -signal.SIGINT}
    assert "Finished server process" in "".join(service.log)


def test_a_bundle_that_is_none_is_one_sentence(tmp_path, capsys):
    with pytest.raises(SystemExit) as caught:
        serve.main([str(tmp_path / "none")])

    assert caught.value.code == 3
    assert "does not exist" in capsys.readouterr().err


def test_the_service_fits_on_a_screen():
    assert len(Path(serve.__file__).read_text("utf-8").splitlines()) <= 80
