"""The prepared graph must compute what the file computes; where it does not, this finds the step that changed it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from onnx import numpy_helper

from ghostdeploy.batches import Several
from ghostdeploy.deploy.intake.onnx import interface
from ghostdeploy.deploy.intake.onnx.fold_constants import RANDOM
from ghostdeploy.deploy.intake.onnx.opset import OPSET, opset_of, upgrade
from ghostdeploy.deploy.intake.onnx.reference import reason
from ghostdeploy.deploy.prove.tolerance import FLOAT32_RELATIVE_ERROR
from ghostdeploy.deploy.quantize.simulate import GraphRunner
from ghostdeploy.errors import CheckpointError, GhostDeployError, UsageError
from ghostdeploy.preprocess import pixels_text

if TYPE_CHECKING:
    from collections.abc import Sequence

    import onnx
    from numpy.typing import NDArray

    from ghostdeploy.batches import Batch
    from ghostdeploy.bundle.folder import Arrays
    from ghostdeploy.deploy.intake.onnx.model import OnnxModel


def require_same(shaped: onnx.ModelProto, golden: Batch, outputs: Arrays, batch: int | None, model: OnnxModel) -> None:
    """Checks that the graph computes the same after opset, batch and image size were written into it.

    Args:
        shaped: With those.
        golden: Golden inputs.
        outputs: What the reference gives for them.
        batch: Images per inference; None is free.
        model: As it was read.

    Raises:
        CheckpointError: It draws random numbers, or it is the opset, or the image size.
        UsageError: The batch is the reason: another one is fixed in the file, or images of a batch interact.
    """
    wanted = list(outputs.values())
    if (why := difference(shaped, golden, wanted)) is not None:
        raise _explained(why, golden, wanted, batch, model)


def difference(
    model: onnx.ModelProto, golden: Batch, wanted: Sequence[NDArray[Any]], *, pieces: int | None = None
) -> str | None:
    """Returns how a graph's outputs differ from those wanted, one phrase; None where they do not.

    Args:
        model: Any graph.
        golden: Inputs.
        wanted: Outputs in the graph's order.
        pieces: Images to give at a time; None gives all.
    """
    count = pieces or len(golden)
    try:
        runner = GraphRunner(model)
        parts = [runner(golden[start : start + count]) for start in range(0, len(golden), count)]
        got = [np.concatenate(column) for column in zip(*parts, strict=True)]
    except Exception as error:  # ONNX Runtime's errors are of a dozen classes under Exception
        return reason(error)
    for array, reference in zip(got, wanted, strict=True):
        if array.shape != reference.shape:
            return f"an output of shape {array.shape}, expected {reference.shape}"
        wide = reference.astype(np.float64)  # masks have no difference
        if not np.abs(array - wide).max(initial=0) <= FLOAT32_RELATIVE_ERROR * np.abs(wide).max(initial=0):
            return "different outputs"
    return None


def _explained(
    why: str, golden: Batch, wanted: list[NDArray[Any]], batch: int | None, model: OnnxModel
) -> GhostDeployError:
    """Returns the error that names the first step after which the outputs are others; chance comes before all."""
    name, found, own = model.name, opset_of(model.proto), interface.batch_of(model.proto)
    if (drawn := random_outputs(model.proto, golden)) is not None:
        return CheckpointError(
            f"{name} gives different outputs each time it runs{drawn}, expected the same for the same image",
            hint="export it in eval mode, without random numbers",
        )
    upgraded = upgrade(model.proto, name)
    if found < OPSET and (changed := difference(upgraded, golden, wanted)) is not None:
        return CheckpointError(
            f"{name} has opset {found} and gives {changed} when converted to {OPSET}",
            hint=f"export it again with opset {OPSET} or later",
        )
    if own is None and batch is not None and difference(model.proto, golden, wanted, pieces=batch) is not None:
        return UsageError(
            f"outputs of {name} depend on the other images in a batch: {len(golden)} images at a time and {batch} at a "
            f"time give different outputs",
            hint="export it in eval mode, without batch statistics",
        )
    sizes = interface.sizes_of(model.proto, golden)
    if own == batch or difference(interface.with_shape(upgraded, own, sizes), golden, wanted) is not None:
        said = f"images of {pixels_text(golden.shape[2:])} pixels" if not isinstance(golden, Several) else str(sizes)
        return CheckpointError(
            f"{name} gives {why} when it is fixed to {said}",
            hint="export it again with that size",
        )
    asked = "dynamic" if batch is None else str(batch)
    return UsageError(
        f"{name} was exported for batch {'any' if own is None else own} and fails with batch {asked}: {why}",
        hint=f"add --batch {own}" if own else "export it again with that batch",
    )


def random_outputs(model: onnx.ModelProto, golden: Batch) -> str | None:
    """Returns what makes two runs of a graph differ, ` (RandomNormal, …)`; None where they do not."""
    runner = GraphRunner(model)
    if all(np.array_equal(one, two) for one, two in zip(runner(golden), runner(golden), strict=True)):
        return None
    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    constants |= {node.output[0]: one.t for node in model.graph.node for one in node.attribute if one.name == "value"}
    found = []
    for node in model.graph.node:
        trained = constants.get(node.input[2]) if node.op_type == "Dropout" and len(node.input) > 2 else None
        if trained is not None and numpy_helper.to_array(trained).any():
            found.append("Dropout in training mode")
        elif node.op_type in RANDOM:
            found.append(node.op_type)
    return f" ({', '.join(dict.fromkeys(found))})" if found else ""
