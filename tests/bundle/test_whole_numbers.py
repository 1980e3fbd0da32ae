"""Whole numbers beyond 64 bits are refused wherever a record is read, before anything converts them."""

from __future__ import annotations

import json

import pytest

from ghostdeploy.bundle.whole_numbers import refuse_huge
from ghostdeploy.errors import BundleError
from tests.bundles import make_bundle
from tests.commands import assert_one_sentence, run
from tests.signing import sealed, sign_again

HUGE = 10**400


@pytest.mark.parametrize("command", ["inspect", "verify", "bench"])
@pytest.mark.parametrize("key", ["params", "macs"])
def test_a_manifest_is_refused_with_the_key(tmp_path, capsys, command, key):
    folder = make_bundle(tmp_path, "onnx")
    document = json.loads((folder / "manifest.json").read_text())
    document["model"][key] = HUGE
    (folder / "manifest.json").write_text(sealed(document))

    assert_one_sentence(run(capsys, command, folder), 3, f"manifest.json has a number beyond 64 bits at model.{key}")


def test_a_diagnosis_is_refused(tmp_path, capsys):
    folder = make_bundle(tmp_path, "onnx", precision="int8")
    document = json.loads((folder / "diagnosis.json").read_text())
    (folder / "diagnosis.json").write_text(json.dumps(document | {"images": HUGE}))
    sign_again(folder)

    assert_one_sentence(run(capsys, "diagnose", folder), 3, "diagnosis.json has a number beyond 64 bits at images")


@pytest.mark.parametrize("number", [2**63 - 1, -(2**63) + 1, 0, 1e300, True, "9" * 30])
def test_other_values_pass(number):
    refuse_huge(json.dumps({"a": [{"b": number}]}).encode(), where="here")


def test_the_key_leads_to_the_number():
    with pytest.raises(BundleError, match=r"here has a number beyond 64 bits at a\.1\.b"):
        refuse_huge(json.dumps({"a": [0, {"b": HUGE}]}).encode(), where="here")
