"""Weights beside an ONNX model: found wherever a tensor can be, read from its folder only, and part of its hash."""

from __future__ import annotations

import hashlib
import os

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from ghostdeploy.deploy.intake.onnx.external import read_external, tensors
from ghostdeploy.deploy.intake.onnx.model import open_onnx
from ghostdeploy.errors import CheckpointError
from tests.commands import assert_one_sentence, run

DATA = np.arange(4, dtype=np.float32)
PLACES = ("initializer", "attribute", "function", "branch", "branch initializer", "sparse", "training")


def constant(name):
    return helper.make_node("Constant", [], [name], value=numpy_helper.from_array(DATA, name))


def model():
    """A graph with a tensor in every place that has one."""
    imports = [helper.make_opsetid("", 18), helper.make_opsetid("own", 1)]
    value = helper.make_tensor_value_info
    body = [constant("function"), helper.make_node("Add", ["x", "function"], ["y"])]
    initial = [numpy_helper.from_array(DATA, "branch initializer")]
    branch = helper.make_graph([constant("branch")], "branch", [], [value("branch", 1, [4])], initial)
    nodes = [
        constant("attribute"),
        helper.make_node("Shift", ["x"], ["y"], domain="own"),
        helper.make_node("If", ["which"], ["z"], then_branch=branch, else_branch=branch),
    ]
    graph = helper.make_graph(
        nodes, "all", [value("x", 1, [4])], [value("y", 1, [4])], [numpy_helper.from_array(DATA, "initializer")]
    )
    sparse = graph.sparse_initializer.add()
    sparse.values.CopyFrom(numpy_helper.from_array(DATA, "sparse"))
    found = helper.make_model(graph, opset_imports=imports)
    found.functions.append(helper.make_function("own", "Shift", ["x"], ["y"], body, imports))
    found.training_info.add().initialization.initializer.append(numpy_helper.from_array(DATA, "training"))
    return found


def moved(place, location):
    """Returns the graph with the tensor of that place in another file."""
    found = model()
    for tensor in tensors(found):
        if tensor.name == place:
            onnx.external_data_helper.set_external_data(tensor, location)
            tensor.ClearField("raw_data")
    return found


def test_every_tensor_is_found():
    assert {tensor.name for tensor in tensors(model())} == set(PLACES)


@pytest.mark.parametrize("place", PLACES)
def test_weights_in_any_place_are_read_from_the_folder_of_the_file(place, tmp_path, monkeypatch):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "weights.bin").write_bytes(DATA.tobytes())
    (tmp_path / "elsewhere" / "weights.bin").write_bytes(bytes(16))
    monkeypatch.chdir(tmp_path / "elsewhere")
    proto = moved(place, "weights.bin")

    assert list(read_external(proto, tmp_path / "model.onnx")) == [DATA.tobytes()]
    for tensor in tensors(proto):
        np.testing.assert_array_equal(numpy_helper.to_array(tensor), DATA)


@pytest.mark.parametrize(
    "location", ["../weights.bin", "/etc/hostname", "link.bin", "folder/weights.bin", "fifo", "gone"]
)
@pytest.mark.parametrize("place", PLACES)
def test_weights_in_any_place_stay_in_that_folder(place, location, tmp_path):
    folder = tmp_path / "models"
    folder.mkdir()
    (tmp_path / "weights.bin").write_bytes(DATA.tobytes())
    (folder / "link.bin").symlink_to(tmp_path / "weights.bin")
    (folder / "folder").symlink_to(tmp_path)
    os.mkfifo(folder / "fifo")

    with pytest.raises(CheckpointError, match=r"outside its folder; refused|is a FIFO|not in its folder"):
        list(read_external(moved(place, location), folder / "model.onnx"))


def small():
    """A network of one layer."""
    weights = numpy_helper.from_array(np.ones((2, 3, 3, 3), np.float32), "weight")
    nodes = [
        helper.make_node("Conv", ["image", "weight"], ["maps"]),
        helper.make_node("GlobalAveragePool", ["maps"], ["pooled"]),
        helper.make_node("Flatten", ["pooled"], ["scores"]),
    ]
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        nodes, "small", [value("image", 1, [1, 3, 16, 16])], [value("scores", 1, [1, 2])], [weights]
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)


def test_the_hash_of_the_weights_is_that_of_the_file_and_of_all_beside_it(tmp_path):
    path = tmp_path / "small.onnx"
    onnx.save(small(), path, save_as_external_data=True, location="small.data", size_threshold=0)
    whole = hashlib.sha256(path.read_bytes() + (tmp_path / "small.data").read_bytes()).hexdigest()
    first = open_onnx(path).weights_sha256
    (tmp_path / "small.data").write_bytes(np.zeros((2, 3, 3, 3), np.float32).tobytes())

    assert first == whole != open_onnx(path).weights_sha256


@pytest.mark.parametrize("kind", ["FIFO", "folder", "device"])
def test_a_model_that_is_no_regular_file_is_refused_at_once(kind, tmp_path, capsys):
    path = tmp_path / "model.onnx"
    if kind == "FIFO":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    else:
        path.symlink_to("/dev/zero")

    answer = run(capsys, "export", path, "-t", "onnx", "-o", tmp_path / "out")

    assert_one_sentence(answer, 3, f"is a {kind}, expected a regular file")
