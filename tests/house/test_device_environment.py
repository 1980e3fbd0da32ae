"""A device: a fresh environment with one engine and four small libraries runs a bundle, without torch and onnx.

The wheels are built as a release builds them. Each smaller one is put into a folder of its own, which stands before
the whole one in the search path.
"""

from __future__ import annotations

import json
import sys
from importlib.metadata import requires

import pytest
from packaging.requirements import Requirement

import ghostdeploy as gd
from ghostdeploy import samples, targets
from ghostdeploy.bundle.folder import open_bundle
from tests.device import ROOT, attempt, make, output, source
from tests.exported import sample_bundle
from tests.further import further
from tests.shared import shared_folder

PACKAGES = ("numpy", "pillow", "msgspec", "click", "rich", "openvino")
PROGRAM = """
import importlib.util, sys
import numpy as np
import ghostdeploy as gd

assert not [name for name in ("torch", "onnx", "onnxruntime", "safetensors") if importlib.util.find_spec(name)]
assert "site-packages" in gd.__file__, gd.__file__
with gd.load(sys.argv[1], threads=1) as model:
    print(*model(np.zeros((3, 3, 64, 64), np.float32)).shape)
"""

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def python(tmp_path_factory):
    """The interpreter of a fresh environment, as a user of a device would make it."""
    with shared_folder(tmp_path_factory, "device") as folder:
        done, python = folder / "done", folder / "venv" / "bin" / "python"
        if not done.exists():
            make(folder, "--constraint", ROOT / "constraints.txt", *PACKAGES)
            done.touch()
    return python


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    return sample_bundle(tmp_path_factory, "ghostnet_050", "openvino", precision="fp32")


def test_a_bundle_runs_without_torch_and_onnx(python, bundle):
    assert output(python, "-c", PROGRAM, bundle).strip() == "3 10"


def test_verify_and_inspect_work(python, bundle):
    assert "passed" in output(python, "-m", "ghostdeploy", "verify", bundle)
    assert "openvino" in output(python, "-m", "ghostdeploy", "inspect", bundle)


def test_an_int8_bundle_is_verified_against_its_simulation_and_diagnosed(python, tiny_bundle):
    path = tiny_bundle("openvino", "int8")

    assert "executed on" in output(python, "-m", "ghostdeploy", "verify", path)
    assert "depthwise" in output(python, "-m", "ghostdeploy", "diagnose", path)


def test_a_kit_without_nvidias_library_says_which_extra_brings_it(python, tiny_bundle):
    done = attempt(python, "-m", "ghostdeploy", "build", tiny_bundle("tensorrt", "int8"))

    assert done.returncode == 4, done.stderr
    assert "none of tensorrt, tensorrt_rtx is installed here" in done.stderr
    assert 'pip install "ghostdeploy[tensorrt]"' in done.stderr


def test_the_example_app_classifies_an_image(python, bundle):
    boot = next(image for image in samples.example_images() if image.stem == "ankle_boot")

    lines = output(python, "-m", "ghostdeploy.samples.classify_image", bundle, boot).splitlines()

    assert len(lines) == 3
    assert "ankle boot" in lines[0]


def test_what_needs_torch_says_which_extra_brings_it(python):
    done = attempt(python, "-m", "ghostdeploy", "export", "-t", "openvino")

    assert done.returncode == 4, done.stderr
    assert "torch" in done.stderr
    assert 'pip install "ghostdeploy[openvino]"' in done.stderr


def metadata(folder):
    return {path: path.read_text() for path in folder.rglob("*.egg-info/PKG-INFO")}


@pytest.fixture(scope="module")
def device(python, tmp_path_factory):
    """The folder in which the device wheel is installed, bytecode included."""
    return wheels(python, tmp_path_factory, "device")


@pytest.fixture(scope="module")
def app(python, tmp_path_factory):
    """The folder in which the app wheel is installed, bytecode included."""
    return wheels(python, tmp_path_factory, "app")


def wheels(python, tmp_path_factory, kind):
    """Returns the folder in which a wheel is installed."""
    with shared_folder(tmp_path_factory, f"{kind}-wheel") as folder:
        done, installed = folder / "done", folder / "installed"
        if not done.exists():
            pip = [sys.executable, "-m", "pip", "--disable-pip-version-check"]
            build = [*pip, "wheel", "--quiet", "--no-deps", "--wheel-dir", folder, source(folder)]
            output(*build)  # first the whole one: what it leaves in the build folder must not get into the other
            before = metadata(folder)
            output(*build, GHOSTDEPLOY_WHEEL=kind)
            assert metadata(folder) == before, "an editable installation would take that version for its own"
            (wheel,) = folder.glob(f"*+{kind}-*.whl")
            output(python, "-m", "pip", "install", "--quiet", "--no-deps", "--target", installed, wheel)
            done.touch()
    return installed


def test_the_app_wheel_is_below_one_megabyte_installed_and_the_device_wheel_below_2300_kilobytes(app, device):
    for folder, limit in ((app, 1_000_000), (device, 2_300_000)):
        files = [path for path in folder.rglob("*") if path.is_file()]

        assert sum(path.stat().st_size for path in files) < limit
        assert {path.suffix for path in files if "samples" in path.parts} <= {".py", ".pyc"}
        assert not (folder / "ghostdeploy" / "py.typed").exists()  # it has no types: these would be a fiftieth of it


def test_the_app_wheel_loads_classifies_and_has_no_command(python, app, bundle):
    boot = next(image for image in samples.example_images() if image.stem == "ankle_boot")
    program = (
        PROGRAM.replace("site-packages", "installed") + "try: gd.verify\nexcept gd.GhostDeployError as e: print(e)"
    )

    shape, missing = output(python, "-c", program, bundle, PYTHONPATH=str(app)).splitlines()

    assert shape == "3 10"
    assert "ghostdeploy.verify is not in the app wheel of ghostdeploy, which loads and runs bundles" in missing
    assert "ankle boot" in output(python, "-m", "ghostdeploy.samples.classify_image", bundle, boot, PYTHONPATH=str(app))
    assert not list(app.glob("*.dist-info/entry_points.txt"))


def test_the_device_wheel_has_the_lines_of_the_source_without_remarks(device):
    """So that a traceback from a device tells the right line."""
    for path in (device / "ghostdeploy").rglob("*.py"):
        ours = (ROOT / path.relative_to(device)).read_text(encoding="utf-8").splitlines()
        found = path.read_text(encoding="utf-8").splitlines()
        assert len(found) == len(ours), path
        for line, full in zip(found, ours, strict=True):
            rest = iter(full)
            assert all(character in rest for character in line), (path, line)


def test_the_device_wheel_says_what_it_is(python, device):
    program = "import ghostdeploy as gd; print(gd.__version__, gd.__file__)"

    assert output(python, "-c", program, PYTHONPATH=str(device)).split() == [
        f"{gd.__version__}+device",
        str(device / "ghostdeploy" / "__init__.py"),
    ]


def test_the_device_wheel_loads_and_runs_a_bundle(python, device, bundle):
    program = PROGRAM.replace("site-packages", "installed")

    assert output(python, "-c", program, bundle, PYTHONPATH=str(device)).strip() == "3 10"


def test_the_device_wheel_has_every_command_that_takes_a_bundle(python, device, bundle, tiny_bundle, tmp_path):
    ghostdeploy = [python, "-m", "ghostdeploy"]
    boot = next(image for image in samples.example_images() if image.stem == "ankle_boot")
    data, int8 = samples.evaluation_set(), tiny_bundle("openvino", "int8")

    for words, wanted in (
        (["verify", bundle, int8], "passed"),
        (["inspect", bundle], "openvino"),
        (["run", bundle, boot], "ankle boot"),
        (["eval", bundle, "--data", data], "93.10%"),
        (["diagnose", int8], "depthwise"),
        (["doctor"], "openvino"),
        (["--version"], "+device"),
    ):
        assert wanted in output(*ghostdeploy, *words, PYTHONPATH=str(device)), words
    assert "ankle boot" in output(
        python, "-m", "ghostdeploy.samples.classify_image", bundle, boot, PYTHONPATH=str(device)
    )


@pytest.mark.parametrize(
    "words",
    [["export", "-t", "openvino"], ["tune"], ["models"], ["build", "BUNDLE"], ["eval", "BUNDLE"]],
    ids=lambda w: w[0],
)
def test_what_the_device_wheel_leaves_out_is_told_in_one_sentence(python, device, bundle, words):
    words = [bundle if word == "BUNDLE" else word for word in words]

    done = attempt(python, "-m", "ghostdeploy", *words, PYTHONPATH=str(device))

    error, hint = done.stderr.splitlines()
    assert done.returncode == 4
    assert "is not in the device wheel of ghostdeploy, which runs bundles and has no exporters, models or samp" in error
    assert hint == 'hint: pip uninstall --yes ghostdeploy && pip install "ghostdeploy[openvino]"'


def test_bench_measures_on_a_device_and_its_default_routes_need_the_whole_wheel(python, device, bundle):
    words = ["-m", "ghostdeploy", "bench", bundle, "--rounds", "8", "--json"]
    (found,) = json.loads(output(python, *words, PYTHONPATH=str(device)))["bundles"]

    against = attempt(python, *words, "--against", "default", PYTHONPATH=str(device))

    achieved = open_bundle(bundle).manifest.precision_achieved
    assert found["limit"]["layers"] == achieved.int8_layers + achieved.float_layers > 90
    assert against.returncode == 4, against.stderr
    assert "is not in the device wheel" in against.stderr


def test_from_python_the_device_wheel_says_the_same(python, device):
    program = "import ghostdeploy as gd\ntry: gd.export\nexcept gd.GhostDeployError as error: print(error.message)"

    assert "ghostdeploy.export is not in the device wheel" in output(python, "-c", program, PYTHONPATH=str(device))


CORE = {"click", "ghostdeploy", "markdown-it-py", "mdurl", "msgspec", "numpy", "pillow", "pygments", "rich"}
ENGINES = {
    "ncnn": {"ncnn", "certifi", "charset-normalizer", "idna", "portalocker", "requests", "tqdm", "urllib3"},
    "onnx": {"onnxruntime", "flatbuffers", "packaging", "protobuf"},
    "openvino": {"openvino", "openvino-telemetry"},
    "tflite": {
        "ai-edge-litert",
        "backports.strenum",
        "flatbuffers",
        "ml-dtypes",
        "protobuf",
        "tqdm",
        "typing-extensions",
    },
}
"""What a device gets: the engine, and what the engine itself asks for."""


def asked_for(requirement):
    """Returns the names of what a requirement brings, as the packages that are installed here say it themselves."""
    found, left = {}, [Requirement(requirement)]
    while left:
        one = left.pop()
        name = one.name.lower().replace("_", "-")
        new = one.extras | {""} if name not in found else one.extras - found[name]
        found[name] = found.get(name, set()) | new
        for line in (requires(name) or ()) if new else ():
            further = Requirement(line)
            if further.marker is None or any(further.marker.evaluate({"extra": extra}) for extra in new):
                left.append(further)
    return set(found)


@pytest.mark.parametrize("target", ENGINES)
def test_the_extra_of_a_runtime_asks_for_its_engine_and_nothing_heavy(target):
    assert asked_for(targets.find(target).runtime_requirement) == CORE | ENGINES[target]


@pytest.mark.parametrize("target", further(ENGINES, usual=["onnx"]))
def test_pip_resolves_the_extra_of_a_runtime_to_the_same(target, tmp_path):
    wanted = targets.find(target).runtime_requirement.replace("ghostdeploy", str(source(tmp_path)), 1)

    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "install", "--dry-run", "--ignore-installed"]
    output(*pip, "--quiet", "--constraint", ROOT / "constraints.txt", "--report", tmp_path / "report.json", wanted)

    report = json.loads((tmp_path / "report.json").read_text())
    found = {entry["metadata"]["name"].lower().replace("_", "-") for entry in report["install"]}
    assert found == CORE | ENGINES[target]
