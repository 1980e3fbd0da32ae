"""ExecuTorch on the processor, by its XNNPACK delegate.

Both profiles run one batch at a time with all threads: networks of one process take turns, see `engine`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ghostdeploy.bundle.manifest import TensorSpec
from ghostdeploy.machine import engine_threads
from ghostdeploy.runtimes.base import Runtime
from ghostdeploy.runtimes.executorch.engine import VERSION, Network
from ghostdeploy.runtimes.interface import Engine, Interface, Settings

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from numpy.typing import NDArray

    from ghostdeploy.bundle.folder import Arrays, Bundle


class ExecuTorchRuntime(Runtime):
    """Runs `model.pte`.

    Args:
        bundle: Holds the file.
        interface: Its inputs and outputs.
        settings: `device` may be `CPU`.
    """

    engine = "executorch"

    def __init__(self, bundle: Bundle, interface: Interface, settings: Settings) -> None:
        self._bundle = bundle
        super().__init__(interface, settings)

    def _open(self) -> Engine:
        device = self._settings.on_cpu("ExecuTorch runs")
        data = self._bundle.read(self._bundle.manifest.payload)
        del self._bundle
        self._network = network = Network(data, threads=self._settings.threads or engine_threads())
        return Engine(
            version=VERSION,
            device=device,
            threads=network.threads,
            streams=1,
            precision="float32",
            inputs=tuple(_specs(network.input_names, network.inputs)),
            outputs=tuple(_specs(network.output_names, network.outputs)),
        )

    def _run(self, inputs: Arrays) -> Sequence[NDArray[Any]]:
        return self._network.run(list(inputs.values()))

    def _close(self) -> None:
        self._network.close()


def _specs(names: Sequence[str], tensors: Iterable[tuple[str, tuple[int, ...]]]) -> Iterator[TensorSpec]:
    """Yields what the program declares; one made elsewhere has no names, so places are its names."""
    for place, (kind, shape) in enumerate(tensors):
        yield TensorSpec(name=names[place] if place < len(names) else str(place), dtype=kind, shape=shape)
