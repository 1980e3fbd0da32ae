"""ncnn on the processor, one image after the other.

profile      images at a time    threads of each
latency      1                   `threads`
throughput   `threads`           1

A payload has no batch: it takes any number of images, and declares the batch of its manifest. One network
serves all calls: a run allocates what it needs, and frees each blob after its last reader.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from ghostdeploy.bundle.manifest import TensorSpec
from ghostdeploy.machine import engine_threads
from ghostdeploy.runtimes.base import Runtime
from ghostdeploy.runtimes.interface import Engine, Interface, Settings
from ghostdeploy.runtimes.ncnn import param
from ghostdeploy.runtimes.ncnn.engine import VERSION, Network

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from ghostdeploy.bundle.folder import Arrays, Bundle


class NcnnRuntime(Runtime):
    """Runs `model.param` with `model.bin`.

    Args:
        bundle: Holds the files.
        interface: Their inputs and outputs.
        settings: `device` may be `CPU`.
    """

    engine = "ncnn"

    def __init__(self, bundle: Bundle, interface: Interface, settings: Settings) -> None:
        self._bundle = bundle
        super().__init__(interface, settings)

    def _open(self) -> Engine:
        device = self._settings.on_cpu("ncnn runs")
        threads = self._settings.threads or engine_threads()
        busy = self._settings.profile == "throughput"
        payload = self._bundle.manifest.payload
        text = self._bundle.read(payload).decode("utf-8")
        weights = self._bundle.read(payload.removesuffix(".param") + ".bin")
        del self._bundle
        self._network = Network(text, weights, threads=1 if busy else threads)
        batch = self._interface.inputs[0].shape[0]
        promised = {spec.name: spec for spec in self._interface.outputs}
        names = list(promised) if promised.keys() == set(self._network.outputs) else self._network.outputs
        found = self._network.run(self._network.zeros(), names)  # the files have no sizes of outputs
        outputs = [_output(name, one, promised.get(name), batch) for name, one in zip(names, found, strict=True)]
        self._shapes = {spec.name: spec.shape[1:] for spec in outputs}
        return Engine(
            version=VERSION,
            device=device,
            threads=threads,
            streams=threads if busy else 1,
            precision="float32",
            inputs=tuple(_input(layer, batch) for layer in self._network.inputs),
            outputs=tuple(outputs),
        )

    def _run(self, inputs: Arrays) -> Sequence[NDArray[Any]]:
        count = len(next(iter(inputs.values())))
        images = ({name: array[place] for name, array in inputs.items()} for place in range(count))
        rows = [self._network.run(one, self._shapes) for one in images]
        columns = zip(self._shapes.values(), zip(*rows, strict=True), strict=True)
        return [np.stack(found).reshape(count, *shape) for shape, found in columns]

    def _close(self) -> None:
        del self._network


def _input(layer: param.Layer, batch: int | None) -> TensorSpec:
    return TensorSpec(name=layer.outputs[0], dtype=param.dtype_of(layer), shape=(batch, *param.shape_of(layer)))


def _output(name: str, found: NDArray[Any], promised: TensorSpec | None, batch: int | None) -> TensorSpec:
    """Returns the result of a run; a blob drops dimensions of size 1 that the interface may have."""
    shape: tuple[int | None, ...] = found.shape
    if promised is not None and [one for one in promised.shape[1:] if one != 1] == [one for one in shape if one != 1]:
        shape = promised.shape[1:]
    return TensorSpec(name=name, dtype=found.dtype.name, shape=(batch, *shape))
