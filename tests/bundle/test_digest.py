"""The digest of a manifest: whatever is changed in it is found, by every command, and nothing else is."""

from __future__ import annotations

import hashlib
import json
import shutil

import numpy as np
import pytest

import ghostdeploy as gd
from ghostdeploy.bundle.folder import open_bundle
from ghostdeploy.bundle.manifest import decode, encode
from ghostdeploy.errors import BundleError
from tests.commands import assert_one_sentence, run


@pytest.fixture
def bundle(tiny_bundle, tmp_path):
    """A bundle of one's own."""
    copy = tmp_path / "bundle"
    shutil.copytree(tiny_bundle("onnx"), copy)
    return copy


def change(bundle, **fields):
    """Writes other fields into a manifest, as an editor does."""
    path = bundle / "manifest.json"
    path.write_text(json.dumps(json.loads(path.read_text("utf-8")) | fields), "utf-8")


def test_it_is_the_sha256_of_the_json_that_the_documentation_names(bundle):
    document = json.loads((bundle / "manifest.json").read_text("utf-8"))
    digest = document.pop("digest")

    text = json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=False)

    assert hashlib.sha256(text.encode()).hexdigest() == digest


def test_reading_and_writing_keep_it(bundle):
    data = (bundle / "manifest.json").read_bytes()

    assert encode(decode(data, where="here")) == data


def test_white_space_and_order_of_fields_are_no_change(bundle):
    path = bundle / "manifest.json"
    document = json.loads(path.read_text("utf-8"))
    path.write_text(json.dumps(dict(reversed(document.items())), indent=7), "utf-8")

    assert gd.verify(bundle).verdict == "passed"


CHANGES = [
    {"name": "another"},
    {"created": "2020-01-01T00:00:00+00:00"},
    {"verdict": "failed"},
    {"unverified_because": "x"},
    {"tools": {"ghostdeploy": "9.9"}},
    {"digest": "0" * 64},
    {"digest": ""},
]


@pytest.mark.parametrize("fields", CHANGES, ids=str)
def test_a_changed_field_is_found(bundle, fields):
    change(bundle, **fields)

    with pytest.raises(BundleError, match=r"manifest\.json was altered: its digest is [0-9a-f]{12}…, expected"):
        open_bundle(bundle)


def test_a_changed_number_deep_inside_is_found(bundle):
    document = json.loads((bundle / "manifest.json").read_text("utf-8"))
    change(bundle, preprocess=document["preprocess"] | {"mean": [0.485, 0.456, 0.4061]})

    with pytest.raises(BundleError, match="was altered"):
        open_bundle(bundle)


COMMANDS = [
    "verify {}",
    "inspect {}",
    "run {} {}/image.png",
    "eval {} --data {}/../set.npz",
    "bench {}",
    "diagnose {}",
    "build {}",
]


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_that_opens_a_bundle_refuses_a_changed_manifest(bundle, command, capsys):
    change(bundle, name="another")
    images = np.random.default_rng(0).integers(0, 256, (8, 20, 20, 3), np.uint8)
    np.savez(bundle.parent / "set.npz", images=images, labels=np.arange(8))

    assert_one_sentence(run(capsys, *command.replace("{}", str(bundle)).split()), 3, "was altered")


def test_a_manifest_of_before_has_no_digest_and_is_read(bundle):
    path = bundle / "manifest.json"
    document = json.loads(path.read_text("utf-8"))
    del document["digest"]
    path.write_text(json.dumps(document), "utf-8")

    assert open_bundle(bundle).manifest.digest is None
    assert gd.verify(bundle).verdict == "passed"


def test_the_bundle_that_export_returns_has_the_digest_of_its_file(tmp_path):
    exported = gd.export(target="onnx", out=tmp_path)

    assert exported.manifest == open_bundle(exported.path).manifest
    assert exported.manifest.digest is not None
