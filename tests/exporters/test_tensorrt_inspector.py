"""What an engine really computes in, read from the inspector's JSON in the forms of releases 10 and 11."""

from __future__ import annotations

import pytest

from ghostdeploy.exporters.tensorrt.build import PrecisionMissing, found_layers, precision_of, require_precision
from ghostdeploy.nvidia import kit

NAMES = ("stem", "blocks.0.conv.1", "blocks.0.conv.10", "blocks.0.conv.1#2", "fc")


def layer(name, kind="CaskConvolution", metadata="", **tensor):
    return {"Name": name, "LayerType": kind, "Metadata": metadata, "Inputs": [{"Name": "x", **tensor}], "Outputs": []}


def spec(**precisions):
    layers = {
        name: kit.LayerSpec(kind="Gemm" if name == "fc" else "Conv", precision=precision, macs=100)
        for name, precision in precisions.items()
    }
    return kit.KitSpec(precision="int8", float_part="fp16", tf32=True, layers=layers)


def engine(**found):
    return kit.EngineRecord(
        file="engines/plan-sm90.engine",
        library="tensorrt",
        version="11.1.0",
        compute_capability="90",
        system="linux-x86_64",
        layers=found,
    )


@pytest.mark.parametrize(
    ("text", "precision"),
    [
        ({"Format/Datatype": "Thirty-two wide channel vectorized row major Int8 format."}, "int8"),
        ({"Format/Datatype": "Two wide channel vectorized row major FP16 format"}, "fp16"),
        ({"Format/Datatype": "Row major linear FP32"}, "fp32"),
        ({"Format/Datatype": "Half"}, "fp16"),
        ({"Format/DataType": "Int8"}, "int8"),
        ({"DataType": "Float", "Format": "Row major linear FP32 format (kLINEAR)"}, "fp32"),
        ({"Format": "Row major linear FP16 format (kLINEAR)"}, "fp16"),
    ],
)
def test_the_type_of_the_data_is_read_in_every_spelling(text, precision):
    assert found_layers(["stem"], [layer("stem", **text)]) == {"stem": precision}


@pytest.mark.parametrize("text", [{"Format/Datatype": "N/A due to dynamic shapes"}, {}])
def test_a_type_that_is_not_told_is_not_made_up(text):
    assert found_layers(["stem"], [layer("stem", **text)]) == {}


def test_fused_layers_are_found_by_whole_names_only():
    inspected = [
        layer("stem + node_relu", DataType="Int8"),
        layer("blocks.0.conv.10 + node_relu_1", DataType="Half"),
        layer(
            "__myl_Conv_0x12", metadata="[ONNX Layer: blocks.0.conv.1#2]\x1e[ONNX Layer: node_add]", DataType="Float"
        ),
    ]

    assert found_layers(NAMES, inspected) == {"stem": "int8", "blocks.0.conv.10": "fp16", "blocks.0.conv.1#2": "fp32"}


def test_layers_that_move_data_do_not_speak_for_the_layer_they_serve():
    inspected = [
        layer("fc", "Reformat", DataType="Float"),
        layer("Reformatting CopyNode for Input Tensor 0 to stem + fc", "NoOp", DataType="Float"),
        layer("fc", "CaskGemmConvolution", DataType="Int8"),
    ]

    assert found_layers(NAMES, inspected) == {"fc": "int8"}


def test_counts_and_share_come_from_the_engine_when_there_is_one():
    achieved = precision_of(spec(stem="int8", fc="int8", head="int8"), {"stem": "int8", "fc": "int8", "head": "fp16"})

    assert (achieved.int8_layers, achieved.float_layers, achieved.int8_mac_share) == (2, 1, 0.5)  # fc is no convolution
    assert "2 int8, 1 fp16 layers, read from the engine by its inspector" in achieved.how


def test_a_layer_that_the_engine_does_not_name_counts_as_nothing():
    achieved = precision_of(spec(stem="int8", head="int8"), {"stem": "int8"})

    assert (achieved.int8_layers, achieved.int8_mac_share) == (1, 0.5)
    assert "1 not named by the engine" in achieved.how


def test_an_engine_with_what_was_asked_for_passes():
    asked = spec(a="int8", b="int8", c="int8", d="int8", e="int8", gate="fp16")

    require_precision(asked, engine(a="int8", b="int8", c="int8", d="int8", e="fp16", gate="fp16"))


@pytest.mark.parametrize("wanted", ["int8", "fp16"])
def test_an_engine_that_fell_back_in_silence_is_refused_with_the_layers_named(wanted):
    asked = spec(a=wanted, b=wanted, c="fp32")

    with pytest.raises(PrecisionMissing, match=rf"does 50% of the work asked for in {wanted}, expected 80%: b fp32"):
        require_precision(asked, engine(a=wanted, b="fp32", c="fp32"))


def test_an_engine_that_names_no_layer_is_refused():
    with pytest.raises(PrecisionMissing, match="a not named, b not named"):
        require_precision(spec(a="int8", b="int8"), engine())
