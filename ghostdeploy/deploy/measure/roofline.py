"""How fast an artefact could be here: the roofline of its layers (Williams, Waterman, Patterson 2009).

For layers l with their multiply-accumulates, weights and activations (see `layer_costs`), the rates of
`machine_rates`, and W = Σ weights + the largest activations, what a run of calls keeps touching:

    limit = Σ_l max( MACs_l / rate ,  weights_l / bandwidth(W)  +  activations_l / bandwidth(activations_l) )

Weights come from wherever W fits, a cache or memory; activations were written a moment ago and come from where they
fit. It is the limit of float32 arithmetic: an INT8 artefact on a processor with dot-product instructions may go beyond.
Where a payload cannot be read layer by layer (no `onnx` package on a device) the whole graph counts as one layer, with
the manifest's MACs and the size of the payload; that limit is lower.
"""

from __future__ import annotations

from math import ceil
from typing import TYPE_CHECKING

import numpy as np

from ghostdeploy import targets
from ghostdeploy.bundle.folder import open_bundle
from ghostdeploy.bundle.manifest import Record
from ghostdeploy.errors import MissingDependency
from ghostdeploy.layer_costs import LayerCost

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from ghostdeploy.bundle.folder import Bundle
    from ghostdeploy.deploy.measure.machine_rates import Rates


class Limit(Record, frozen=True, kw_only=True):
    """The limit of one artefact for one call."""

    limit_ms: float
    macs: int
    weight_bytes: int
    activation_bytes: int
    layers: int
    """Layers that were summed; 1 where the graph could not be read."""
    compute_share: float
    """Share of the limit in layers bound by arithmetic; the rest is bound by bytes."""


def limit_of(path: Path, batch: int, rates: Rates) -> Limit:
    """Returns the limit of a bundle for a call with `batch` images.

    Raises:
        BundleError: It is damaged.
    """
    bundle = open_bundle(path, check_hashes=False)
    own = bundle.manifest.inputs[0].shape[0] or batch
    return limit(costs_of(bundle, own), rates, calls=ceil(batch / own))


def costs_of(bundle: Bundle, batch: int) -> list[LayerCost]:
    """Returns the layers of a bundle's payload for one call of the engine with `batch` images."""
    row = targets.find(bundle.manifest.target)
    found: list[LayerCost] = []
    if row.costs is not None:
        try:
            found = targets.resolve(row.costs, requirement=row.export_requirement)(bundle, batch)
        except MissingDependency:  # a device without the package that reads the file
            found = []
    return found or [_whole(bundle, batch)]


def limit(costs: Sequence[LayerCost], rates: Rates, *, calls: int = 1) -> Limit:
    """Returns the limit of layers.

    Args:
        costs: Of one call of the engine.
        rates: The machine's.
        calls: Calls of the engine that one call of the user makes.
    """
    touched = sum(one.weight_bytes for one in costs) + max(one.activation_bytes for one in costs)
    total = bound = 0.0
    for one in costs:
        arithmetic = one.macs / rates.macs_per_second
        moving = one.weight_bytes / rates.bandwidth(touched)
        moving += one.activation_bytes / rates.bandwidth(one.activation_bytes)
        total += max(arithmetic, moving)
        bound += arithmetic if arithmetic >= moving else 0.0
    return Limit(
        limit_ms=1e3 * calls * total,
        macs=calls * sum(one.macs for one in costs),
        weight_bytes=sum(one.weight_bytes for one in costs),
        activation_bytes=calls * sum(one.activation_bytes for one in costs),
        layers=len(costs),
        compute_share=bound / total,
    )


def _whole(bundle: Bundle, batch: int) -> LayerCost:
    manifest = bundle.manifest
    sizes = [
        np.dtype(spec.dtype).itemsize * int(np.prod([batch if size is None else size for size in spec.shape]))
        for spec in (*manifest.inputs, *manifest.outputs)
    ]
    return LayerCost(
        name=manifest.name,
        macs=batch * manifest.model.macs,
        weight_bytes=bundle.size,
        activation_bytes=sum(sizes),
    )
