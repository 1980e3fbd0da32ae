"""Reads family, width and class count from the keys and shapes of a state dict.

The family shows in its module names, the class count in the classifier's shape, and the width is that of the zoo entry
whose keys and shapes agree best. A few missing or odd tensors do not hide a model: strict loading names them.

The header of a safetensors checkpoint may say more; all entries are optional, other keys are the writer's own:

    model        zoo name           must agree with keys and shapes
    num_classes  decimal number     must agree with the classifier
    preprocess   JSON of Preprocess replaces the zoo's
    labels       JSON list          names of the classes, in order
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import msgspec
import torch

from ghostdeploy.errors import CheckpointError
from ghostdeploy.models import build, find
from ghostdeploy.models.zoo import ZOO
from ghostdeploy.preprocess import Preprocess

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor

    from ghostdeploy.models.checkpoint import Checkpoint

AGREEMENT = 0.9
"""Share of an entry's tensors that must be in the state with their shapes for it to be that entry."""

# The first marker found decides: V3 also has V2's `short_conv`, and all have V1's `conv_stem`.
_MARKERS = (
    ("ghostnet_v3", "_rpr_"),
    ("repghost", ".fusion_bn."),
    ("ghostnet_v2", ".short_conv."),
    ("ghostnet", "conv_stem."),
    ("g_ghost_regnet", ".base.conv1."),
    ("ghost_resnet", "layer1.0.conv1.primary_conv."),
    ("ghost_vgg", "features.0.primary_conv."),
)
_CLASSIFIERS = ("classifier.weight", "fc.weight", "classifier.3.weight")


@dataclass(frozen=True)
class Identity:
    """What a state dict belongs to."""

    name: str
    """Zoo name."""
    family: str
    num_classes: int

    def __str__(self) -> str:
        return f"{self.name} with {self.num_classes} classes"


def identify(state: Mapping[str, Tensor], *, source: str = "the checkpoint") -> Identity:
    """Finds the zoo entry that a state dict was saved from.

    Args:
        state: Tensors by key in the zoo's layout (see `keymaps.canonicalise`); tensors on the meta device will do.
        source: What the state is called in messages.

    Raises:
        CheckpointError: No entry fits.
    """
    hint = "name the network: --weights FILE beside a MODEL such as package.module:factory or path/file.py:factory"
    if _is_folded(state):
        raise CheckpointError(
            f"{source} holds a network in folded (deploy) form, expected the training form",
            hint="use the checkpoint from before the conversion",
        )
    family = next((family for family, marker in _MARKERS if any(marker in key for key in state)), None)
    unknown = f"{source} fits no network in the zoo ({len(state)} tensors, the first is {next(iter(state), 'none')})"
    if family is None:
        raise CheckpointError(unknown, hint=hint)
    key = next((key for key in _CLASSIFIERS if key in state and state[key].ndim == 2), None)
    if key is None:
        raise CheckpointError(f"{source} looks like {family} but lacks the classifier's weight", hint=hint)
    num_classes = state[key].shape[0]
    shapes = {key: tuple(value.shape) for key, value in state.items()}
    scores = {
        entry.name: _agreement(shapes, entry.name, num_classes) for entry in ZOO.values() if entry.family == family
    }
    best = max(scores, key=lambda name: scores[name])
    if scores[best] < AGREEMENT:
        named = len(_shapes(best, num_classes).keys() & shapes.keys()) / len(_shapes(best, num_classes))
        if named < AGREEMENT:
            raise CheckpointError(unknown, hint=hint)
        raise CheckpointError(f"{source} is {family} of a width that is not in the zoo, nearest is {best}", hint=hint)
    return Identity(best, family, num_classes)


def _is_folded(state: Mapping[str, Tensor]) -> bool:
    """Says whether branches were merged already: the cheap operation has a bias, or lost its index."""
    return any(
        key.endswith(("cheap_operation.0.bias", "cheap_operation.bias", "primary_conv.0.bias")) for key in state
    ) and not any("running_var" in key and ".cheap_operation." in key for key in state)


def _agreement(shapes: dict[str, tuple[int, ...]], name: str, num_classes: int) -> float:
    expected = _shapes(name, num_classes)
    return sum(shapes.get(key) == shape for key, shape in expected.items()) / len(expected)


@lru_cache(maxsize=64)
def _shapes(name: str, num_classes: int) -> dict[str, tuple[int, ...]]:
    with torch.device("meta"):
        state = build(find(name), num_classes).state_dict()
    return {key: tuple(value.shape) for key, value in state.items() if not key.endswith("num_batches_tracked")}


def check_identity(checkpoint: Checkpoint, found: Identity) -> None:
    """Compares the header with the tensors.

    Raises:
        CheckpointError: The header names another model or class count.
    """
    for key, value in (("model", found.name), ("num_classes", str(found.num_classes))):
        if checkpoint.metadata.get(key, value) != value:
            raise CheckpointError(
                f"checkpoint {checkpoint.path} has {key} {checkpoint.metadata[key]} in its header and contains {found}",
                hint="header and weights do not match: save both again",
            )


def read_header(checkpoint: Checkpoint, num_classes: int | None) -> tuple[Preprocess | None, list[str] | None]:
    """Decodes preprocessing and labels; each is `None` where the header has none.

    Args:
        checkpoint: A checkpoint of any kind; only safetensors files have a header.
        num_classes: Classes of the model, where known.

    Raises:
        CheckpointError: The header is damaged, or has another number of labels than classes.
    """
    preprocess = _decode(checkpoint, "preprocess", Preprocess)
    labels = _decode(checkpoint, "labels", list[str])
    if labels is not None and num_classes is not None and len(labels) != num_classes:
        raise CheckpointError(
            f"checkpoint {checkpoint.path} names {len(labels)} labels in its header and has {num_classes} classes"
        )
    return preprocess, labels


def _decode(checkpoint: Checkpoint, key: str, kind: Any) -> Any:
    if key not in checkpoint.metadata:
        return None
    try:
        return msgspec.json.decode(checkpoint.metadata[key], type=kind)
    except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
        raise CheckpointError(f"checkpoint {checkpoint.path} has a damaged header: {key}: {error}") from error
