"""`--dry-run` finds what an export would refuse before its first conversion, and writes nothing."""

from __future__ import annotations

import json

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from tests.commands import assert_one_sentence, run

NETS = """
import torch
from torch import nn

class Plain(nn.Module):
    def __init__(self):
        super().__init__()
        self.head = nn.Linear(3, 4)

    def forward(self, x):
        return self.head(x.mean((2, 3)))

class Chooses(Plain):
    def forward(self, x):
        y = super().forward(x)
        return y * 2 if y.sum() > 0 else y

class Narrow(Plain):
    def forward(self, x):
        return super().forward(x[:, :2])
"""


@pytest.fixture
def nets(tmp_path):
    (tmp_path / "nets.py").write_text(NETS)
    return tmp_path / "nets.py"


def plan(capsys, model, tmp_path, *options):
    answer = run(capsys, "export", model, "-t", "onnx", "-o", tmp_path / "out", "--dry-run", *options)
    assert not (tmp_path / "out").exists()
    return answer


def labelled(folder, classes, images=None):
    images = np.random.default_rng(0).integers(0, 256, (20, 32, 32, 3), np.uint8) if images is None else images
    np.savez(folder / "set.npz", images=images, labels=np.arange(len(images)) % classes)
    return folder / "set.npz"


@pytest.mark.parametrize("batch", ["1", "dynamic"])
def test_control_flow_that_values_decide_is_found_in_a_module(batch, nets, tmp_path, capsys):
    answer = plan(capsys, f"{nets}:Chooses", tmp_path, "--image-size", 32, "--batch", batch)

    assert answer.code == 3
    said = next(line for line in answer.err.splitlines() if line.startswith("error: "))  # torch prints its graph before
    for words in ("cannot capture Chooses", "depend on tensor values", "nets.py, line"):
        assert words in said


def test_an_input_that_does_not_fit_is_found(nets, tmp_path, capsys):
    assert_one_sentence(plan(capsys, f"{nets}:Narrow", tmp_path, "--image-size", 32), 3, "cannot run on an input")


@pytest.mark.parametrize("kind", ["too many classes", "black"])
def test_images_that_do_not_fit_the_model_are_found(kind, nets, tmp_path, capsys):
    black = np.zeros((20, 32, 32, 3), np.uint8)
    data = labelled(tmp_path, 7) if kind == "too many classes" else labelled(tmp_path, 4, black)

    answer = plan(capsys, f"{nets}:Plain", tmp_path, "--image-size", 32, "--data", data)

    words = "labels 0 to 6, the model has 4" if kind == "too many classes" else "are between 0 and 0 of 255"
    assert_one_sentence(answer, 3, words)


def test_a_plan_is_printed_of_what_would_be_exported(nets, tmp_path, capsys):
    answer = plan(capsys, f"{nets}:Plain", tmp_path, "--image-size", 32, "--data", labelled(tmp_path, 4), "--batch", 3)

    assert answer.code == 0, answer.err
    assert "would export" in answer.out


def branching(path):
    """Writes a graph with an `If` whose condition is computed from the image."""
    value = helper.make_tensor_value_info
    branches = [
        helper.make_graph([helper.make_node(kind, ["mean"], [f"{kind}_out"])], kind, [], [
            value(f"{kind}_out", TensorProto.FLOAT, ["batch", 3])])
        for kind in ("Relu", "Neg")
    ]  # fmt: skip
    nodes = [
        helper.make_node("GlobalAveragePool", ["x"], ["pooled"]),
        helper.make_node("Flatten", ["pooled"], ["mean"]),
        helper.make_node("ReduceSum", ["mean"], ["sum"], keepdims=0),
        helper.make_node("Constant", [], ["zero"], value=helper.make_tensor("z", TensorProto.FLOAT, [], [0.0])),
        helper.make_node("Greater", ["sum", "zero"], ["positive"]),
        helper.make_node("If", ["positive"], ["y"], then_branch=branches[0], else_branch=branches[1]),
    ]
    given = value("x", TensorProto.FLOAT, ["batch", 3, 32, 32])
    graph = helper.make_graph(nodes, "g", [given], [value("y", TensorProto.FLOAT, ["batch", 3])])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10), path)
    return path


@pytest.mark.parametrize(("rows", "batch", "code"), [(1, "1", 0), (1, "dynamic", 3)], ids=["one row", "any batch"])
def test_an_output_that_the_image_does_not_reach_is_told_as_such(rows, batch, code, tmp_path, capsys):
    value, anchors = helper.make_tensor_value_info, np.ones((rows, 4), np.float32)
    nodes = [
        helper.make_node("GlobalAveragePool", ["x"], ["pooled"]),
        helper.make_node("Flatten", ["pooled"], ["y"]),
        helper.make_node("Neg", ["anchors"], ["priors"]),
    ]
    outputs = [value("y", TensorProto.FLOAT, ["batch", 3]), value("priors", TensorProto.FLOAT, [rows, 4])]
    given = [value("x", TensorProto.FLOAT, ["batch", 3, 32, 32])]
    graph = helper.make_graph(nodes, "g", given, outputs, [onnx.numpy_helper.from_array(anchors, "anchors")])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10), tmp_path / "n.onnx")

    answer = plan(capsys, tmp_path / "n.onnx", tmp_path, "--batch", batch)

    if code == 0:
        assert answer.code == 0, answer.err
    else:
        assert_one_sentence(answer, code, "output priors does not depend on the image", "--batch 1")


@pytest.mark.parametrize("batch", ["1", "dynamic"])
def test_control_flow_that_values_decide_is_found_in_an_onnx_file(batch, tmp_path, capsys):
    answer = plan(capsys, branching(tmp_path / "net.onnx"), tmp_path, "--batch", batch)

    assert_one_sentence(answer, 3, "has control flow", "operator If", "depend on the image")


def test_a_dry_run_of_a_sample_names_the_labelled_set_and_the_drop_of_its_task(tmp_path, capsys):
    words = ("export", "sample:ghost_pfld", "-t", "onnx", "--int8", "--dry-run", "--json", "-o", tmp_path)

    found = json.loads(run(capsys, *words).out)

    assert found["data"].endswith("landmarks.npz (200 images)")
    assert found["max_drop"] == 0.03
