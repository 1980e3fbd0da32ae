"""The manifest is read strictly: what is missing, unknown or of the wrong type is one sentence."""

from __future__ import annotations

import json

import msgspec
import pytest

from ghostdeploy import targets
from ghostdeploy.bundle.fidelity import Fidelity, Measured, OutputFidelity
from ghostdeploy.bundle.manifest import (
    Accuracy,
    Agreement,
    Calibration,
    Estimate,
    Execution,
    HalfRange,
    Parity,
    Placement,
    PrecisionAchieved,
    Quantization,
    Tolerance,
    decode,
    encode,
)
from ghostdeploy.bundle.placement import PlacedOperator
from ghostdeploy.errors import BundleError
from tests.signing import sealed

HALF_RANGE = HalfRange(
    images=10,
    source="here",
    largest=30.0,
    where="add of blocks.8",
    headroom=2183.5,
    weight=9.9,
    weight_of="weight of blocks.7",
    vanishing=0,
)


@pytest.fixture
def data(tiny_bundle):
    return (tiny_bundle("onnx") / "manifest.json").read_bytes()


def changed(data, **fields):
    return sealed({**json.loads(data), **fields}).encode()


def test_what_was_written_is_read_back(data):
    manifest = decode(data, where="here")

    assert encode(manifest) == data
    assert data.endswith(b"}\n")


EXECUTION = Execution(isa="x86-64 AVX2", count=10, agreement=1.0, sqnr_db=None, saturable_channels=0, verdict="passed")


FIDELITY = Fidelity(
    source="here",
    count=10,
    outputs=(OutputFidelity(name="boxes", max_abs=0.1, cosine=0.99, sqnr_db=30.0),),
    required_sqnr_db=20.0,
    decision="boxes",
    decided=100,
    agreement=0.99,
    agreement_ci95=(0.98, 1.0),
    required_agreement=0.95,
    verdict="passed",
)
MEASURED = Measured(
    measure="map",
    figures={"map": 0.5, "map_50": None},
    reference_figures={"map": 0.5, "map_50": None},
    count=10,
    drop=0.0,
    drop_ci95=(-0.1, 0.1),
    max_drop=0.01,
    relative=False,
    verdict="passed",
)


SAID = {
    "placement": Placement(
        units={"NPU": 7, "CPU": 1},
        elsewhere=(PlacedOperator(name="sorted", operator="TOPK", unit="CPU"),),
        source="a compiler 1.0",
    ),
    "estimates": (Estimate(name="cycles", value=5178.0, unit="cycles", source="a compiler 1.0 for a chip"),),
}
JUDGED = {"execution": EXECUTION, "fidelity": FIDELITY, "measured": MEASURED}


def test_every_optional_record_survives_writing_and_reading(data):
    manifest = decode(data, where="here")
    tolerance = Tolerance(why="because", cosine=0.999)
    full = type(manifest)(
        **{name: getattr(manifest, name) for name in manifest.__struct_fields__}
        | {
            **SAID,
            "quantization": Quantization(
                scheme="int8",
                tool="nncf",
                calibration=Calibration(count=3, sha256="0"),
                float_layers=("stem",),
                float_by_rule=("gate",),
            ),
            "precision_achieved": PrecisionAchieved(int8_layers=2, float_layers=2, how="read", int8_mac_share=0.9),
            "parity": Parity(
                count=1,
                max_abs=1e-6,
                reference_max_abs=1.0,
                cosine=1.0,
                sqnr_db=None,
                top1_agreement=1.0,
                tolerance=tolerance,
                would_pass=tolerance,
                verdict="passed",
            ),
            "accuracy": Accuracy(
                top1=0.9,
                top5=1.0,
                count=10,
                reference_top1=0.9,
                drop=0.0,
                drop_ci95=(-0.1, 0.1),
                max_drop=0.01,
                verdict="passed",
                p_value=1.0,
                decided=False,
                how="simulated in float",
            ),
            "agreement": Agreement(
                source="here",
                count=10,
                top1=0.9,
                top1_ci95=(0.6, 1.0),
                sqnr_db=30.0,
                required=0.95,
                verdict="unverified",
            ),
            **JUDGED,
            "half_range": HALF_RANGE,
            "unverified_because": "too few",
            "failed_because": "too much",
            "batch_note": "one image at a time",
        }
    )

    read = decode(encode(full), where="here")

    assert msgspec.structs.replace(read, digest=full.digest) == full
    assert [name for name in read.__struct_fields__ if getattr(read, name) is None] == []


@pytest.mark.parametrize("target", [row.name for row in targets.TARGETS.values() if "int8" in row.precisions])
def test_the_records_of_a_quantized_bundle_are_read_back(tiny_bundle, target):
    written = (tiny_bundle(target, "int8") / "manifest.json").read_bytes()

    manifest = decode(written, where="here")

    assert encode(manifest) == written
    assert None not in (manifest.quantization, manifest.parity, manifest.agreement)


def test_a_manifest_without_the_fields_that_came_later_is_read(data):
    later = ("agreement", "execution", "failed_because", "unverified_because")
    document = {key: value for key, value in json.loads(data).items() if key not in later}
    del document["precision_achieved"]["int8_mac_share"]

    manifest = decode(sealed(document).encode(), where="here")

    assert (manifest.agreement, manifest.execution, manifest.precision_achieved.int8_mac_share) == (None, None, None)


@pytest.mark.parametrize("schema", [0, 2, 99])
def test_an_unknown_schema_is_refused_before_the_rest_is_read(data, schema):
    with pytest.raises(BundleError, match=f"here has schema {schema}, expected 1") as caught:
        decode(json.dumps({"schema": schema, "all": "new"}).encode(), where="here")

    assert "export again" in caught.value.hint


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"surprise": 1}, "surprise"),
        ({"name": 7}, r"\$\.name"),
        ({"precision": "fp8"}, r"\$\.precision"),
        ({"inputs": [{"name": "input"}]}, r"\$\.inputs"),
        ({"files": [{"path": "a", "bytes": "many", "sha256": ""}]}, r"\$\.files"),
        ({"verdict": "maybe"}, r"\$\.verdict"),
        ({"schema": "1"}, r"\$\.schema"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_an_unknown_field_or_a_wrong_type_is_named(data, fields, words):
    with pytest.raises(BundleError, match=f"here is not a valid manifest: .*{words}"):
        decode(changed(data, **fields), where="here")


def test_a_field_unknown_inside_a_record_is_named(data):
    model = {**json.loads(data)["model"], "colour": "blue"}

    with pytest.raises(BundleError, match=r"colour.*\$\.model"):
        decode(changed(data, model=model), where="here")


@pytest.mark.parametrize("name", ["name", "target", "inputs", "preprocess", "schema"])
def test_a_missing_field_is_named(data, name):
    rest = {key: value for key, value in json.loads(data).items() if key != name}

    with pytest.raises(BundleError, match=name):
        decode(json.dumps(rest).encode(), where="here")


@pytest.mark.parametrize(
    ("field", "value"), [("size", 0), ("size", 9000), ("crop_fraction", 0.0), ("std", [1, 0, 1])], ids=str
)
def test_a_preprocess_record_that_no_image_fits_is_refused(data, field, value):
    record = {**json.loads(data)["preprocess"], field: value}

    with pytest.raises(BundleError, match=f"{field} is"):
        decode(changed(data, preprocess=record), where="here")


@pytest.mark.parametrize(
    "text",
    [b"", b"hello", b"{", b"[]", b"null", b'{"schema": 1', b"\xff\xfe{}", '{"schema": 1}'.encode("utf-16")],
    ids=["empty", "words", "brace", "list", "null", "cut", "bytes", "utf-16"],
)
def test_what_is_no_manifest_is_refused(text):
    with pytest.raises(BundleError, match="here is not"):
        decode(text, where="here")


def test_text_that_is_not_utf_8_is_refused(data):
    broken = data.replace(b'"tiny"', b'"ti\xff\xfey"')

    with pytest.raises(BundleError, match="here is not"):
        decode(broken, where="here")


def test_nesting_without_end_is_refused():
    with pytest.raises(BundleError, match="here is not a valid manifest"):
        decode(b'{"schema": 1, "name": ' + b"[" * 100_000, where="here")
