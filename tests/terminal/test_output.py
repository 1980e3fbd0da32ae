"""Every command ends as it should on terminals and pipes that are not UTF-8, and what it prints can be read."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ghostdeploy.bundle import folder as bundles
from ghostdeploy.bundle import writing
from ghostdeploy.cli import main
from ghostdeploy.convert.cache import Cache
from ghostdeploy.streams import hushed
from ghostdeploy.terminal.output import make_printable, print_json
from tests.bundles import make_bundle
from tests.signing import sealed

ENCODINGS = ("ascii", "cp1252", "iso8859-1", "koi8-r")
COMMANDS = ("models", "doctor", "export", "verify", "eval", "bench", "tune", "run", "diagnose", "build", "inspect")

NET = """
from torch import nn

def net():
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3))
"""

IMAGES = np.random.default_rng(0).integers(0, 256, (8, 20, 20, 3), np.uint8)


def typed(monkeypatch, encoding, *words):
    """Runs a command whose standard streams have an encoding; returns its exit code and both texts."""
    streams = [io.TextIOWrapper(io.BytesIO(), encoding=encoding) for _ in range(2)]
    with monkeypatch.context() as patch:
        patch.setattr(sys, "stdout", streams[0])
        patch.setattr(sys, "stderr", streams[1])
        with pytest.raises(SystemExit) as leaving:
            main([str(word) for word in words])
        for stream in streams:
            stream.flush()
    return leaving.value.code or 0, *(stream.buffer.getvalue().decode(encoding) for stream in streams)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    """A bundle whose classes have names of many scripts."""
    folder = make_bundle(tmp_path_factory.mktemp("named"), "onnx")
    (folder / bundles.LABELS).unlink()
    names = [f"{name} {index}" for index, name in enumerate(("炮", "Füße", "наука", "🚀", "plain") * 2)]
    writing.write_labels(folder, names)
    manifest = json.loads((folder / bundles.MANIFEST).read_text("utf-8"))
    files = [f for f in manifest["files"] if f["path"] != bundles.LABELS]
    record = writing.describe_file(folder, bundles.LABELS)
    files.append({"path": record.path, "bytes": record.bytes, "sha256": record.sha256})
    (folder / bundles.MANIFEST).write_text(sealed(manifest | {"files": files}), "utf-8")
    return folder


@pytest.fixture
def image(tmp_path):
    Image.fromarray(np.zeros((20, 20, 3), np.uint8)).save(tmp_path / "ёлка.png")
    return tmp_path / "ёлка.png"


@pytest.mark.parametrize("command", ["verify", "inspect", "models", "doctor", "export"])
def test_tables_are_printed_whole(monkeypatch, tiny_bundle, command, tmp_path):
    (tmp_path / "net.py").write_text(NET)
    plan = (f"{tmp_path}/net.py:net", "--image-size", "32", "--dry-run", "-t", "onnx")
    words = {"verify": [tiny_bundle("onnx")], "inspect": [tiny_bundle("onnx")], "export": plan}.get(command, ())
    whole = typed(monkeypatch, "utf-8", command, *words)[1]

    for encoding in ENCODINGS:
        code, out, _ = typed(monkeypatch, encoding, command, *words)

        assert code == 0
        assert out.count("\n") == whole.count("\n") > 2
        assert "\\u" not in out


def test_signs_of_ours_become_ascii(monkeypatch, tiny_bundle):
    _, out, _ = typed(monkeypatch, "ascii", "verify", tiny_bundle("onnx"))

    assert "needs max error <= 1.0e-04, cosine >= 0.99999" in out


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_labels_and_paths_are_escaped_where_they_must_be(monkeypatch, bundle, image, encoding):
    code, out, _ = typed(monkeypatch, encoding, "run", bundle, image, "--top", "10")

    assert code == 0
    assert "\\u70ae" in out
    assert ("ёлка" if encoding == "koi8-r" else "\\u0451\\u043b\\u043a\\u0430") in out.replace("\n", "")
    assert ("Füße" in out) == (encoding in ("cp1252", "iso8859-1"))


@pytest.mark.parametrize("encoding", [*ENCODINGS, "utf-8"])
def test_json_keeps_the_exact_strings(monkeypatch, bundle, image, encoding):
    code, out, _ = typed(monkeypatch, encoding, "run", bundle, image, "--top", "10", "--json")

    (found,) = json.loads(out)
    assert code == 0
    assert found["image"] == str(image)
    assert {one["label"] for one in found["classes"]} >= {"炮 0", "Füße 1", "наука 2", "🚀 3"}


@pytest.mark.parametrize("encoding", [*ENCODINGS, "utf-8"])
@pytest.mark.parametrize("words", [["--json"], []], ids=repr)
def test_errors_name_what_cannot_be_encoded(monkeypatch, encoding, words):
    code, out, err = typed(monkeypatch, encoding, "verify", "nirgends/🚀\udcff", *words)

    assert code == 3
    assert "nirgends" in err
    assert "Traceback" not in err
    if words:
        assert "\\xff" in json.loads(out)["error"]["message"]


@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize("command", COMMANDS)
def test_help_can_be_printed(monkeypatch, encoding, command):
    code, out, _ = typed(monkeypatch, encoding, command, "--help")

    assert code == 0
    assert "--json" in out


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_progress_can_be_printed(monkeypatch, bundle, encoding, tmp_path):
    np.savez(tmp_path / "ёлка.npz", images=IMAGES, labels=np.arange(8))

    code, out, err = typed(monkeypatch, encoding, "eval", bundle, "--data", tmp_path / "ёлка.npz")

    assert code == 0, err
    assert "evaluate tiny-onnx-fp32" in err
    assert "tiny-onnx-fp32" in out


@pytest.mark.parametrize("variables", [{"PYTHONIOENCODING": "cp1252"}, {"PYTHONIOENCODING": "ascii:strict"}], ids=repr)
def test_a_redirect_in_another_encoding_gets_the_whole_table(tiny_bundle, variables):
    words = [sys.executable, "-m", "ghostdeploy", "verify", str(tiny_bundle("onnx"))]

    done = subprocess.run(words, env=os.environ | variables, capture_output=True, check=True)

    text = done.stdout.decode(variables["PYTHONIOENCODING"].partition(":")[0])
    assert "passed" in text
    assert "cosine >= 0.99999" in text


def test_a_stream_that_is_no_text_wrapper_is_left_alone(monkeypatch):
    monkeypatch.setattr(sys, "stdout", io.StringIO())
    make_printable()
    print_json({"name": "ё"})

    assert json.loads(sys.stdout.getvalue()) == {"name": "ё"}


@pytest.mark.parametrize("target", ["onnx", "openvino", "tflite"])
def test_engines_write_nothing_beside_the_table(target, tiny_bundle):
    """In a process of its own: an engine greets once."""
    words = [sys.executable, "-m", "ghostdeploy", "verify", str(tiny_bundle(target)), "--json"]

    done = subprocess.run(words, capture_output=True, text=True, check=True)

    assert json.loads(done.stdout)[0]["verdict"] == "passed"
    assert done.stderr == ""


def test_an_apps_own_standard_error_is_not_touched(capfd, monkeypatch):
    monkeypatch.setattr("ghostdeploy.streams._ours", [])
    with hushed():
        os.write(2, b"an app's word")
    monkeypatch.setattr("ghostdeploy.streams._ours", [True])
    with hushed():
        os.write(2, b"an engine's greeting")
    os.write(2, b", and the rest")

    assert capfd.readouterr().err == "an app's word, and the rest"


@pytest.mark.parametrize(
    ("variables", "folder"),
    [
        ({"HOME": "/home/me"}, "/home/me/.cache/ghostdeploy"),
        ({"HOME": "/home/me", "XDG_CACHE_HOME": "/cache"}, "/cache/ghostdeploy"),
        ({"HOME": "/home/me", "XDG_CACHE_HOME": "relative"}, "/home/me/.cache/ghostdeploy"),
        ({"HOME": ""}, None),
        ({"HOME": "relative"}, None),
    ],
    ids=str,
)
def test_without_a_home_nothing_is_kept_and_never_in_the_working_folder(monkeypatch, variables, folder):
    for name in ("GHOSTDEPLOY_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)

    cache = Cache.of_user()

    assert cache.on == (folder is not None)
    assert cache._folder == (folder and Path(folder))


def test_a_user_without_home_and_name_has_no_cache(monkeypatch):
    def nobody():
        raise RuntimeError("Could not determine home directory.")

    for name in ("GHOSTDEPLOY_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(Path, "home", nobody)

    assert not Cache.of_user().on


def test_a_home_that_cannot_be_written_keeps_nothing_without_a_word(monkeypatch):
    for name in ("GHOSTDEPLOY_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", "/dev/null/x")
    cache = Cache.of_user()

    cache.put("key", b"result")

    assert cache.get("key") is None
