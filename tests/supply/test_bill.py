"""The bill of materials: valid by the specification's own schema, and true to the manifest."""

import json
import shutil

import pytest
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator

from ghostdeploy.bundle.folder import open_bundle
from ghostdeploy.statistics import wilson
from ghostdeploy.supply.bill import bill
from tests.commands import assert_one_sentence, run
from tests.exported import int8_bundle


def assert_valid(document):
    found = JsonStrictValidator(SchemaVersion.V1_6).validate_str(json.dumps(document))
    assert found is None, found


@pytest.mark.parametrize("target", ["onnx", "openvino"])
@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_the_document_is_valid(tiny_bundle, target, precision):
    assert_valid(bill(open_bundle(tiny_bundle(target, precision))))


def test_every_figure_is_the_manifests(tmp_path_factory):
    bundle = open_bundle(int8_bundle(tmp_path_factory, "ghostnet_050", "onnx"))
    manifest, document = bundle.manifest, bill(bundle)
    assert_valid(document)
    card = document["metadata"]["component"]["modelCard"]
    metrics = {one["type"]: one for one in card["quantitativeAnalysis"]["performanceMetrics"]}
    low, high = wilson(round(manifest.accuracy.top1 * manifest.accuracy.count), manifest.accuracy.count)
    assert float(metrics["top-1 accuracy"]["value"]) == pytest.approx(manifest.accuracy.top1, rel=1e-5)
    interval = metrics["top-1 accuracy"]["confidenceInterval"]
    assert [float(interval["lowerBound"]), float(interval["upperBound"])] == pytest.approx([low, high], rel=1e-5)
    assert manifest.quantization.calibration.sha256 in card["modelParameters"]["datasets"][0]["name"]
    parts = {one["bom-ref"]: one for one in document["components"]}
    for record in manifest.files:
        assert parts[f"file:{record.path}"]["hashes"] == [{"alg": "SHA-256", "content": record.sha256}]
    assert parts["trained-model"]["hashes"][0]["content"] == manifest.model.weights_sha256
    for name, version in manifest.tools.items():
        made_by = [one for one in document["components"] if one["name"] == name and one.get("version") == version]
        assert name == "ghostdeploy" or made_by[0]["scope"] == "excluded"
    assert parts["engine-pkg:pypi/onnxruntime"]["scope"] == "required"
    needed = document["dependencies"][0]
    assert needed["ref"] == "bundle"
    assert "engine-pkg:pypi/onnxruntime" in needed["dependsOn"]
    assert not any(one.startswith("build-") for one in needed["dependsOn"])


def test_the_same_bundle_gives_the_same_bytes(tiny_bundle, tmp_path, capsys):
    bundle = tiny_bundle("onnx")
    answers = []
    for name in ("one", "two"):
        copy = shutil.copytree(bundle, tmp_path / name)
        answer = run(capsys, "sbom", copy, "-o", tmp_path / f"{name}.json")
        assert answer.code == 0, answer.err
        answers.append((tmp_path / f"{name}.json").read_bytes())
    assert answers[0] == answers[1]
    assert json.loads(answers[0]) == run(capsys, "sbom", bundle).document


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [(("absent",), 3, "does not exist"), (("B", "-o", "absent/x.json"), 4, "cannot be written"), ((), 2, "missing")],
)
def test_a_mistake_is_one_sentence(tiny_bundle, words, code, said, capsys):
    bundle = tiny_bundle("onnx")
    assert_one_sentence(run(capsys, "sbom", *(bundle if word == "B" else word for word in words)), code, said)
