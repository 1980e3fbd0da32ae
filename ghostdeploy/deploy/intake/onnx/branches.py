"""Resolves branches whose condition depends only on sizes, as TorchScript's exporter leaves them.

    If(c) { then, else }  →  then, where c is true for images of the size that is exported

`onnxsim` computes such conditions and inlines the branch; the result is compared with the file like every rewrite.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ghostdeploy.convert.graph.file import subgraphs
from ghostdeploy.deploy.intake.onnx.interface import with_shape
from ghostdeploy.errors import CheckpointError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import onnx


def decide(model: onnx.ModelProto, name: str, batch: int | None, sizes: Mapping[str, Sequence[int]]) -> onnx.ModelProto:
    """Returns the model without branches, itself where it has none.

    Args:
        model: As it was read.
        name: Of the model, for messages.
        batch: Images per inference; None is free.
        sizes: Of each input by name, without the batch.

    Raises:
        CheckpointError: A condition depends on the values of the image.
    """
    if not _branching(model):
        return model
    import onnxsim

    from ghostdeploy.convert.graph.simplify import WRONG

    try:
        found, _ = onnxsim.simplify(with_shape(model, batch, sizes), skipped_optimizers=WRONG)
    except Exception as error:  # its errors are of several unrelated classes
        first = next(iter(str(error).splitlines()), type(error).__name__)[:300]
        raise CheckpointError(f"{name} has branches that onnxsim cannot resolve: {first}", hint=_HINT) from error
    if left := _branching(found):
        raise CheckpointError(
            f"{name} has control flow: operator If{f' at node {left[0].name}' if left[0].name else ''} branches "
            f"on values that depend on the image, expected a plain graph",
            hint=_HINT,
        )
    return found


_HINT = "export the branch that inference takes as its own network"


def _branching(model: onnx.ModelProto) -> list[onnx.NodeProto]:
    return [node for node in model.graph.node if any(subgraphs(node))]
