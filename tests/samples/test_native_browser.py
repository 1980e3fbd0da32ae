"""The browser page with a native bundle: WebAssembly in headless Chromium against golden vectors, beside ONNX."""

from __future__ import annotations

import json
import shutil
import subprocess

import numpy as np
import pytest

import ghostdeploy as gd
from ghostdeploy.bundle.folder import open_bundle
from ghostdeploy.errors import BundleError, UnsupportedHardware
from ghostdeploy.runtimes.native import program
from ghostdeploy.samples import browser
from tests.browsing import EXAMPLES, served, visit
from tests.conftest import refuse, require, require_package
from tests.exported import sample_bundle
from tests.samples.test_browser_sample import modules  # noqa: F401 - a fixture

ARCH = {"arch": ("wasm32",)}


@pytest.fixture(autouse=True, scope="module")
def compiler():
    require("native")
    require_package("ziglang")


@pytest.fixture(scope="module")
def native(tmp_path_factory):
    """A function (precision) → bundle of the trained sample with a library for browsers."""
    return lambda precision: sample_bundle(
        tmp_path_factory, "ghostnet_050", "native", precision=precision, settings=ARCH
    )


def test_both_engines_give_the_reference_outputs(native, modules, tmp_path_factory, tmp_path):  # noqa: F811
    onnx = sample_bundle(tmp_path_factory, "ghostnet_050", "onnx", precision="fp32")
    with served(onnx, modules, beside=native("fp32")) as address:
        page = visit(f"{address}/?selftest", tmp_path)

    assert page.text["status"] == "Ready.", page.text
    for place, name in (("selftest", "onnxruntime-web 1.30.0"), ("selftest-beside", "native WebAssembly")):
        assert_passed(page, place, onnx)
        assert page.text[place].startswith(f"{name} passed: ")
        assert page.text[place].endswith(" ms per image")
        assert name in page.text["facts"]
    found = page.attributes["selftest-beside"]
    assert 0 < float(found["data-max-abs"]) <= 1e-4 * float(found["data-largest"])


def assert_passed(page, place, bundle):
    """The self-test of one engine replayed all golden vectors within the tolerance."""
    found = page.attributes[place]
    golden = open_bundle(bundle).golden()[1]["logits"]
    assert found["data-verdict"] == "passed", page.text
    assert found["data-agreeing"] == str(len(golden))
    assert float(found["data-largest"]) == pytest.approx(float(np.abs(golden).max()))


def test_hybrid_weights_give_the_reference_outputs(native, tmp_path):
    with served(native("hybrid"), tmp_path) as address:
        page = visit(f"{address}/?selftest", tmp_path)

    assert page.text["status"] == "Ready.", page.text
    assert_passed(page, "selftest", native("hybrid"))


def test_a_native_bundle_needs_no_engine_and_finds_the_classes_of_python(native, tmp_path):
    image = EXAMPLES[1]
    with gd.load(native("fp32")) as model, served(native("fp32"), tmp_path / "no modules") as address:
        page = visit(f"{address}/?example={image.name}", tmp_path)
        expected = model.classify(image, k=5)

    assert page.attributes["result"]["data-file"] == image.name, page.text
    assert [label for label, _ in page.classes] == [label for label, _ in expected]
    assert [p for _, p in page.classes] == pytest.approx([p for _, p in expected], abs=1e-5)
    assert "by native WebAssembly" in page.text["times"]


def test_one_image_goes_through_both(native, modules, tmp_path_factory, tmp_path):  # noqa: F811
    onnx = sample_bundle(tmp_path_factory, "ghostnet_050", "onnx", precision="fp32")
    with served(onnx, modules, beside=native("fp32")) as address:
        page = visit(f"{address}/?example={EXAMPLES[0].name}", tmp_path)

    assert "by onnxruntime-web 1.30.0, " in page.text["times"]
    assert float(page.attributes["result"]["data-difference"]) <= 1e-5


def test_an_altered_library_is_refused_by_its_hash(native, tmp_path):
    bundle = shutil.copytree(native("fp32"), tmp_path / "bundle")
    library = bundle / browser.LIBRARY
    data = bytearray(library.read_bytes())
    data[-1] ^= 1
    library.write_bytes(data)

    with served(bundle, tmp_path) as address:
        page = visit(address, tmp_path)

    assert page.attributes["status"]["data-state"] == "error"
    assert "lib/wasm32.wasm was altered" in page.text["status"]


def test_the_library_imports_nothing_and_has_what_the_page_calls(native):
    node = shutil.which("node") or refuse("npm", "node is not installed here")
    show = (
        "const module = new WebAssembly.Module(require('fs').readFileSync(process.argv[1]));"
        "console.log(JSON.stringify([WebAssembly.Module.imports(module),"
        "WebAssembly.Module.exports(module).map((one) => one.name)]))"
    )
    done = subprocess.run(
        [node, "-e", show, native("fp32") / browser.LIBRARY], capture_output=True, text=True, check=True
    )

    imports, exports = json.loads(done.stdout)
    assert imports == []
    assert {"memory", "ghost_arena_bytes", "ghost_run", "ghost_identity", "ghost_wasm_take"} <= set(exports)


def test_python_takes_the_library_of_its_processor(native):
    found = program.read((native("fp32") / program.PLAN).read_bytes())

    assert next(iter(found.libraries)) == "wasm32"
    with gd.load(native("fp32")) as model:
        assert "wasm32" not in model.info()["engine_version"]
        assert np.isfinite(model(np.zeros((1, 3, 64, 64), np.float32))).all()


def test_a_bundle_for_browsers_alone_is_refused_with_the_arch_that_would_help(native, monkeypatch):
    from ghostdeploy.runtimes.native import runtime

    with pytest.raises(UnsupportedHardware, match="was built for wasm32, this processor is") as caught:
        runtime.level_of(["wasm32"], "here")

    assert "ghostdeploy export -t native --arch " in caught.value.hint


def test_a_native_bundle_without_a_library_for_browsers_is_refused(tiny_bundle, tmp_path):
    with pytest.raises(
        BundleError, match=r"expected an \.onnx file for onnxruntime-web, or lib/wasm32\.wasm"
    ) as caught:
        browser.build_site(open_bundle(tiny_bundle("native")), tmp_path, [])

    assert "--arch wasm32" in caught.value.hint


def test_a_second_bundle_of_another_model_is_refused(native, tiny_bundle, tmp_path):
    with pytest.raises(BundleError, match="has other inputs or classes than"):
        browser.build_site(open_bundle(tiny_bundle("onnx")), tmp_path, [], open_bundle(native("fp32")))
