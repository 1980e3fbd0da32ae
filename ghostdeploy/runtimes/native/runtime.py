"""Compiled networks on the processor.

profile      images at a time    threads of each
latency      1                   `threads`, at most what the plan says; 1 where nothing is said
throughput   `threads`           1

A payload has no batch: it takes any number of images, and declares the batch of its manifest.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from ghostdeploy import machine
from ghostdeploy.bundle.manifest import TensorSpec
from ghostdeploy.errors import UnsupportedHardware
from ghostdeploy.runtimes.base import Runtime
from ghostdeploy.runtimes.interface import Engine, Interface, Settings
from ghostdeploy.runtimes.native import program
from ghostdeploy.runtimes.native.library import Library

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from numpy.typing import NDArray

    from ghostdeploy.bundle.folder import Arrays, Bundle
    from ghostdeploy.runtimes.native.program import Port


class NativeRuntime(Runtime):
    """Runs the library of `plan.json` that fits the processor.

    Args:
        bundle: Holds the files.
        interface: Their inputs and outputs.
        settings: `device` may be `CPU`.
    """

    engine = "native"

    def __init__(self, bundle: Bundle, interface: Interface, settings: Settings) -> None:
        self._bundle = bundle
        super().__init__(interface, settings)

    def _open(self) -> Engine:
        device = self._settings.on_cpu("native libraries run")
        busy = self._settings.profile == "throughput"
        threads = self._settings.threads or (machine.engine_threads() if busy else 1)  # a team pays only by request
        self._program = program.read(self._bundle.read(self._bundle.manifest.payload))
        level = level_of(self._program.libraries, self._interface.where)
        data = self._bundle.read(self._program.libraries[level])
        threads = threads if busy else min(threads, self._program.most_threads)
        weights, together = self._bundle.read_aligned(program.WEIGHTS), 1 if busy else threads
        self._library = Library(data, weights, self._program.identity, threads=together)
        del self._bundle
        batch = self._interface.inputs[0].shape[0]
        return Engine(
            version=f"{program.SCHEMA} {level}",
            device=device,
            threads=threads,
            streams=threads if busy else 1,
            precision="float32",
            inputs=tuple(_spec(port, batch) for port in self._program.inputs),
            outputs=tuple(_spec(port, batch) for port in self._program.outputs),
        )

    def _run(self, inputs: Arrays) -> Sequence[NDArray[Any]]:
        given = [np.ascontiguousarray(array) for array in inputs.values()]
        count = len(given[0])
        outputs = [np.empty((count, *port.shape), np.float32) for port in self._program.outputs]
        for place in range(count):
            self._library.run([one[place] for one in given], [one[place] for one in outputs])
        return outputs

    def _close(self) -> None:
        self._library.close()


def _spec(port: Port, batch: int | None) -> TensorSpec:
    return TensorSpec(name=port.name, dtype=port.dtype, shape=(batch, *port.shape))


def level_of(built: Iterable[str], where: str) -> str:
    """Returns the instruction set of the library to load.

    Args:
        built: Those that a bundle was built for.
        where: Its path.

    Raises:
        UnsupportedHardware: The processor has none of them.
    """
    here, flags = machine.architecture(), machine.cpu_flags()
    found = program.chosen(built, here, flags)
    if found is None:
        best = program.chosen(program.LEVELS.get(here, {}), here, flags)
        raise UnsupportedHardware(
            f"{where} was built for {', '.join(built)}, this processor is {best or here}",
            hint=f"ghostdeploy export -t native --arch {best}" if best else f"native has no --arch for {here}",
        )
    return found
