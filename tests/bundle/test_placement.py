"""What a compiler says of a payload is part of its manifest, is shown, and is told from what was measured."""

from __future__ import annotations

import msgspec
import pytest

from ghostdeploy.bundle.folder import MANIFEST, open_bundle
from ghostdeploy.bundle.manifest import decode, encode
from ghostdeploy.terminal.making_tables import outside
from tests.bundle.test_manifest import SAID
from tests.commands import run


@pytest.fixture
def bundle(tiny_bundle):
    path = tiny_bundle("onnx")
    manifest = open_bundle(path).manifest
    (path / MANIFEST).write_bytes(encode(msgspec.structs.replace(manifest, **SAID)))
    return path


def test_a_manifest_without_them_is_read_as_before(tiny_bundle):
    data = (tiny_bundle("onnx") / MANIFEST).read_bytes()
    old = msgspec.json.decode(data)
    del old["placement"], old["estimates"], old["digest"]

    manifest = decode(msgspec.json.encode(old), where="here")

    assert (manifest.placement, manifest.estimates) == (None, ())


def test_inspect_shows_them_with_their_source(bundle, capsys):
    shown = " ".join(run(capsys, "inspect", bundle).out.split())

    assert "operators: 7 on NPU, 1 on CPU; by a compiler 1.0" in shown
    assert "on CPU TOPK sorted" in shown
    assert "cycles 5178 cycles; by a compiler 1.0 for a chip, not measured" in shown


def test_what_is_outside_the_accelerator_is_one_sentence(bundle):
    assert outside(open_bundle(bundle).manifest) == "1 operator runs outside the NPU: TOPK"
