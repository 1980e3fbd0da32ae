"""Equalized weights on their way from the PyTorch graph into the exported one.

Equalization changes weights and biases and nothing else, so the float graph is exported once and each strength is a set
of arrays, one pair per layer in the order in which both graphs call them. A set is used only if the graph gives the
same outputs with it, to float32 rounding: that proves the order as well.
"""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

import numpy as np
from onnx import numpy_helper

from ghostdeploy.convert.graph.index import OnnxGraph
from ghostdeploy.deploy.prove.tolerance import FLOAT32_RELATIVE_ERROR
from ghostdeploy.deploy.quantize.recipe import weight_key
from ghostdeploy.deploy.quantize.simulate import GraphRunner

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    import onnx

    from ghostdeploy.batches import Batch
    from ghostdeploy.bundle.folder import Arrays


def read(path: Path, plain: onnx.ModelProto, images: Sequence[Batch]) -> tuple[dict[float, onnx.ModelProto], list[str]]:
    """Returns the float graph with each set of weights, by strength, and why sets were left out.

    Args:
        path: What `ghostdeploy.deploy.quantize.condition.equalize_all` wrote.
        plain: The float graph as exported, strength 0.
        images: Model inputs for the proof.
    """
    found, notes = {0.0: plain}, []
    runner = GraphRunner(plain, fused=True)
    wanted = runner.collect(images, runner.outputs)
    with np.load(path, allow_pickle=False) as archive:
        for strength in archive["strengths"].tolist():
            changed = _with_weights(plain, archive, strength)
            if changed is None:
                notes.append(f"skipped equalization of strength {strength:g}: the exported graph has other layers")
                continue
            error = largest_error(GraphRunner(changed, fused=True).collect(images, wanted), wanted)
            if error <= FLOAT32_RELATIVE_ERROR:
                found[strength] = changed
            else:
                notes.append(f"skipped equalization of strength {strength:g}: it changes the outputs by {error:.1e}")
    return found, notes


def largest_error(got: Arrays, wanted: Arrays) -> float:
    """Returns the largest error over the largest value, of the output where that is worst."""
    pairs = [(np.asarray(got[name], np.float64), np.asarray(array, np.float64)) for name, array in wanted.items()]
    return max(float(np.abs(ours - own).max() / (np.abs(own).max() or 1.0)) for ours, own in pairs)


def _with_weights(plain: onnx.ModelProto, archive: Any, strength: float) -> onnx.ModelProto | None:
    model = copy.deepcopy(plain)
    graph = OnnxGraph(model)
    layers = graph.layers()
    if (
        weight_key(strength, len(layers), "weight") in archive
        or weight_key(strength, len(layers) - 1, "weight") not in archive
    ):
        return None
    for index, node in enumerate(layers):
        for place, kind in ((1, "weight"), (2, "bias")):
            if len(node.input) <= place:
                continue
            tensor = graph.constants.get(node.input[place])
            array = archive[weight_key(strength, index, kind)]
            if tensor is None or list(tensor.dims) != list(array.shape):
                return None
            tensor.CopyFrom(numpy_helper.from_array(np.ascontiguousarray(array), tensor.name))
    return model
