"""The browser sample: npm's engine in headless Chromium against golden vectors, and preprocessing that is Pillow's."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import urllib.request
from pathlib import Path
from urllib.error import HTTPError

import msgspec
import numpy as np
import pytest

import ghostdeploy as gd
from ghostdeploy import samples
from ghostdeploy.arrays import read_arrays
from ghostdeploy.bundle.folder import open_bundle
from ghostdeploy.bundle.manifest import encode
from ghostdeploy.bundle.writing import describe_file
from ghostdeploy.errors import BundleError, DataError, MissingDependency
from ghostdeploy.preprocess import Preprocess, normalise, to_pixels
from ghostdeploy.samples import browser
from ghostdeploy.samples.browser import __main__ as command
from tests.browsing import EXAMPLES, served, visit
from tests.conftest import refuse, require_program
from tests.exported import sample_bundle
from tests.shared import shared_folder


@pytest.fixture(scope="session")
def modules(tmp_path_factory):
    """The `node_modules` that `npm ci` makes from the lock file."""
    npm = require_program("npm")
    with shared_folder(tmp_path_factory, "npm") as folder:
        if not (folder / "node_modules").exists():
            for name in ("package.json", "package-lock.json"):
                shutil.copy(browser.HOME / name, folder)
            quiet = ["--no-audit", "--no-fund", "--ignore-scripts"]
            done = subprocess.run(
                [npm, "ci", *quiet, "--prefix", folder], capture_output=True, text=True, check=False, cwd=folder
            )
            if done.returncode:
                shutil.rmtree(folder / "node_modules", ignore_errors=True)
                refuse("npm", f"npm ci failed: {done.stderr.strip()[-300:]}")
    return folder / "node_modules"


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    return sample_bundle(tmp_path_factory, "ghostnet_050", "onnx", precision="fp32")


def test_the_golden_vectors_give_the_reference_outputs(exported, modules, tmp_path):
    with served(exported, modules) as address:
        page = visit(f"{address}/?selftest", tmp_path)

    found = page.attributes["selftest"]
    golden = open_bundle(exported).golden()[1]["logits"]
    assert page.text["status"] == "Ready.", page.text
    assert found["data-verdict"] == "passed"
    assert float(found["data-largest"]) == pytest.approx(float(np.abs(golden).max()))
    assert 0 < float(found["data-max-abs"]) <= 1e-4 * float(found["data-largest"])
    assert found["data-agreeing"] == str(len(golden))
    assert "onnxruntime-web 1.30.0" in page.text["facts"]


@pytest.mark.parametrize(
    ("precision", "fields"),
    [("fp32", {"layout": "nhwc", "batch": 2}), ("fp32", {"batch": None, "side": True}), ("int8", {})],
    ids=["uint8 pixels, fixed batch", "dynamic batch, two inputs", "int8"],
)
def test_every_kind_of_bundle_passes_its_self_test(tiny_bundle, modules, tmp_path, precision, fields):
    with served(tiny_bundle("onnx", precision, **fields), modules) as address:
        page = visit(f"{address}/?selftest", tmp_path)

    assert page.attributes["selftest"].get("data-verdict") == "passed", page.text


def test_a_dropped_image_gets_the_classes_that_python_finds(exported, modules, tmp_path):
    with gd.load(exported) as model, served(exported, modules) as address:
        for image, tolerance in ((EXAMPLES[1], 1e-5), (samples.photos()[0], 1e-3)):  # PNG; JPEG decoders may differ
            page = visit(f"{address}/?example={image.name}", tmp_path)
            expected = model.classify(image, k=5)
            assert page.attributes["result"]["data-file"] == image.name, page.text
            assert [label for label, _ in page.classes] == [label for label, _ in expected]
            assert [p for _, p in page.classes] == pytest.approx([p for _, p in expected], abs=tolerance)


def test_what_is_no_image_is_said_on_the_page(tiny_bundle, modules, tmp_path):
    (tmp_path / "note.txt").write_text("no image")
    with served(tiny_bundle("onnx"), modules, [tmp_path / "note.txt"]) as address:
        page = visit(f"{address}/?example=note.txt", tmp_path)

    assert page.attributes["status"]["data-state"] == "error"
    assert page.text["status"] == "note.txt is not an image that this browser can decode"


def test_outputs_beyond_the_tolerance_fail_the_self_test(tiny_bundle, modules, tmp_path):
    bundle = tmp_path / "bundle"
    shutil.copytree(tiny_bundle("onnx"), bundle)
    arrays = read_arrays(bundle / "golden.npz")
    arrays["logits"] = arrays["logits"] + np.float32(3e-4) * np.abs(arrays["logits"]).max()
    np.savez(bundle / "golden.npz", **arrays)
    manifest = open_bundle(tiny_bundle("onnx")).manifest
    files = tuple(describe_file(bundle, record.path) for record in manifest.files)
    (bundle / "manifest.json").write_bytes(encode(msgspec.structs.replace(manifest, files=files)))

    with served(bundle, modules) as address:
        page = visit(f"{address}/?selftest", tmp_path)

    assert page.attributes["selftest"].get("data-verdict") == "failed", page.text


def test_an_altered_payload_never_reaches_the_engine(tiny_bundle, modules, tmp_path):
    bundle = tmp_path / "bundle"
    shutil.copytree(tiny_bundle("onnx"), bundle)
    payload = bytearray((bundle / "model.onnx").read_bytes())
    payload[-1] ^= 1
    (bundle / "model.onnx").write_bytes(payload)

    with served(bundle, modules) as address:
        page = visit(address, tmp_path)

    assert page.attributes["status"]["data-state"] == "error"
    assert "model.onnx was altered" in page.text["status"]


BOXED = {"resize": "letterbox", "crop_fraction": 1.0}
GRAY = {"color": "gray", "channels": 1, "mean": (0.5,), "std": (0.25,)}
SIZES = [
    ((28, 28), Preprocess(size=64, crop_fraction=1.0, interpolation="bilinear"), "float32", "nchw"),
    ((240, 320), Preprocess(size=64, interpolation="bilinear"), "float32", "nchw"),
    ((240, 321), Preprocess(size=64, crop_fraction=0.9), "uint8", "nhwc"),
    ((33, 77), Preprocess(size=16, crop_fraction=0.9), "float32", "nhwc"),
    ((500, 37), Preprocess(size=96), "float32", "nchw"),
    ((64, 64), Preprocess(size=64, crop_fraction=1.0), "float32", "nhwc"),
    ((50, 63), Preprocess(size=50, crop_fraction=1.0, interpolation="bilinear"), "uint8", "nhwc"),
    ((1, 40), Preprocess(size=8, crop_fraction=0.7, interpolation="bilinear"), "uint8", "nhwc"),
    ((300, 90), Preprocess(size=64, crop_fraction=0.9), "float32", "nchw"),
    ((53, 40), Preprocess(size=28, crop_fraction=0.95, rounding="floor"), "float32", "nchw"),
    ((53, 40), Preprocess(size=(24, 36), crop_fraction=0.9), "float32", "nchw"),
    ((53, 40), Preprocess(size=(24, 36), resize="stretch", crop_fraction=1.0, color="bgr"), "float32", "nchw"),
    ((53, 40), Preprocess(size=(24, 36), **BOXED, pad=(1, 2, 3), color="bgr"), "uint8", "nhwc"),
    ((40, 53), Preprocess(size=33, **BOXED, pad=114, rounding="ceil", unit="0-255"), "float32", "nhwc"),
    ((1, 300), Preprocess(size=32, **BOXED, anchor="corner", rounding="floor"), "float32", "nchw"),
    ((9, 12), Preprocess(size=32, **BOXED, upscale=False, pad_space="normalized"), "float32", "nchw"),
    ((40, 53), Preprocess(size=33, **BOXED, **GRAY, pad=7), "float32", "nchw"),
    ((40, 53), Preprocess(size=32, **GRAY), "uint8", "nhwc"),
]

PROGRAM = """
import { readFileSync, writeFileSync } from "node:fs";
globalThis.ImageData = class {
  constructor(width, height) {
    Object.assign(this, { width, height, data: new Uint8ClampedArray(4 * width * height) });
  }
};
const { cropped, toInput } = await import(process.argv[2]);
for (const job of JSON.parse(readFileSync(0, "utf8"))) {
  const data = new Uint8ClampedArray(readFileSync(job.pixels));
  const input = toInput(cropped({ ...job, data }, job.preprocess), job, job.preprocess);
  writeFileSync(job.out, Buffer.from(input.buffer));
}
"""


def test_preprocessing_in_javascript_is_pillow_s_to_the_last_bit(tmp_path):
    node = shutil.which("node") or refuse("npm", "node is not installed here")
    rng, jobs, expected = np.random.default_rng(0), [], []
    for number, ((height, width), spec, dtype, layout) in enumerate(SIZES):
        pixels = rng.integers(0, 256, (height, width, 3), np.uint8)
        (tmp_path / f"{number}.rgba").write_bytes(np.pad(pixels, ((0, 0), (0, 0), (0, 1))).tobytes())
        paths = {"pixels": str(tmp_path / f"{number}.rgba"), "out": str(tmp_path / f"{number}.out")}
        jobs.append(
            {
                **paths,
                "width": width,
                "height": height,
                "dtype": dtype,
                "layout": layout,
                "preprocess": msgspec.to_builtins(spec),
            }
        )
        crop = to_pixels(pixels, spec)[None]
        planes = normalise(crop, spec)
        expected.append(crop if dtype == "uint8" else planes.transpose(0, 2, 3, 1) if layout == "nhwc" else planes)
    (tmp_path / "run.mjs").write_text(PROGRAM)

    subprocess.run(
        [node, tmp_path / "run.mjs", (browser.HOME / "preprocess.js").as_uri()],
        input=json.dumps(jobs),
        text=True,
        check=True,
    )

    for job, array in zip(jobs, expected, strict=True):
        assert np.frombuffer(Path(job["out"]).read_bytes(), array.dtype).tolist() == array.reshape(-1).tolist(), job


def fake_modules(folder, version="1.30.0"):
    """A `node_modules` with the engine's version and no engine, for what needs no browser."""
    (folder / browser.PACKAGE / "dist").mkdir(parents=True)
    (folder / browser.PACKAGE / "package.json").write_text(json.dumps({"version": version}))
    for name in browser.ENGINE:
        (folder / browser.PACKAGE / "dist" / name).write_bytes(b"")
    return folder


def test_only_what_is_in_the_table_is_served(tiny_bundle, tmp_path):
    bundle = tiny_bundle("onnx")
    with served(bundle, fake_modules(tmp_path)) as address:
        for path in ("/", "/classify.js", "/page.css", "/bundle/model.onnx", "/examples/bag.png", "/examples.json"):
            with urllib.request.urlopen(address + path) as answer:
                assert answer.status == 200
                assert "'self'" in answer.headers["Content-Security-Policy"]
        for path in (
            "/../pyproject.toml",
            "/bundle/../manifest.json",
            "/__init__.py",
            "/bundle/",
            "/%2e%2e/etc/passwd",
        ):
            with pytest.raises(HTTPError) as caught:
                urllib.request.urlopen(address + path)
            caught.value.close()
            assert caught.value.code == 404


def test_the_page_names_no_other_server():
    for path in browser.HOME.glob("*.*"):
        if path.suffix in {".html", ".js", ".css"}:
            assert not re.search(r"https?://|//cdn", path.read_text("utf-8")), path.name


def test_every_file_of_the_page_is_small_enough_to_read():
    lengths = {path.name: len(path.read_text("utf-8").splitlines()) for path in browser.HOME.glob("*.js")}

    assert max(lengths.values()) <= 250, lengths


def test_a_bundle_for_another_engine_is_refused(tiny_bundle, tmp_path):
    with pytest.raises(BundleError, match=r"expected an \.onnx file"):
        browser.build_site(open_bundle(tiny_bundle("openvino")), tmp_path, [])


@pytest.mark.parametrize("version", [None, "1.2.3"])
def test_an_absent_engine_names_the_npm_command(tiny_bundle, tmp_path, version):
    if version:
        fake_modules(tmp_path, version)

    with pytest.raises(MissingDependency, match=f"has onnxruntime-web {version or 'none'}, expected 1.30.0") as caught:
        browser.build_site(open_bundle(tiny_bundle("onnx")), tmp_path, [])

    assert "npm ci --prefix" in caught.value.hint


def test_an_absent_example_is_named(tiny_bundle, tmp_path):
    with pytest.raises(DataError, match=r"none\.png does not exist"):
        browser.build_site(open_bundle(tiny_bundle("onnx")), fake_modules(tmp_path), [tmp_path / "none.png"])


def test_a_taken_port_is_one_sentence(tiny_bundle, tmp_path, capsys):
    modules = fake_modules(tmp_path)
    with served(tiny_bundle("onnx"), modules) as address:
        port = address.rpartition(":")[2]
        assert command.main([str(tiny_bundle("onnx")), "--modules", str(modules), "--port", port]) == 2

    assert "cannot listen on" in capsys.readouterr().err


def test_the_command_prints_the_address_and_stops_on_ctrl_c(tiny_bundle, tmp_path):
    words = [
        "-m",
        "ghostdeploy.samples.browser",
        tiny_bundle("onnx"),
        "--modules",
        fake_modules(tmp_path),
        "--port",
        "0",
    ]
    with subprocess.Popen([sys.executable, *map(str, words)], stdout=subprocess.PIPE, text=True) as process:
        address = re.search(r"http://\S+/", process.stdout.readline())[0]
        with urllib.request.urlopen(address) as answer:
            assert b"Drop an image here" in answer.read()
        process.send_signal(2)
        assert process.wait(timeout=30) == 0
