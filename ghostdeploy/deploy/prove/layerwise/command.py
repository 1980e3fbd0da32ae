"""`diagnose`: what the quantizer recorded, and what the payload does here, in one document.

The reference is, in this order: the bundle or model that was given; the model that the manifest names, where it can be
loaded from that name; a float bundle of the same model in the same folder. Without one, only what was recorded is told.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from ghostdeploy import targets
from ghostdeploy.bundle.folder import MANIFEST, open_bundle
from ghostdeploy.deploy.prove import diagnose
from ghostdeploy.deploy.prove.layerwise.live import Opened, Reference, require_one_model
from ghostdeploy.deploy.prove.layerwise.records import Diagnosed
from ghostdeploy.errors import GhostDeployError, UsageError

if TYPE_CHECKING:
    import os
    from collections.abc import Callable

    from ghostdeploy.bundle.folder import Bundle
    from ghostdeploy.deploy.prove.layerwise.records import Live

    Referring = Callable[[Bundle], Reference | None]


def look(
    path: str | os.PathLike[str], *, other: str | os.PathLike[str] | None = None, given: Referring | None = None,
    known: Referring | None = None,
) -> Diagnosed:  # fmt: skip
    """Diagnoses a bundle, live where there is a reference.

    Args:
        path: The bundle.
        other: Another bundle of the same model.
        given: Returns the model that the caller named.
        known: Returns the model that the manifest names; None where it cannot be loaded.

    Raises:
        BundleError: Damaged; not of the model of the reference.
        UsageError: Nothing was recorded, and there is no reference; or the target shows nothing inside.
        GhostDeployError: The reference cannot be loaded, or see `Opened`.
    """
    bundle = open_bundle(path)
    recorded = diagnose.diagnose(path) if diagnose.is_measured(bundle.manifest) else None
    if other is not None or given is not None:
        opened = Opened(bundle)
        reference = _of_bundle(bundle, open_bundle(other)) if other is not None else (given or _nothing)(bundle)
        assert reference is not None  # what was named was loaded
        held = opened.against(reference)
        return Diagnosed(bundle=str(path), digest=bundle.manifest.digest, recorded=recorded, live=held)
    try:
        live, why = _unasked(bundle, known or _nothing), None
    except GhostDeployError as error:
        if recorded is None:
            raise
        live, why = None, error.message
    if live is None and recorded is None:
        raise UsageError(
            f"{path} is {bundle.manifest.precision}, and there is nothing to hold it against",
            hint=f"ghostdeploy diagnose {path} --model MODEL, or a second bundle of the model behind it",
        )
    if live is None and why is None:
        why = "there is nothing to hold the payload against: give --model MODEL, or a second bundle of the model"
    return Diagnosed(bundle=str(path), digest=bundle.manifest.digest, recorded=recorded, live=live, not_live=why)


def _unasked(bundle: Bundle, known: Referring) -> Live | None:
    """Compares with what is at hand; None where nothing is."""
    opened = Opened(bundle)
    reference = known(bundle)
    if reference is None and (near := float_neighbour(bundle)) is not None:
        reference = Opened(near).as_reference()
    return None if reference is None else opened.against(reference)


def _nothing(_: Bundle) -> Reference | None:
    return None


def _of_bundle(bundle: Bundle, other: Bundle) -> Reference:
    require_one_model(bundle, other)
    return Opened(other).as_reference()


def float_neighbour(bundle: Bundle) -> Bundle | None:
    """Returns a float32 bundle of the same model in the same folder, of the same target before others."""
    own = bundle.manifest
    found = []
    for folder in sorted(bundle.path.absolute().parent.iterdir()):
        if folder == bundle.path.absolute() or not _may_be(folder, own.model.name):
            continue
        try:
            one = open_bundle(folder)
            row = targets.find(one.manifest.target)
            if row.probe is None or targets.missing_for_run(row) or one.manifest.model != own.model:
                continue
            require_one_model(bundle, one)
        except GhostDeployError:  # damaged, or of another model: not a neighbour
            continue
        found.append(one)
    return min(found, key=lambda one: one.manifest.target != own.target, default=None)


def _may_be(folder: Any, model: str) -> bool:
    """Returns whether a folder's manifest says float32 and the model's name, without reading more of it."""
    try:
        document = json.loads((folder / MANIFEST).read_bytes())
        return bool(document["precision"] == "fp32" and document["model"]["name"] == model)
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return False
