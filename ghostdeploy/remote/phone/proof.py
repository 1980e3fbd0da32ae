"""The proof of one bundle: the runner replays its golden vectors, the judge of `verify` judges here."""

from __future__ import annotations

from importlib.metadata import version
from typing import TYPE_CHECKING

from ghostdeploy.device.proof import Proof
from ghostdeploy.remote.runner import replay
from ghostdeploy.runtimes.placement import RuntimePlacement

if TYPE_CHECKING:
    from ghostdeploy.remote.phone.connected import Phone
    from ghostdeploy.remote.runner.replay import Replayable


def prove(phone: Phone, given: Replayable) -> Proof:
    """Replays the golden vectors of a bundle.

    Args:
        phone: Where.
        given: The bundle, checked.

    Raises:
        GhostDeployError: It cannot be computed there, or its outputs are not those of its manifest.
    """
    said, data = phone.compute(given, given.inputs, threads=phone.threads, keep=True)
    return Proof(
        verification=replay.judge(given, said, data, phone.android.architecture),
        placement=RuntimePlacement(
            device="CPU",
            arithmetic="float32",
            int8_layers="integer" if given.bundle.manifest.precision == "int8" else "none",
            threads=phone.threads,
            kernels=None,
            because="ncnn does not name its kernels",
        ),
        ghostdeploy=version("ghostdeploy"),
        engine_record=None,
    )
