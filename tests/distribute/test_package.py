"""Packages: each form read by its own tools, nothing overwritten, the bundle whole in all of them."""

import hashlib
import json
import shutil
import subprocess

import msgspec
import pytest
from google.protobuf import text_format
from huggingface_hub import ModelCard

import ghostdeploy as gd
from ghostdeploy.bundle.folder import open_bundle
from ghostdeploy.bundle.manifest import encode
from ghostdeploy.deploy.prove.commands import verify
from ghostdeploy.distribute.forms import FORMS, Wanted, package
from ghostdeploy.supply.sign import make_key, sign
from tests.commands import assert_one_sentence, run
from tests.conftest import require_program
from tests.exported import int8_bundle


@pytest.fixture
def bundle(tiny_bundle, tmp_path):
    return shutil.copytree(tiny_bundle("openvino"), tmp_path / "net")


def change(bundle, **fields):
    """Seals a bundle's manifest with other fields."""
    manifest = msgspec.structs.replace(open_bundle(bundle).manifest, **fields)
    (bundle / "manifest.json").write_bytes(encode(manifest))


def config_of(repository, name):
    from tritonclient.grpc import model_config_pb2

    return text_format.Parse((repository / name / "config.pbtxt").read_text("utf-8"), model_config_pb2.ModelConfig())


@pytest.mark.parametrize(("target", "backend"), [("onnx", "onnxruntime"), ("openvino", "openvino")])
@pytest.mark.parametrize("batch", [1, 4, None])
def test_triton_reads_its_configuration(tiny_bundle, tmp_path, target, backend, batch):
    path = tiny_bundle(target, batch=batch)
    made = package(path, "triton", Wanted(out=tmp_path / "repository", name="net"))
    config, manifest = config_of(tmp_path / "repository", "net"), open_bundle(path).manifest
    assert (config.name, config.backend, config.default_model_filename) == ("net", backend, manifest.payload)
    assert (made.version, made.new) == ("1", True)
    together = batch is None
    assert (config.max_batch_size > 0) == together == config.HasField("dynamic_batching")
    for specs, found in ((manifest.inputs, config.input), (manifest.outputs, config.output)):
        assert [spec.name for spec in specs] == [one.name for one in found]
        for spec, one in zip(specs, found, strict=True):
            shape = spec.shape[1:] if together else spec.shape
            assert [-1 if size is None else size for size in shape] == list(one.dims)
    labels = tmp_path / "repository" / "net" / config.output[0].label_filename
    assert labels.read_text("utf-8").splitlines() == open_bundle(path).labels()
    assert verify(made.path).verdict == "passed"


def test_versions_follow_each_other_and_none_is_touched(bundle, tmp_path):
    out = tmp_path / "repository"
    first = package(bundle, "triton", Wanted(out=out))
    again = package(bundle, "triton", Wanted(out=out))
    assert (again.path, again.new) == (first.path, False)
    before = {path: path.stat().st_mtime_ns for path in (out / "net" / "1").iterdir()}
    change(bundle, created="2026-11-30T00:00:00+00:00")
    second = package(bundle, "triton", Wanted(out=out))
    assert (second.version, second.new) == ("2", True)
    assert before == {path: path.stat().st_mtime_ns for path in (out / "net" / "1").iterdir()}
    assert sorted(path.name for path in (out / "net").iterdir()) == ["1", "2", "config.pbtxt", "labels.txt"]


@pytest.mark.parametrize("form", ["triton", "ovms"])
def test_other_outputs_need_another_name(bundle, tiny_bundle, tmp_path, form):
    out = tmp_path / "repository"
    package(bundle, form, Wanted(out=out, name="net"))
    with pytest.raises(gd.errors.UsageError, match="other inputs or outputs"):
        package(tiny_bundle("openvino", batch=4), form, Wanted(out=out, name="net"))
    assert [path.name for path in (out / "net").iterdir() if path.is_dir()] == ["1"]


def test_what_others_made_is_left_alone(bundle, tmp_path):
    (tmp_path / "repository" / "net" / "7").mkdir(parents=True)
    (tmp_path / "repository" / "net" / "7" / "model.onnx").write_bytes(b"theirs")
    with pytest.raises(gd.errors.UsageError, match="was not made by ghostdeploy"):
        package(bundle, "triton", Wanted(out=tmp_path / "repository"))
    assert [path.name for path in (tmp_path / "repository" / "net").iterdir()] == ["7"]


def test_openvino_model_server_gets_what_was_proven(bundle, tmp_path):
    out = tmp_path / "repository"
    out.mkdir()
    theirs = {"config": {"name": "theirs", "base_path": "/elsewhere"}}
    document = {"model_config_list": [theirs], "monitoring": {"metrics": {"enable": True}}}
    (out / "config.json").write_text(json.dumps(document), "utf-8")
    made = package(bundle, "ovms", Wanted(out=out, base_path="/models/"))
    written = json.loads((out / "config.json").read_text("utf-8"))
    assert written["model_config_list"][0] == theirs
    assert written["monitoring"] == document["monitoring"]
    ours = written["model_config_list"][1]["config"]
    assert (ours["name"], ours["base_path"]) == ("net", "/models/net")
    assert ours["plugin_config"]["INFERENCE_PRECISION_HINT"] == "f32"
    package(bundle, "ovms", Wanted(out=out))
    assert len(json.loads((out / "config.json").read_text("utf-8"))["model_config_list"]) == 2
    import openvino

    core = openvino.Core()  # what the server does: read, and compile with these settings
    core.compile_model(f"{made.path}/model.xml", "CPU", ours["plugin_config"])
    assert verify(made.path).verdict == "passed"


@pytest.mark.parametrize(
    "text", ["", "[]", '{"model_config_list": 7}', '{"model_config_list": [7]}', "\0", "[" * 90_000]
)
def test_a_configuration_that_is_none_is_not_replaced(bundle, tmp_path, text):
    (tmp_path / "config.json").write_text(text, "utf-8")
    with pytest.raises(gd.errors.UsageError, match="no configuration of OpenVINO Model Server"):
        package(bundle, "ovms", Wanted(out=tmp_path))
    assert (tmp_path / "config.json").read_text("utf-8") == text
    assert bundle.is_dir()


def test_the_hub_reads_the_card(tmp_path_factory, tmp_path):
    path = int8_bundle(tmp_path_factory, "ghostnet_050", "onnx")
    made = package(path, "huggingface", Wanted(out=tmp_path, license="Apache-2.0", intended_use="Sorting shoes."))
    card = ModelCard.load(f"{made.path}/README.md")
    manifest = open_bundle(path).manifest
    assert card.data.license == "apache-2.0"
    assert card.data.pipeline_tag == "image-classification"
    results = {one.metric_type: one.metric_value for one in card.data.eval_results}
    assert results["accuracy"] == manifest.accuracy.top1
    assert results["drop"] == manifest.accuracy.drop
    assert "Sorting shoes." in card.text
    assert manifest.quantization.calibration.sha256 in card.text
    assert manifest.digest in card.text
    patterns = (tmp_path / made.name / ".gitattributes").read_text("utf-8")
    assert "*.onnx filter=lfs" in patterns
    assert "*.npz filter=lfs" in patterns
    with gd.load(made.path) as model:
        assert model.info()["engine"]


def test_a_card_says_what_nobody_said(tiny_bundle, tmp_path):
    made = package(tiny_bundle("onnx"), "huggingface", Wanted(out=tmp_path, name="x"))
    card = ModelCard.load(f"{made.path}/README.md")
    assert card.data.license == "unknown"
    assert "Not stated by who packaged this model" in card.text
    with pytest.raises(gd.errors.UsageError, match="exists already"):
        package(tiny_bundle("onnx"), "huggingface", Wanted(out=tmp_path, name="x"))


def blob(layout, descriptor):
    """Returns the content of a blob, whose digest and size are its own."""
    kind, _, digest = descriptor["digest"].partition(":")
    data = (layout / "blobs" / kind / digest).read_bytes()
    assert (hashlib.sha256(data).hexdigest(), len(data)) == (digest, descriptor["size"])
    return data


def test_a_layout_gives_the_bundle_back(bundle, tmp_path):
    make_key(tmp_path / "key")
    sign(bundle, tmp_path / "key")
    layout = tmp_path / "layout"
    package(bundle, "oci", Wanted(out=layout, license="Apache-2.0"))
    assert json.loads((layout / "oci-layout").read_text("utf-8")) == {"imageLayoutVersion": "1.0.0"}
    index = json.loads((layout / "index.json").read_text("utf-8"))
    document = json.loads(blob(layout, index["manifests"][0]))
    assert blob(layout, document["config"]) == b"{}"
    back = tmp_path / "back"
    for layer in document["layers"]:
        path = back / layer["annotations"]["org.opencontainers.image.title"]
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(blob(layout, layer))
    trust = gd.Trust([tmp_path / "key.pub"])
    assert verify(back, trust=trust).verdict == "passed"


def test_a_tag_moves_and_blobs_stay(bundle, tmp_path):
    layout = tmp_path / "layout"
    package(bundle, "oci", Wanted(out=layout, name="net"))
    assert not package(bundle, "oci", Wanted(out=layout, name="net")).new
    blobs = {path: path.stat().st_mtime_ns for path in (layout / "blobs" / "sha256").iterdir()}
    change(bundle, created="2026-11-30T00:00:00+00:00")
    package(bundle, "oci", Wanted(out=layout, name="net"))
    package(bundle, "oci", Wanted(out=layout, name="other"))
    index = json.loads((layout / "index.json").read_text("utf-8"))
    tags = [one.get("annotations", {}).get("org.opencontainers.image.ref.name") for one in index["manifests"]]
    assert tags == [None, "net", "other"]
    assert blobs.items() <= {path: path.stat().st_mtime_ns for path in (layout / "blobs" / "sha256").iterdir()}.items()


def test_skopeo_copies_a_layout(bundle, tmp_path):
    program = require_program("skopeo")
    package(bundle, "oci", Wanted(out=tmp_path / "layout", name="net"))
    copy = [program, "copy", "--quiet", f"oci:{tmp_path}/layout:net", f"oci:{tmp_path}/copy:net"]
    subprocess.run(copy, check=True, capture_output=True)
    names = [{path.name for path in (tmp_path / one / "blobs" / "sha256").iterdir()} for one in ("layout", "copy")]
    assert names[0] == names[1]


@pytest.mark.parametrize("form", FORMS)
def test_a_failed_bundle_is_not_handed_over(bundle, tmp_path, form, capsys):
    change(bundle, verdict="failed", failed_because="parity: max error 3.1e-02, needs 1.0e-04")
    answer = run(capsys, "package", bundle, "--for", form, "-o", tmp_path / "out")
    assert_one_sentence(answer, 1, "failed a gate and is not handed over: parity")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", ["../up", "a/b", ".hidden", "späte", "x" * 129, "a b"])
def test_a_name_that_no_server_takes_is_told(bundle, tmp_path, form, name, capsys):
    answer = run(capsys, "package", bundle, "--for", form, "-o", tmp_path / "out", "--name", name)
    assert_one_sentence(answer, 2, "is no name for a model there", "--name")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("form", FORMS)
def test_a_damaged_bundle_is_not_handed_over(bundle, tmp_path, form, capsys):
    (bundle / "labels.txt").write_text("other\n", "utf-8")
    assert_one_sentence(run(capsys, "package", bundle, "--for", form, "-o", tmp_path / "out"), 3, "labels.txt")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("form", FORMS)
def test_a_file_in_the_place_of_the_folder_is_told(bundle, tmp_path, form, capsys):
    (tmp_path / "out").write_text("theirs", "utf-8")
    assert_one_sentence(run(capsys, "package", bundle, "--for", form, "-o", tmp_path / "out"), 4, "cannot be written")
    assert (tmp_path / "out").read_text("utf-8") == "theirs"


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (("B", "-o", "O"), 2, "--for"),
        (("B", "--for", "triton"), 2, "--out"),
        (("B", "--for", "nowhere", "-o", "O"), 2, "nowhere"),
        (("B", "B", "--for", "oci", "-o", "O", "--name", "x"), 2, "--name is for one bundle"),
        (("B", "--for", "oci", "-o", "O", "--base-path", "/x"), 2, "--base-path is for --for ovms"),
        (("absent", "--for", "oci", "-o", "O"), 3, "does not exist"),
    ],
)
def test_a_mistake_is_one_sentence(bundle, tmp_path, words, code, said, capsys):
    names = {"B": bundle, "O": tmp_path / "out"}
    assert_one_sentence(run(capsys, "package", *(names.get(word, word) for word in words)), code, said)


def test_a_server_that_would_compute_with_another_engine_is_told(tiny_bundle, tmp_path):
    with pytest.raises(gd.errors.UsageError, match="does not run onnx bundles with the engine that was proven"):
        package(tiny_bundle("onnx"), "ovms", Wanted(out=tmp_path / "out"))
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("form", FORMS)
def test_damaged_signatures_are_not_handed_over(bundle, tmp_path, form, capsys):
    (bundle / "signatures.json").write_text("no signatures", "utf-8")
    assert_one_sentence(run(capsys, "package", bundle, "--for", form, "-o", tmp_path / "out"), 3, "signatures.json")
