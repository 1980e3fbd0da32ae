"""`verify http://…`: the golden vectors through a real server, judged as at home."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from ghostdeploy.bundle.folder import open_bundle
from ghostdeploy.deploy.prove.commands import verify
from ghostdeploy.deploy.prove.served import verify_endpoint
from tests.commands import assert_one_sentence, run
from tests.exported import sample_bundle
from tests.servers import Server

BENCHMARK = Path(__file__).parents[2] / "benchmarks" / "serving.py"
NAMES = ("one", "two", "pixels", "int8")


@pytest.mark.parametrize("name", NAMES)
def test_a_server_passes_as_its_bundle_does(server, bundles, name):
    home = verify(bundles[name])

    found = verify_endpoint(f"{server.url}/models/{name}", bundles[name])

    assert found.verdict == home.verdict
    assert found.parity == home.parity
    assert found.replay == home.replay
    assert (found.digest, found.binary) == (open_bundle(bundles[name]).manifest.digest, True)
    assert found.engine.startswith("kserve ")


def test_the_command_says_what_was_proven(server, bundles, capsys):
    url = f"{server.url}/models/two"

    answer = run(capsys, "verify", url, "--bundle", bundles["two"], "--json")

    assert answer.code == 0
    (document,) = answer.document
    assert (document["bundle"], document["reference"]) == (url, str(bundles["two"]))
    assert document["parity"]["verdict"] == "passed"
    assert "asked with binary tensors" in run(capsys, "verify", url, "--bundle", bundles["two"]).out


def test_another_bundle_of_the_same_form_is_told_by_its_digest(server, versions, capsys):
    answer = run(capsys, "verify", f"{server.url}/models/net", "--bundle", versions[0])

    assert_one_sentence(answer, 3, "serves a bundle of digest", "--bundle")
    assert run(capsys, "verify", f"{server.url}/models/net/versions/1", "--bundle", versions[0]).code == 0


def test_several_servers_and_one_that_is_not_there(server, bundles, capsys):
    urls = [f"{server.url}/models/one", f"{server.url}/models/none"]

    answer = run(capsys, "verify", *urls, "--bundle", bundles["one"], "--json")

    assert answer.code == 3
    assert [one["verdict"] for one in answer.document][1] == "failed"
    assert "no such model" in answer.document[1]["error"]["message"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("http://127.0.0.1:1/v2/models/x",), "needs the bundle that is served there"),
        (("http://127.0.0.1:1/v2/models/x", "bundle"), "got both"),
        (("bundle", "--bundle", "bundle"), "are for http://"),
        (("http://127.0.0.1:1/", "--bundle", "bundle"), "no model of the Open Inference Protocol"),
        (("http://127.0.0.1:99999/v2/models/x", "--bundle", "bundle"), "is no URL"),
        (("http://127.0.0.1:1/v2/models/x", "--bundle", "bundle", "--receipt", "x.json"), "is not a device"),
    ],
)
def test_what_makes_no_sense_is_a_usage_error(words, said, bundles, capsys):
    given = [str(bundles["one"]) if word == "bundle" else word for word in words]

    assert_one_sentence(run(capsys, "verify", *given), 2, said)


@pytest.mark.slow
def test_the_trained_network_with_its_golden_pixels_through_the_server(tmp_path_factory):
    """And under load: every answer is the bundle's."""
    path = sample_bundle(tmp_path_factory, "ghostnet_050", "onnx")
    home = verify(path)

    with Server(path) as running:
        found = verify_endpoint(f"{running.url}/models/{path.name}", path)
        assert running.stop() == 0

    assert (found.verdict, found.preprocessing) == (home.verdict, home.preprocessing) == ("passed", home.preprocessing)
    assert found.preprocessing.images >= 4
    assert np.isclose(found.parity.max_abs, home.parity.max_abs, rtol=0, atol=1e-6 * home.parity.reference_max_abs)

    command = [sys.executable, BENCHMARK, path, "--seconds", "4", "--concurrency", "8", "--json"]
    words = [*command, *(word for one in ("binary", "json", "grpc") for word in ("--protocol", one))]
    done = subprocess.run(list(map(str, words)), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    report = json.loads(done.stdout)
    for protocol in ("binary", "json", "grpc"):
        one = report[protocol]["8"]
        assert one["lost"] == 0 < one["answers"]
        assert one["largest_difference"] <= 1e-6
        assert one["bad_requests"]["accepted"] == 0 < one["bad_requests"]["refused"]


def test_the_memory_of_the_server_is_watched(bundles):
    command = [
        sys.executable,
        BENCHMARK,
        bundles["one"],
        "--soak",
        "6",
        "--concurrency",
        "4",
        "--protocol",
        "grpc",
        "--json",
    ]
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads(done.stdout)["grpc"]["4"]

    assert found["lost"] == 0 < found["answers"]
    assert found["most_mb"] - found["first_mb"] < 20
