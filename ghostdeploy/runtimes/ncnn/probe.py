"""Looking inside an ncnn payload: an extractor takes any blob as an input, and gives any.

A blob is one image, so images run one by one. Split layers copy a blob for each of its readers: all copies are the one
tensor. INT8 layers round what they read inside, and their blobs are floats.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from ghostdeploy.runtimes.ncnn.costs import WEIGHTS
from ghostdeploy.runtimes.ncnn.engine import VERSION, Network
from ghostdeploy.runtimes.probe import Probe, Step

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

    from ghostdeploy.bundle.folder import Bundle
    from ghostdeploy.runtimes.ncnn.param import Layer
    from ghostdeploy.runtimes.probe import Floats

_COPY = "Split"


class NcnnProbe(Probe):
    """One network.

    Args:
        network: Opened with `keep`.
    """

    engine = f"ncnn {VERSION}"

    def __init__(self, network: Network) -> None:
        self._network = network
        copies = {name: layer.inputs[0] for layer in network.layers if layer.kind == _COPY for name in layer.outputs}
        inputs = [layer.outputs[0] for layer in network.inputs]
        super().__init__(list(_read_steps(network.layers, copies)), inputs, {name: name for name in network.outputs})

    def run(self, given: Floats, wanted: Sequence[str]) -> dict[str, NDArray[np.float32]]:
        """See `Probe.run`."""
        cut = {name: self.between(given, name).sources for name in wanted if name in given}
        alone = {name: self._compute({one: given[one] for one in cut[name]}, [name])[name] for name in cut}
        rest = [name for name in wanted if name not in given]
        return alone | (self._compute(given, rest) if rest else {})

    def _compute(self, given: Floats, wanted: Sequence[str]) -> dict[str, NDArray[np.float32]]:
        count = len(next(iter(given.values())))
        rows: list[list[NDArray[Any]]] = [
            self._network.run({name: array[place] for name, array in given.items()}, wanted) for place in range(count)
        ]
        columns = zip(wanted, zip(*rows, strict=True), strict=True)
        return {name: np.stack(column).astype(np.float32) for name, column in columns}


def _read_steps(layers: Sequence[Layer], copies: dict[str, str]) -> Iterator[Step]:
    for layer in layers:
        if layer.kind in ("Input", _COPY, "MemoryData"):
            continue
        reads = tuple(dict.fromkeys(copies.get(name, name) for name in layer.inputs))
        yield Step(name=layer.name, reads=reads, writes=layer.outputs, layer=layer.kind in WEIGHTS)


def open_probe(bundle: Bundle) -> NcnnProbe:
    """Opens the payload of a bundle."""
    payload = bundle.manifest.payload
    weights = bundle.read(payload.removesuffix(".param") + ".bin")
    text = bundle.read(payload).decode("utf-8")
    return NcnnProbe(Network(text, weights, threads=1, keep=True))
