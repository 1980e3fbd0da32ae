"""The quantizer's work as a whole: what goes back to float, and what is told of it."""

from __future__ import annotations

import json

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from ghostdeploy.convert.base import ExportJob
from ghostdeploy.deploy.quantize import quantization
from ghostdeploy.deploy.quantize.qdq_lint import Violation
from ghostdeploy.deploy.quantize.quantization import MARGIN_DB
from ghostdeploy.deploy.quantize.simulate import GraphRunner
from ghostdeploy.deploy.quantize.worker import QdqQuantization, Quantizer
from tests.recipes import RECIPES


def test_an_sqnr_that_is_just_reached_leaves_no_room_for_the_engine(floating, job):
    limits = {"values_judge": True, "required_agreement": None}
    reached = QdqQuantization(floating, job()).diagnosis().sqnr_db

    assert QdqQuantization(floating, job(**limits, required_db=reached - MARGIN_DB / 2)).float_units
    assert not QdqQuantization(floating, job(**limits, required_db=reached - 2 * MARGIN_DB)).float_units


def test_a_gate_that_holds_leaves_nothing_in_float(floating, job):
    work = QdqQuantization(floating, job())

    assert work.float_units == ()
    assert work.summary().float_layers == ()
    diagnosis = work.diagnosis()
    assert diagnosis.noise == "alone"
    assert diagnosis.sqnr_db > 25
    assert [layer.module for layer in diagnosis.layers if layer.role == "cheap"]
    ordered = [layer.sqnr_db for layer in diagnosis.layers]
    assert ordered == sorted(ordered)


@pytest.mark.parametrize("recipe", ["tensorrt", "openvino"])
def test_every_finished_graph_is_judged_by_the_rules_of_its_processor(floating, job, recipe):
    spec = job(recipe=RECIPES[recipe])
    work = QdqQuantization(floating, spec)

    assert work.lint() == ()

    scale = next(tensor for tensor in work.quantized.graph.initializer if tensor.name.endswith("_scale"))
    scale.CopyFrom(onnx.numpy_helper.from_array(-onnx.numpy_helper.to_array(scale), scale.name))
    assert {one.rule for one in work.lint()} >= {"positive-finite-scale"}


def test_a_broken_rule_stands_in_the_diagnosis(floating, job, monkeypatch, tmp_path):
    broken = Violation(rule="no-double-qdq", node="n", module="blocks.0", message="rounds twice")
    monkeypatch.setattr(QdqQuantization, "lint", lambda self: (broken,))
    onnx.save(floating, tmp_path / "float.onnx")
    files = {"source": str(tmp_path / "float.onnx"), "folder": str(tmp_path), "result": ""}
    names = {"input_names": ("input",), "output_names": ("logits",), "quantization": job()}

    Quantizer().export(ExportJob(**files, **names, precision="int8", dynamic_batch=True))

    notes = json.loads((tmp_path / "diagnosis.json").read_text())["notes"]
    assert "no-double-qdq at blocks.0: rounds twice" in notes


def test_a_missed_gate_returns_the_guilty_unit_to_float(floating, job, batches):
    """One layer gets a weight row with an outlier that leaves the others of the row no steps: it must be found."""
    broken = onnx.ModelProto()
    broken.CopyFrom(floating)
    constants = {tensor.name: tensor for tensor in broken.graph.initializer}
    head = next(node for node in broken.graph.node if node.name == "head")
    weight = numpy_helper.to_array(constants[head.input[1]]).copy()
    dead = 3  # the outlier multiplies a channel that carries next to nothing
    weight[:, dead] = 400.0 * np.abs(weight).max()
    constants[head.input[1]].CopyFrom(numpy_helper.from_array(weight, head.input[1]))
    expand = next(node for node in broken.graph.node if node.name == "expand")
    for name, value in zip(expand.input[1:], (0.0, -9.0), strict=True):  # a gate that stays closed
        tensor = numpy_helper.to_array(constants[name]).copy()
        tensor[dead] = value
        constants[name].CopyFrom(numpy_helper.from_array(tensor, name))
    bias = numpy_helper.to_array(constants[head.input[2]]) - GraphRunner(broken).logits(batches).mean(axis=0)
    constants[head.input[2]].CopyFrom(numpy_helper.from_array(bias, head.input[2]))  # the image decides, not the bias
    spec = job(reference=GraphRunner(broken).logits(batches), required_agreement=0.6)

    work = QdqQuantization(onnx.shape_inference.infer_shapes(broken), spec)

    assert work.float_units[0] == "head"
    assert work.gate.holds(work.gate_outputs)
    assert work.summary().float_layers[0] == "head"
    assert work.gains[0].unit == "head"


def test_cheap_layers_go_back_to_float_for_more_than_is_required(floating, job, monkeypatch):
    limits = {"values_judge": True, "required_agreement": None}
    reached = QdqQuantization(floating, job()).diagnosis().sqnr_db
    for share, aim, returned in ((0.15, reached + 0.3, True), (0.0, reached + 0.3, False), (0.15, 90.0, False)):
        monkeypatch.setattr(quantization, "AIM_DB", aim)
        monkeypatch.setattr(quantization, "AIM_IN_FLOAT", share)

        work = QdqQuantization(floating, job(**limits))

        assert bool(work.float_units) is returned
        assert (work.diagnosis().sqnr_db >= aim) is returned
        spent = sum(layer.macs for layer in work.layers if layer.unit in work.float_units)
        assert spent <= share * sum(layer.macs for layer in work.layers)


def test_where_decisions_judge_no_sqnr_is_aimed_at(floating, job, monkeypatch):
    monkeypatch.setattr(quantization, "AIM_DB", 90.0)

    assert not QdqQuantization(floating, job()).gains
