"""TensorRT bundles on machines that cannot run them: which file is trusted, which engine fits, whose words are told."""

from __future__ import annotations

import shutil
import subprocess
import sys

import msgspec
import pytest

import ghostdeploy as gd
from ghostdeploy.errors import BundleError, MissingDependency, UnsupportedHardware, UsageError
from ghostdeploy.nvidia import kit
from ghostdeploy.nvidia.driver import gpus, open_driver
from ghostdeploy.nvidia.library import load_library
from ghostdeploy.runtimes.tensorrt import choice as tensorrt_choice
from ghostdeploy.runtimes.tensorrt import runtime as backend
from tests.bundles import Tiny
from tests.fake_gpu import install
from tests.tensorrt_kits import make_kit, rewrite

pytest.importorskip("tensorrt_rtx", reason="TensorRT for RTX is not installed here")

NO_GPU = pytest.mark.skipif(bool(gpus()), reason="there is a GPU here")
ENGINE = "engines/rtx-sm89.engine"


@pytest.fixture(scope="module")
def kits(tmp_path_factory):
    """A function (precision, fields of Tiny) → folder of a bundle with an engine for sm 89 that nobody changes."""
    made = {}

    def build(precision="fp16", *, sm="89", **fields):
        key = (precision, sm, *sorted(fields.items()))
        if key not in made:
            settings = {"sm": (sm,)} if sm else {}
            made[key] = make_kit(tmp_path_factory.mktemp("kit"), precision, tiny=Tiny(**fields), **settings)
        return made[key]

    return build


@pytest.fixture
def copied(kits, tmp_path):
    """A bundle that the test may change."""
    return shutil.copytree(kits(), tmp_path / "bundle")


@pytest.fixture
def paper_gpu(monkeypatch):
    """A function: bundle, facts of the GPU → its driver functions; see `tests.fake_gpu.install`."""
    return lambda path, **facts: install(monkeypatch, path, **facts)


def respecified(path, **changes):
    """Rewrites `build.json` with other facts about its engines."""
    spec = kit.decode((path / kit.SPEC).read_bytes(), where="")
    engines = tuple(msgspec.structs.replace(engine, **changes) for engine in spec.engines)
    rewrite(path, kit.SPEC, kit.encode(msgspec.structs.replace(spec, engines=engines)), honest=True)


@NO_GPU
def test_a_kit_without_an_engine_says_that_it_must_be_built(kits):
    with pytest.raises(UnsupportedHardware, match="has not been built, and there is no CUDA device here") as caught:
        gd.load(kits("int8", sm=None))

    assert "ghostdeploy build" in caught.value.hint


@NO_GPU
def test_without_a_driver_the_librarys_own_reason_is_given(kits):
    with pytest.raises(UnsupportedHardware, match=r"TensorRT for RTX \S+ cannot use a GPU here: CUDA error 35: CUDA"):
        gd.load(kits())


@NO_GPU
def test_a_missing_driver_is_named_by_the_loader():
    open_driver.cache_clear()
    with pytest.raises(UnsupportedHardware, match=r"no usable NVIDIA driver here: .*cuda"):
        open_driver()


def test_an_altered_engine_is_refused_before_nvidias_library_is_imported(copied):
    data = bytearray((copied / ENGINE).read_bytes())
    data[len(data) // 2] ^= 1
    (copied / ENGINE).write_bytes(data)
    code = (
        "import sys, ghostdeploy as gd\n"
        "try:\n    gd.load(sys.argv[1])\n"
        "except gd.errors.BundleError as error:\n"
        "    print(error.message, [name for name in sys.modules if name.startswith('tensorrt')])\n"
    )

    done = subprocess.run([sys.executable, "-c", code, copied], capture_output=True, text=True, check=True)

    assert f"{ENGINE} was altered" in done.stdout
    assert done.stdout.strip().endswith("[]")


def test_an_altered_engine_is_refused_even_when_the_caller_wants_no_hashes_checked(copied, monkeypatch):
    data = bytearray((copied / ENGINE).read_bytes())
    data[-1] ^= 1
    (copied / ENGINE).write_bytes(data)
    monkeypatch.setattr(backend, "refuse", lambda choice: pytest.fail("it was opened"))

    with pytest.raises(BundleError, match="was altered: its SHA-256 is"):
        gd.load(copied, verify=False)


def test_an_engine_that_the_manifest_does_not_list_is_not_opened(copied):
    (copied / "engines/planted.engine").write_bytes(b"code")
    respecified(copied, file="engines/planted.engine")

    with pytest.raises(BundleError, match=r"planted\.engine is not listed in the manifest, not opened"):
        gd.load(copied)


@pytest.mark.parametrize(
    "changes",
    [
        {"file": "../outside.engine"},
        {"file": "/etc/passwd"},
        {"file": "engines/../kit/model.onnx"},
        {"file": "engines/a\n"},
        {"compute_capability": "ampere"},
        {"library": "libfoo"},
    ],
    ids=str,
)
def test_a_kit_with_paths_or_names_of_its_own_is_refused(copied, changes):
    respecified(copied, **changes)

    with pytest.raises(BundleError, match=r"build\.json is not a valid build kit"):
        gd.load(copied)


def test_a_timing_cache_elsewhere_is_refused():
    with pytest.raises(BundleError, match=r"timing_cache"):
        kit.decode(
            b'{"precision":"fp16","float_part":"fp16","tf32":true,"layers":{},"timing_cache":"../../x"}',
            where="build.json",
        )


def test_an_engine_of_another_version_says_found_and_expected(copied):
    respecified(copied, version="1.6.0.99")
    here = load_library("tensorrt_rtx").version

    with pytest.raises(BundleError, match=f"was built by TensorRT for RTX 1.6.0.99, expected {here}") as caught:
        gd.load(copied)

    assert "ghostdeploy build" in caught.value.hint


def test_a_plan_without_its_library_names_the_pip_extra(copied):
    respecified(copied, library="tensorrt")
    if "tensorrt" in tensorrt_choice.installed():
        pytest.skip("TensorRT is installed here")

    with pytest.raises(MissingDependency, match="need TensorRT, not installed here") as caught:
        gd.load(copied)

    assert caught.value.hint == 'pip install "ghostdeploy[tensorrt]"'


def test_an_engine_of_another_architecture_says_found_and_expected(kits, paper_gpu):
    paper_gpu(kits(), capability=(12, 0))

    with pytest.raises(UnsupportedHardware, match="engines for compute capability 89, this GPU has 120"):
        gd.load(kits())


@pytest.mark.parametrize(
    ("record", "gpu", "hardware", "runs"),
    [
        (("tensorrt", "86"), "86", "none", True),
        (("tensorrt", "86"), "89", "none", False),
        (("tensorrt", "86"), "89", "ampere_plus", True),
        (("tensorrt", "86"), "75", "ampere_plus", False),
        (("tensorrt", "86"), "89", "same_compute_capability", False),
        (("tensorrt_rtx", "86"), "89", "ampere_plus", False),
    ],
)
def test_an_engine_runs_where_its_compatibility_says(record, gpu, hardware, runs):
    library, built_for = record
    engine = kit.EngineRecord(file="e", library=library, version="1", compute_capability=built_for, system="linux")

    assert engine.runs_on(gpu, hardware) is runs


@pytest.mark.parametrize("device", ["TPU", "cuda:x", "0.5"])
def test_a_device_that_is_no_gpu_is_a_usage_error(kits, device):
    with pytest.raises(UsageError, match="is not an NVIDIA GPU"):
        gd.load(kits(), device=device)


@pytest.mark.parametrize("device", ["0", "cuda:0", "GPU.0", "cuda", None])
def test_a_gpu_is_named_by_its_number(kits, paper_gpu, device):
    paper_gpu(kits())

    with gd.load(kits(), device=device) as runtime:
        assert runtime.info()["device"] == "Paper GPU (compute capability 89)"


def test_a_gpu_that_is_not_there_is_counted(kits, paper_gpu):
    paper_gpu(kits(), count=2)

    with pytest.raises(UnsupportedHardware, match="no GPU 2 here, there are 2"):
        gd.load(kits(), device="cuda:2")
