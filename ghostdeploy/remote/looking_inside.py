"""`diagnose` between two machines: a device computes every layer's input, and each block runs here on what it gave.

Let x̂₁ … x̂_n be what the layers of a payload read on the device. Block i alone, here, on x̂_j gives B_i(x̂_j, …), and the
device gave x̂_i from the same numbers: what differs is what this block computes otherwise there, apart from what
arrives. Everything travels as float32, no more than `SENT_BYTES` of it; that decides how many golden images are taken.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ghostdeploy.bundle.folder import open_bundle
from ghostdeploy.deploy.prove.layerwise.live import Opened, require_one_model
from ghostdeploy.deploy.prove.layerwise.records import Diagnosed, There
from ghostdeploy.device.jobs import Job
from ghostdeploy.errors import ExportFailed, GhostDeployError
from ghostdeploy.progress import Stages
from ghostdeploy.remote.address import parse
from ghostdeploy.remote.cargo import Cargo
from ghostdeploy.remote.commands import Found
from ghostdeploy.remote.fleet import ask
from ghostdeploy.remote.reach import no_python

if TYPE_CHECKING:
    import os
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from ghostdeploy.device.jobs import Tensor
    from ghostdeploy.progress import Listener
    from ghostdeploy.remote.fleet import Answer, Ways

SENT_BYTES = 32 << 20
"""Tensors that one device sends: a minute at 5 Mbit/s, and memory that a small board has."""


def diagnose(
    path: Path,
    wheres: Sequence[str],
    *,
    other: str | os.PathLike[str] | None = None,
    ways: Ways | None = None,
    listener: Listener | None = None,
) -> list[Found[Diagnosed]]:
    """Holds a bundle here against what devices compute.

    Args:
        path: The bundle that runs here.
        wheres: Devices, see `address.parse`.
        other: The bundle that runs there; the same one where none is given.
        ways: How devices are reached.
        listener: Receives the progress.

    Raises:
        UsageError: An address is none, or a target shows nothing inside.
        UnsupportedHardware: A device has no Python.
        GhostDeployError: A bundle is damaged, or cannot be looked into here; see `Opened`.
    """
    for address in map(parse, wheres):
        if address.kind == "adb":
            raise no_python(address.text, "diagnose")
    stages = Stages(listener)
    with stages.stage("look inside here"):
        here = there = Opened(open_bundle(path))
        if other is not None:
            far = open_bundle(other)
            require_one_model(here.bundle, far)
            there = Opened(far)
        images = min(here.count(), there.count(SENT_BYTES))
    cargo = Cargo(inside=True)
    place = cargo.bundle(there.bundle, str(there.bundle.path))
    job = Job(command="diagnose", bundles=(place,), images=images)
    found = []
    for answer in ask(wheres, cargo, [job], ways=ways, listener=listener):
        one: Found[Diagnosed] = Found(where=answer.where, device=answer.device, states=answer.states)
        one.error = answer.error or next((error for *_, error in answer.failures), None)
        if one.error is None:
            try:
                with stages.stage(f"hold against {answer.where}"):
                    one.results.append((path, _compared(here, there, answer, images)))
            except GhostDeployError as error:
                one.errors.append((path, error))
        found.append(one)
    return found


def _compared(here: Opened, there: Opened, answer: Answer, images: int) -> Diagnosed:
    engine = answer.result(0, str)
    if engine is None:
        raise ExportFailed(f"{answer.where} gave no tensors", hint="start it again")
    marked = There(where=answer.where, engine=engine, same_bundle=here is there)
    reference = there.computed(_arrays(answer.where, answer.tensors, images), marked)
    live = here.against(reference, limit=images)
    return Diagnosed(bundle=str(here.bundle.path), digest=here.manifest.digest, recorded=None, live=live)


def _arrays(where: str, tensors: Iterable[Tensor], images: int) -> dict[str, NDArray[np.float32]]:
    """Returns what a device sent.

    Raises:
        ExportFailed: It is not what was asked for.
    """
    found = {}
    for one in tensors:
        if one.shape[:1] != (images,) or len(one.data) != 4 * int(np.prod(one.shape)):
            raise ExportFailed(
                f"{where} sent {len(one.data)} bytes for tensor {one.name} of shape {one.shape}, for {images} images",
                hint="start it again",
            )
        found[one.name] = np.frombuffer(one.data, "<f4").reshape(one.shape).astype(np.float32)
    return found
