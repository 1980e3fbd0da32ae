"""A bundle on a phone behind the interface of every runtime, so that `eval` measures it by the code of home.

Batches come prepared; each is a shard: its inputs go there, the runner computes them image by image, the outputs come
back. One batch is under way at a time, and only its shard is on the device.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

import msgspec

from ghostdeploy.errors import ExportFailed, UnsupportedHardware
from ghostdeploy.needs import applying, missing
from ghostdeploy.remote.runner import containers, replay
from ghostdeploy.runtimes import Runtime, interface_of, tell_failed
from ghostdeploy.runtimes.interface import Engine, Interface, Settings

if TYPE_CHECKING:
    import os
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from ghostdeploy.bundle.folder import Arrays
    from ghostdeploy.remote.phone.connected import Phone
    from ghostdeploy.remote.runner.replay import Payload


class PhoneRuntime(Runtime):
    """Runs a bundle of target ncnn on a phone; see `Runtime`.

    Args:
        phone: Where.
        given: The bundle, its hashes checked.
    """

    engine = "ncnn"

    def __init__(self, phone: Phone, given: Payload) -> None:
        self._phone, self._given, self._roomy = phone, given, False
        super().__init__(_any_batch(interface_of(given.bundle)), Settings())

    def _open(self) -> Engine:
        manifest, device = self._given.bundle.manifest, self._phone.device
        architecture = {"x86_64": "x86-64"}.get(device.architecture, device.architecture)
        if lacking := missing(applying(manifest.needs, manifest.precision, architecture), device.features):
            raise UnsupportedHardware(
                f"{self._given.path} is right only on processors with {' and '.join(lacking)}, which "
                f"{device.processor or device.where} lacks",
                hint="export another precision of the model for this processor",
            )
        return Engine(
            version=str(self._phone.probed["version"]),
            device="CPU",
            threads=self._phone.threads,
            streams=1,
            precision="float32",
            inputs=self._interface.inputs,
            outputs=self._interface.outputs,
        )

    def _run(self, inputs: Arrays) -> Sequence[NDArray[Any]]:
        shard = containers.pack(inputs)
        if not self._roomy:
            self._phone.adb.require_room(2 * len(shard))
            self._roomy = True
        _, data = self._phone.compute(self._given, shard, threads=self._phone.threads)
        outputs, count = replay.outputs_of(self._given, data), len(next(iter(inputs.values())))
        if any(len(array) != count for array in outputs.values()):
            raise ExportFailed(f"{self._phone.adb.where} gave outputs for another number of images than {count}")
        return [outputs[spec.name] for spec in self._interface.outputs]

    def _close(self) -> None:
        del self._given


def load_there(phone: Phone, path: str | os.PathLike[str]) -> PhoneRuntime:
    """Loads a bundle on a phone; see `ghostdeploy.runtimes.load`.

    Raises:
        GhostDeployError: It is damaged, or cannot run there.
    """
    given = replay.payload_of(path)
    tell_failed(given.bundle)
    return PhoneRuntime(phone, given)


def _any_batch(interface: Interface) -> Interface:
    """Returns the interface of a payload that takes any number of images, as those of ncnn do whatever they declare."""
    inputs, outputs = (
        tuple(msgspec.structs.replace(spec, shape=(None, *spec.shape[1:])) for spec in specs)
        for specs in (interface.inputs, interface.outputs)
    )
    return dataclasses.replace(interface, inputs=inputs, outputs=outputs)
