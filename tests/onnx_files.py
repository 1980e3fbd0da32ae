"""ONNX files that somebody else might have written: the samples as torch exports them unfolded, and a small graph."""

from __future__ import annotations

import logging
import warnings
from typing import TYPE_CHECKING

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from ghostdeploy import samples
from tests.shared import shared_folder

if TYPE_CHECKING:
    from pathlib import Path

    import pytest

PREPROCESS = ("--mean", "0.286,0.286,0.286", "--std", "0.353,0.353,0.353", "--crop-fraction", "1.0")
"""What the sample models were trained with; no ONNX file says so."""
DATA = ("--data", samples.evaluation_set())
CALIB = ("--calib", samples.calibration_set())


def unfolded(factory: pytest.TempPathFactory, name: str) -> Path:
    """Returns a sample model as torch writes it when told to leave everything as it is; the batch is free."""
    with shared_folder(factory, "unfolded") as folder:
        path = folder / f"{name}.onnx"
        if not path.exists():
            path.write_bytes(_export(name).SerializeToString())
    return path


def _export(name: str) -> onnx.ModelProto:
    import torch

    from ghostdeploy.models.source import load_model

    model = load_model(f"sample:{name}")
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        exported = torch.onnx.export(
            model.module,
            (torch.zeros(2, 3, 64, 64),),
            dynamo=True,
            opset_version=18,
            input_names=["image"],
            output_names=["scores"],
            dynamic_shapes=({0: torch.export.Dim("batch")},),
            optimize=False,
            do_constant_folding=False,
            verbose=False,
        )
    proto: onnx.ModelProto = exported.model_proto
    return proto


def norm(name, channels, generator):
    """Returns the constants of a BatchNormalization."""
    arrays = {
        "weight": generator.uniform(0.5, 1.5, channels),
        "bias": generator.normal(size=channels),
        "running_mean": generator.normal(size=channels),
        "running_var": generator.uniform(0.5, 2, channels),
    }
    return {f"{name}.{key}": array for key, array in arrays.items()}


def small(*, batch="N", size=32, opset=18, dtype=TensorProto.FLOAT, inputs=("pixels",)):
    """Returns a graph with names and no-ops of its own and two outputs, the first the scores of 5 classes.

    Args:
        batch: Of the input: a number, or a name.
        size: Height and width, likewise.
        opset: Version of the operators.
        dtype: Of the input.
        inputs: Names of the inputs; only the first is read.
    """
    rng = np.random.default_rng(0)
    arrays = {
        "stem.conv.weight": rng.normal(size=(8, 3, 3, 3)) / 5,
        **norm("stem.bn", 8, rng),
        "wide.conv.weight": rng.normal(size=(8, 1, 3, 3)) / 3,
        "wide.conv.bias": rng.normal(size=8),
        **norm("wide.bn", 8, rng),
        "narrow.conv.weight": rng.normal(size=(8, 1, 1, 1)),
        **norm("narrow.bn", 8, rng),
        **norm("skip.bn", 8, rng),
        "head.weight": rng.normal(size=(5, 8)) / 3,
        **norm("head.bn", 5, rng),
    }

    def batch_norm(name, source, result):
        keys = [f"{name}.{key}" for key in ("weight", "bias", "running_mean", "running_var")]
        return helper.make_node("BatchNormalization", [source, *keys], [result], name=f"/{name}")

    def conv(names, result, **settings):
        return helper.make_node("Conv", names, [result], **settings)

    nodes = [
        helper.make_node("Identity", [inputs[0]], ["same"]),
        conv(["same", "stem.conv.weight"], "a", strides=[2, 2], pads=[1, 1, 1, 1]),
        batch_norm("stem.bn", "a", "b"),
        helper.make_node("Relu", ["b"], ["c"]),
        helper.make_node("Dropout", ["c"], ["d"]),
        conv(["d", "wide.conv.weight", "wide.conv.bias"], "e", group=8, pads=[1, 1, 1, 1]),
        batch_norm("wide.bn", "e", "f"),
        conv(["d", "narrow.conv.weight"], "g", group=8),
        batch_norm("narrow.bn", "g", "h"),
        batch_norm("skip.bn", "d", "i"),
        helper.make_node("Add", ["f", "h"], ["j"]),
        helper.make_node("Add", ["i", "j"], ["k"]),
        helper.make_node("Relu", ["k"], ["l"]),
        helper.make_node("Identity", ["l"], ["map"]),
        helper.make_node("GlobalAveragePool", ["l"], ["m"]),
        helper.make_node("Flatten", ["m"], ["n"]),
        helper.make_node("Gemm", ["n", "head.weight"], ["o"], transB=1),
        batch_norm("head.bn", "o", "scores"),
    ]
    graph = helper.make_graph(
        nodes,
        "small",
        [helper.make_tensor_value_info(name, dtype, [batch, 3, size, size]) for name in inputs],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in ("scores", "map")],
        [numpy_helper.from_array(array.astype(np.float32), name) for name, array in arrays.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)


def saved(model: onnx.ModelProto, path: Path) -> Path:
    """Writes a model and returns its path."""
    path.write_bytes(model.SerializeToString())
    return path


def weight(model, name):
    return next(tensor for tensor in model.graph.initializer if tensor.name == name)


def behind(model, *nodes, output="map"):
    """Puts nodes in front of an output; the last one writes it, and `inner` is what it was."""
    for node in model.graph.node:
        node.output[:] = ["inner" if name == output else name for name in node.output]
    model.graph.node.extend(nodes)
    return model
