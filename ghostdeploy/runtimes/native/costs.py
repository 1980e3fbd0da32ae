"""Costs of a compiled network: its plan has them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ghostdeploy.layer_costs import LayerCost
from ghostdeploy.runtimes.native import program

if TYPE_CHECKING:
    from ghostdeploy.bundle.folder import Bundle


def read_costs(bundle: Bundle, batch: int) -> list[LayerCost]:
    """Returns the costs of all layers with weights.

    Args:
        bundle: Holds the file.
        batch: Images per call.
    """
    return [
        LayerCost(
            name=step.name,
            macs=step.macs * batch,
            weight_bytes=step.weight_bytes,
            activation_bytes=step.activation_bytes * batch,
        )
        for step in program.read(bundle.read(bundle.manifest.payload)).steps
        if step.bits
    ]
