"""Options of `diagnose`: what a bundle is held against."""

from __future__ import annotations

from functools import partial
from importlib.util import find_spec
from typing import TYPE_CHECKING

from ghostdeploy import targets
from ghostdeploy.errors import BundleError, UsageError
from ghostdeploy.wheel import is_device_wheel, not_on_device

if TYPE_CHECKING:
    from pathlib import Path

    from ghostdeploy.bundle.folder import Bundle
    from ghostdeploy.deploy.prove.layerwise.live import Reference
    from ghostdeploy.deploy.prove.layerwise.records import Diagnosed


def diagnosed(
    bundle: Path, other: Path | None, *, recorded: bool, model: str | None, weights: Path | None
) -> Diagnosed:
    """Returns the diagnosis of a bundle against what the options name.

    Raises:
        UsageError: They contradict each other, or see `look`.
        GhostDeployError: See `look`.
    """
    from ghostdeploy.bundle.folder import open_bundle
    from ghostdeploy.deploy.prove.diagnose import diagnose
    from ghostdeploy.deploy.prove.layerwise.records import Diagnosed

    named = model is not None or weights is not None
    if sum((named, other is not None, recorded)) > 1:
        raise UsageError(
            "diagnose takes one reference: a second bundle, or --model and --weights, or --recorded for none",
            hint="leave out all but one of them",
        )
    if recorded or (is_device_wheel() and not named and other is None):
        why = "--recorded" if recorded else "this is the device wheel"
        digest = open_bundle(bundle, check_hashes=False).manifest.digest
        return Diagnosed(bundle=str(bundle), digest=digest, recorded=diagnose(bundle), live=None, not_live=why)
    if is_device_wheel():
        raise not_on_device("what holds a bundle against another")
    from ghostdeploy.deploy.prove.layerwise.command import look

    given = partial(_given, model=model, weights=weights) if named else None
    return look(bundle, other=other, given=given, known=_known)


def _given(bundle: Bundle, model: str | None, weights: Path | None) -> Reference:
    if targets.intake_of(model) is not None:
        raise UsageError(
            f"--model {model} is no PyTorch model: a file is held against as a float bundle",
            hint=f"ghostdeploy export {model} -t onnx, and give that bundle behind {bundle.path}",
        )
    from ghostdeploy.deploy.default_route.intermediates import model_reference

    return model_reference(bundle, model, weights)


def _known(bundle: Bundle) -> Reference | None:
    """Returns the model that a manifest names; None where the name is not enough, or nothing here can load it.

    An untrained network has other weights each time it is built.
    """
    if find_spec("torch") is None:
        return None
    from ghostdeploy.deploy.default_route.comparison import name_model
    from ghostdeploy.deploy.default_route.intermediates import model_reference

    try:
        name_model(bundle, None, None)
        return model_reference(bundle)
    except (BundleError, UsageError):
        return None
