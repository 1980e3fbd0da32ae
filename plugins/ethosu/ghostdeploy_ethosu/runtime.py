"""The simulator: the INT8 file that Vela compiled, run by LiteRT's reference kernels.

Arm promises that an Ethos-U computes what these kernels compute. `tflite-micro`, the engine of microcontrollers, has
them too, and gave the same bytes on 100 images of ghostnet_050; it names no tensors and guesses its memory, so LiteRT
is what runs. LiteRT's usual kernels (XNNPACK) round otherwise: up to 16 of 256 steps in a logit of ghostnet_050.

    q = clip(round(x/s) + z)        x = s·(q − z)

Reference kernels have no threads, and one interpreter serves one call at a time.
"""

from __future__ import annotations

from importlib.metadata import version
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any

import numpy as np

from ghostdeploy.bundle.manifest import TensorSpec
from ghostdeploy.runtimes.base import Runtime
from ghostdeploy.runtimes.interface import Engine, Interface, Settings
from ghostdeploy.streams import hushed
from ghostdeploy.telemetry import silent

with silent():
    from ai_edge_litert.interpreter import Interpreter, OpResolverType

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from ghostdeploy.bundle.folder import Arrays, Bundle

SOURCE = "model.tflite"


class EthosURuntime(Runtime):
    """Runs the graph that `model_vela.tflite` was compiled from.

    Args:
        bundle: Holds both files.
        interface: Their inputs and outputs.
        settings: `device` may be `CPU`, where the simulator runs.
    """

    engine = "litert_reference"

    def __init__(self, bundle: Bundle, interface: Interface, settings: Settings) -> None:
        self._bundle = bundle
        super().__init__(interface, settings)

    def _open(self) -> Engine:
        device = self._settings.on_cpu("an Ethos-U is simulated")
        data, compiled = self._bundle.read(SOURCE), self._bundle.read(self._bundle.manifest.payload)
        del self._bundle
        with hushed():
            Interpreter(model_content=compiled)  # it cannot run, but it must be a whole TFLite file
            engine = Interpreter(
                model_content=data, num_threads=1, experimental_op_resolver_type=OpResolverType.BUILTIN_REF
            )
            engine.allocate_tensors()
        self._inputs = _ports(engine.get_input_details(), self._interface.inputs)
        self._outputs = _ports(engine.get_output_details(), self._interface.outputs)
        self._engines: SimpleQueue[Any] = SimpleQueue()
        self._engines.put(engine)
        return Engine(
            version=version("ai-edge-litert"),
            device=device,
            threads=1,
            streams=1,
            precision="float32",
            inputs=tuple(port.spec for port in self._inputs),
            outputs=tuple(port.spec for port in self._outputs),
        )

    def _run(self, inputs: Arrays) -> Sequence[NDArray[Any]]:
        engine = self._engines.get()
        try:
            for port, values in zip(self._inputs, inputs.values(), strict=True):
                engine.set_tensor(port.index, port.encode(values))
            engine.invoke()
            return [port.decode(engine.get_tensor(port.index)) for port in self._outputs]
        finally:
            self._engines.put(engine)

    def _close(self) -> None:
        del self._engines


class Port:
    """One input or output tensor; one with a scale holds codes, and values are floats all the same."""

    def __init__(self, detail: dict[str, Any]) -> None:
        self.index = int(detail["index"])
        self._type = np.dtype(detail["dtype"])
        self._scale, self._zero = detail["quantization"]
        self.spec = TensorSpec(
            name=str(detail["name"]),
            dtype="float32" if self._scale else self._type.name,
            shape=tuple(int(size) for size in detail["shape"]),
        )

    def encode(self, values: NDArray[Any]) -> NDArray[Any]:
        """Returns values as the tensor holds them."""
        if not self._scale:
            return values
        ends = np.iinfo(self._type)
        codes: NDArray[Any] = np.clip(np.rint(values * np.float32(1 / self._scale)) + self._zero, ends.min, ends.max)
        return codes.astype(self._type)

    def decode(self, codes: NDArray[Any]) -> NDArray[Any]:
        """Returns the values of the tensor."""
        if not self._scale:
            return codes
        values: NDArray[Any] = (codes.astype(np.float32) - np.float32(self._zero)) * np.float32(self._scale)
        return values


def _ports(details: Sequence[dict[str, Any]], specs: Sequence[TensorSpec]) -> list[Port]:
    """Returns the ports in the order of the manifest where the names are its names, else in the file's own."""
    by_name = {str(detail["name"]): detail for detail in details}
    ordered = [by_name[spec.name] for spec in specs] if all(spec.name in by_name for spec in specs) else details
    return [Port(detail) for detail in ordered]
