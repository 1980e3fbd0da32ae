"""Layers in the order of the network, and the one that is broken."""

from __future__ import annotations

import msgspec
import pytest

from ghostdeploy.bundle.folder import open_bundle
from ghostdeploy.deploy.prove.diagnose import Diagnosis, LayerNoise, diagnose
from ghostdeploy.deploy.report.blocks import block_of, in_order, worst
from tests.broken import MODULE


def _noise(module, db, **fields):
    shares = {"clipped": 0.0, "dead": 0.0} | fields
    return LayerNoise(module=module, role="convolution", unit=module, sqnr_db=db, **shares)


def _found(*layers):
    return Diagnosis(images=1, sqnr_db=30.0, agreement=1.0, layers=layers)


@pytest.fixture
def manifest(tiny):
    return open_bundle(tiny / "tiny-onnx-int8").manifest


@pytest.mark.parametrize(
    ("module", "block"),
    [
        ("blocks.6.3.ghost1.cheap_operation.0", "blocks.6.3"),
        ("blocks.9.0.conv", "blocks.9.0"),
        ("conv_stem", "conv_stem"),
        ("s2.b3.conv2.conv", "s2.b3"),
        ("classifier", "classifier"),
        ("features.12.weight", "features.12"),
    ],
)
def test_a_layer_knows_its_block(module, block):
    assert block_of(module) == block


def test_layers_stand_in_the_order_of_the_network(manifest):
    names = ["classifier", "blocks.10.0.conv", "blocks.2.0.conv", "conv_head", "conv_stem", "blocks.2.1.conv"]

    found = in_order(_found(*(_noise(name, 30.0) for name in names)), manifest)

    assert [one.module for one in found][:4] == ["conv_stem", "blocks.2.0.conv", "blocks.2.1.conv", "blocks.10.0.conv"]
    assert {one.module for one in found[4:]} == {"classifier", "conv_head"}


def test_float_layers_are_shown_with_their_reason(manifest):
    quantization = msgspec.structs.replace(manifest.quantization, float_layers=("b.1",), float_by_rule=("b.2",))

    found = in_order(
        _found(_noise("b.0", 30.0), _noise("b.1", 5.0)), msgspec.structs.replace(manifest, quantization=quantization)
    )

    assert [one.precision for one in found] == ["int8", "float: gate", "float: rule"]


def test_a_layer_that_went_back_to_float_is_not_to_blame(manifest):
    quantization = msgspec.structs.replace(manifest.quantization, float_layers=("b.1",))
    found = _found(_noise("b.0", 30.0), _noise("b.1", 5.0))

    assert worst(found, msgspec.structs.replace(manifest, quantization=quantization)).module == "b.0"


@pytest.mark.parametrize(
    ("fields", "flag"),
    [
        ({"clipped": 0.2}, "--calib DIR"),
        ({"dead": 0.9}, "--hybrid"),
        ({}, "--min-sqnr 31"),
        ({"db": -3.0}, "--force"),
    ],
)
def test_the_advice_names_the_flag_that_helps(manifest, fields, flag):
    db = fields.pop("db", 9.0)
    found = worst(_found(_noise("a", 30.0), _noise("b", 31.0), _noise("c", db, **fields)), manifest)

    assert (found.module, found.flag, found.stands_out) == ("c", flag, True)
    assert flag in found.command
    assert found.command.startswith("ghostdeploy export ")


def test_even_noise_accuses_nobody(manifest):
    assert not worst(_found(_noise("a", 30.0), _noise("b", 31.0), _noise("c", 29.0)), manifest).stands_out


def test_no_noise_has_no_worst_layer(manifest):
    assert worst(_found(_noise("a", None)), manifest) is None


def test_an_export_records_the_ranges_of_inputs(trained):
    layers = diagnose(trained[1]).layers

    assert layers
    assert all(one.input_range is not None and one.input_range[0] < one.input_range[1] for one in layers)


def test_the_planted_block_is_the_worst(trained):
    found = worst(diagnose(trained[2]), open_bundle(trained[2]).manifest)

    assert found.module == MODULE
    assert found.stands_out
