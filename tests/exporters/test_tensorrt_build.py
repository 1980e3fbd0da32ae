"""`build` on a machine without a GPU, and its judgement of what a GPU would have given."""

from __future__ import annotations

import shutil

import msgspec
import onnx
import pytest

from ghostdeploy.bundle.folder import open_bundle, sha256
from ghostdeploy.bundle.manifest import Parity
from ghostdeploy.convert.base import ExportResult, Written
from ghostdeploy.deploy.export.build import build, copy_kit, finish
from ghostdeploy.deploy.prove.judge import conclude, self_test
from ghostdeploy.deploy.prove.tolerance import TOLERANCES
from ghostdeploy.errors import BundleError, ExportFailed, UnsupportedHardware, UsageError
from ghostdeploy.exporters.tensorrt import build as building
from ghostdeploy.exporters.tensorrt.build import KitFinisher, missing_precision, precision_of
from ghostdeploy.nvidia import kit
from ghostdeploy.nvidia.driver import gpus
from ghostdeploy.nvidia.library import load_library
from ghostdeploy.progress import Stages
from tests.bundles import make_bundle
from tests.fake_gpu import install
from tests.tensorrt_kits import make_kit

pytest.importorskip("tensorrt_rtx", reason="TensorRT for RTX is not installed here")

NO_GPU = pytest.mark.skipif(bool(gpus()), reason="there is a GPU here")
GPU = pytest.mark.skipif(not gpus(), reason="no CUDA device here")


@pytest.fixture(scope="module")
def kits(tmp_path_factory):
    """A function: precision → folder of a kit without an engine."""
    made = {}
    return lambda precision: made.setdefault(precision, make_kit(tmp_path_factory.mktemp("kit"), precision))


@pytest.fixture
def path(kits, tmp_path):
    """A kit that the test may change."""
    return shutil.copytree(kits("fp16"), tmp_path / "tiny")


def contents(folder):
    return {str(p.relative_to(folder)): sha256(p) for p in sorted(folder.rglob("*")) if p.is_file()}


def parity(sqnr, *, precision="int8", how="executed", verdict="passed"):
    return Parity(
        count=3,
        max_abs=0.1,
        reference_max_abs=1.0,
        cosine=0.99,
        sqnr_db=sqnr,
        top1_agreement=1.0,
        tolerance=TOLERANCES[precision],
        would_pass=TOLERANCES[precision],
        verdict=verdict,
        how=how,
    )


@NO_GPU
@pytest.mark.parametrize("precision", ["fp16", "int8"])
def test_without_a_gpu_the_vendors_reason_is_given_and_nothing_is_touched(kits, precision):
    folder = kits(precision)
    before = contents(folder)

    with pytest.raises(
        UnsupportedHardware, match="cannot use a GPU here: CUDA error 35: CUDA driver version"
    ) as caught:
        build(folder)

    assert caught.value.exit_code == 4
    assert contents(folder) == before
    assert sorted(p.name for p in folder.parent.iterdir()) == [folder.name]


def test_a_bundle_of_another_target_has_no_kit(tmp_path):
    with pytest.raises(UsageError, match="holds no build kit"):
        build(make_bundle(tmp_path, "onnx"))


@pytest.mark.parametrize("name", [kit.MODEL, kit.SPEC])
def test_an_altered_kit_is_refused_before_anything_reads_it(path, monkeypatch, name):
    data = bytearray((path / name).read_bytes())
    data[10] ^= 1
    (path / name).write_bytes(data)
    monkeypatch.setattr(building, "any_library", lambda: pytest.fail("NVIDIA's library was asked"))

    with pytest.raises(BundleError, match="was altered"):
        build(path)


def test_a_file_altered_after_the_check_is_not_copied(path, tmp_path):
    bundle = open_bundle(path)
    data = (path / kit.MODEL).read_bytes()
    (path / kit.MODEL).write_bytes(data[:-1] + bytes([data[-1] ^ 1]))

    with pytest.raises(BundleError, match="altered while the bundle was copied"):
        copy_kit(bundle, tmp_path / "copy")


@NO_GPU
def test_a_failed_builder_leaves_its_log_beside_the_bundle(path, tmp_path, monkeypatch):
    monkeypatch.setattr(building, "require_gpu", lambda library: None)
    before = contents(path)

    with pytest.raises(ExportFailed, match="CUDA error 35") as caught:
        build(path)

    assert "Traceback" in caught.value.log.read_text()
    assert str(caught.value.log) in caught.value.hint
    assert contents(path) == before
    assert {p.name for p in path.parent.iterdir()} == {caught.value.log.name, path.name}


@pytest.fixture
def built(path, tmp_path, monkeypatch):
    """A function: layers found → the finished bundle; its engine runs on a GPU made of host memory."""

    def finished(found_as="fp16", graph=None):
        folder = tmp_path / "work"
        bundle = open_bundle(path)
        copy_kit(bundle, folder)
        spec = kit.decode((folder / kit.SPEC).read_bytes(), where="")
        library = load_library("tensorrt_rtx")
        (folder / kit.ENGINES).mkdir()
        (folder / "engines/rtx-sm89.engine").write_bytes(b"an engine")
        (folder / spec.timing_cache).write_bytes(b"timings")
        engine = kit.EngineRecord(
            file="engines/rtx-sm89.engine",
            library="tensorrt_rtx",
            version=library.version,
            compute_capability="89",
            system=kit.this_system(),
            layers=dict.fromkeys(spec.layers, found_as),
        )
        spec = msgspec.structs.replace(spec, engines=(engine,))
        (folder / kit.SPEC).write_bytes(kit.encode(spec))
        install(monkeypatch, folder, graph=graph)
        written = Written(
            precision=precision_of(spec, engine.layers),
            files=(engine.file, spec.timing_cache),
            tools={"tensorrt": "11"},
        )
        result = ExportResult(status="done", tools=written.tools, written=written)
        return finish(bundle, folder, result, KitFinisher(), Stages()), folder

    return finished


def test_a_finished_bundle_is_whole_and_says_what_was_built_and_proven(built):
    result, folder = built()

    manifest = open_bundle(folder).manifest
    assert (manifest.verdict, manifest.unverified_because, manifest.failed_because) == ("passed", None, None)
    assert manifest.parity.how == "executed"
    assert manifest.parity.verdict == "passed"
    assert "engine by its inspector" in manifest.precision_achieved.how
    assert manifest.tools["tensorrt"] == "11"
    listed = {record.path for record in manifest.files}
    assert {"engines/rtx-sm89.engine", "engines/timing.cache", kit.SPEC, kit.MODEL, "golden.npz"} <= listed
    assert (result.verdict, result.engine) == ("passed", "engines/rtx-sm89.engine")
    assert result.device == "Paper GPU (compute capability 89)"
    assert result.library.startswith("tensorrt_rtx ")


def test_an_engine_without_the_precision_fails_the_bundle_and_it_is_kept(built):
    result, folder = built(found_as="fp32")

    assert result.verdict == "failed"
    assert "does 0% of the work asked for in fp16" in result.failed_because
    assert open_bundle(folder).manifest.failed_because == result.failed_because


def test_an_engine_with_other_numbers_fails_the_bundle(built, path):
    graph = onnx.load(path / kit.MODEL)
    weights = next(t for t in graph.graph.initializer if t.name.startswith("classifier"))
    array = onnx.numpy_helper.to_array(weights)
    weights.CopyFrom(onnx.numpy_helper.from_array(-array, weights.name))

    result, folder = built(graph=graph)

    assert (result.verdict, result.parity.verdict) == ("failed", "failed")
    assert open_bundle(folder).manifest.verdict == "failed"


@pytest.mark.parametrize(
    ("executed", "simulated", "fault"),
    [
        (30.0, 31.0, False),
        (28.1, 31.0, False),
        (27.9, 31.0, True),
        (None, 31.0, False),
        (12.0, None, False),
        (-999.0, 31.0, True),
    ],
)
def test_an_int8_engine_may_be_no_worse_than_its_simulation_by_more_than_three_decibels(executed, simulated, fault):
    found = self_test(parity(executed), None if simulated is None else parity(simulated, how="simulated in float"))

    assert (found is not None) is fault
    if fault:
        assert "expected at most 3 dB less" in found


def test_a_precision_with_its_own_bounds_is_left_to_parity():
    assert self_test(parity(20.0, precision="fp16"), parity(60.0, precision="fp16", how="simulated in float")) is None


def test_faults_are_told_together(kits):
    manifest = open_bundle(kits("fp16")).manifest
    spec = kit.decode((kits("fp16") / kit.SPEC).read_bytes(), where="")
    engine = kit.EngineRecord(
        file="e", library="tensorrt", version="11", compute_capability="90", system="linux", layers={}
    )
    failed = parity(5.0, precision="fp16", verdict="failed")

    found = conclude(msgspec.structs.replace(manifest, parity=failed), faults=(missing_precision(spec, engine),))

    assert found.verdict == "failed"
    assert found.failed_because.count("; ") == 1


@GPU
@pytest.mark.gpu
def test_a_kit_is_finished_on_the_device(path):
    result = build(path)

    assert result.verdict == "passed"
    assert open_bundle(path).manifest.verdict == "passed"
    again = build(path)  # with the timing cache of the first
    assert again.verdict == "passed"
