"""Costs of the layers inside the delegates of an ExecuTorch program; neither torch nor ExecuTorch is needed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ghostdeploy.layer_costs import FLOAT_BYTES, LayerCost, layer_cost
from ghostdeploy.runtimes.executorch import contents

if TYPE_CHECKING:
    from ghostdeploy.bundle.folder import Bundle
    from ghostdeploy.runtimes.executorch.contents import DelegatedLayer


def read_costs(bundle: Bundle, batch: int) -> list[LayerCost]:
    """Returns the costs of all layers with weights inside delegates.

    Args:
        bundle: Holds the file.
        batch: Not used: the file has its own batch.
    """
    return [cost_of(layer) for layer in contents.read(bundle.read(bundle.manifest.payload)).layers]


def cost_of(layer: DelegatedLayer) -> LayerCost:
    """Returns the cost of a layer."""
    transposed = layer.kind == "ConvTranspose2d"
    shape = layer.weights.shape
    return layer_cost(
        layer.name,
        weights=shape,
        features=shape[-1] if transposed or layer.kind == "DepthwiseConv2d" else shape[0],
        data=layer.data.shape,
        output=layer.output.shape,
        weight_size=1 if layer.weights.kind == "int8" else FLOAT_BYTES,
        data_size=1 if layer.data.kind == "int8" else FLOAT_BYTES,
        transposed=transposed,
    )
