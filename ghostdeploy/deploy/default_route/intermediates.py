"""What every module of the untouched PyTorch model reads, for the golden images of a bundle.

The model is that of the manifest, or the one that is given; it must give the bundle's golden outputs. Hooks note the
first input of each module that owns parameters, call by call. Batch normalisation and activations have been applied to
it by then, so it is what the layers of a folded graph read, whatever was fused.
"""

from __future__ import annotations

from collections import defaultdict
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from ghostdeploy.batches import as_batch
from ghostdeploy.deploy.default_route.comparison import float_images, name_model
from ghostdeploy.deploy.intake.pytorch.reference import Reference as Untouched
from ghostdeploy.deploy.prove.layerwise.live import Reference
from ghostdeploy.deploy.prove.parity import compare
from ghostdeploy.errors import BundleError

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray
    from torch import nn

    from ghostdeploy.batches import Batch
    from ghostdeploy.bundle.folder import Bundle

_HINT = "give the model it was exported from: --model MODEL, --weights FILE"


def model_reference(bundle: Bundle, model: str | None = None, weights: Path | None = None) -> Reference:
    """Returns the float model of a bundle, to hold the bundle against.

    Args:
        bundle: A manifest names its model, where that can be loaded without being told more.
        model: MODEL as on the command line.
        weights: Its checkpoint.

    Raises:
        BundleError: It is not the model of the bundle.
        UsageError: See `name_model`.
        GhostDeployError: See `load_model`.
    """
    loaded = name_model(bundle, model, weights).load()
    untouched = Untouched(loaded.module)
    inputs, golden = bundle.golden()
    ready = bundle.manifest.preprocess.ready
    arrays: Any = inputs if ready else {"image": float_images(next(iter(inputs.values())), bundle.manifest.preprocess)}
    batch = as_batch(arrays)
    _require_same(bundle, loaded.source, untouched, batch, golden)
    return Reference(f"the float model {loaded.source}", lambda count: read_by_modules(untouched, batch[:count]))


def read_by_modules(model: Untouched, batch: Batch) -> dict[str, list[NDArray[Any]]]:
    """Returns what each module with parameters of its own reads, call by call.

    Args:
        model: Run once.
        batch: Inputs.
    """
    found: dict[str, list[NDArray[Any]]] = defaultdict(list)

    def note(name: str, _: nn.Module, given: tuple[Any, ...]) -> None:
        if given and isinstance(given[0], torch.Tensor):
            found[name].append(np.array(given[0].detach().float().numpy()))

    own = (
        (name, one)
        for name, one in model.module.named_modules()
        if next(one.parameters(recurse=False), None) is not None
    )
    handles = [one.register_forward_pre_hook(partial(note, name)) for name, one in own]
    try:
        model.outputs(batch)
    finally:
        for handle in handles:
            handle.remove()
    return dict(found)


def _require_same(bundle: Bundle, source: str, model: Untouched, batch: Batch, golden: dict[str, Any]) -> None:
    outputs = model.outputs(batch)
    shapes = [[array.shape for array in arrays.values()] for arrays in (outputs, golden)]
    if shapes[0] == shapes[1]:
        found = compare(dict(zip(golden, outputs.values(), strict=True)), golden, "fp32")
        if found.verdict != "failed":
            return
    raise BundleError(f"{source} is not the model of {bundle.path}: its outputs are not the golden ones", hint=_HINT)
