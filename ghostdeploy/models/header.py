"""What the header of a safetensors checkpoint says about the model, beside its tensors.

    model        zoo name           must agree with keys and shapes
    num_classes  decimal number     must agree with the classifier
    preprocess   JSON of Preprocess replaces the zoo's
    labels       JSON list          names of the classes, in order

All are optional; other keys are the writer's own.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from ghostdeploy.errors import CheckpointError
from ghostdeploy.preprocess import Preprocess

if TYPE_CHECKING:
    from ghostdeploy.models.checkpoint import Checkpoint
    from ghostdeploy.models.identify import Identity


def check_identity(checkpoint: Checkpoint, found: Identity) -> None:
    """Compares the header with what the tensors are.

    Raises:
        CheckpointError: The header names another model or class count.
    """
    for key, value in (("model", found.name), ("num_classes", str(found.num_classes))):
        if checkpoint.metadata.get(key, value) != value:
            raise CheckpointError(
                f"checkpoint {checkpoint.path} says {key} {checkpoint.metadata[key]} in its header and holds {found}",
                hint="the file was put together wrongly; save weights and header again",
            )


def read_header(checkpoint: Checkpoint, num_classes: int | None) -> tuple[Preprocess | None, list[str] | None]:
    """Decodes preprocessing and labels; each is `None` where the header does not say.

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
