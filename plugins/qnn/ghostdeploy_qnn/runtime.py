"""The simulator: Qualcomm's library for x86 runs the compiled graph as the NPU would, in its integers."""

from __future__ import annotations

from importlib.metadata import version
from typing import TYPE_CHECKING, Any

import msgspec

from ghostdeploy.bundle.manifest import TensorSpec
from ghostdeploy.errors import BundleError, UnsupportedHardware
from ghostdeploy.runtimes.base import Runtime
from ghostdeploy.runtimes.interface import Engine, Interface, Settings
from ghostdeploy_qnn.chips import CHIPS
from ghostdeploy_qnn.htp import session

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from ghostdeploy.bundle.folder import Arrays, Bundle

_TYPES = {"tensor(float)": "float32", "tensor(uint8)": "uint8", "tensor(int64)": "int64", "tensor(int32)": "int32"}


class Facts(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`compiled.json`."""

    soc: str
    soc_model: int


class QnnRuntime(Runtime):
    """Runs `model_ctx.onnx`.

    Args:
        bundle: Holds it.
        interface: Its inputs and outputs.
        settings: `device` may be `HTP`.
    """

    engine = "qnn_htp_simulator"

    def __init__(self, bundle: Bundle, interface: Interface, settings: Settings) -> None:
        self._bundle = bundle
        super().__init__(interface, settings)

    def _open(self) -> Engine:
        device = (self._settings.device or "HTP").upper()
        if device not in ("HTP", "CPU"):
            raise UnsupportedHardware(
                f"a Hexagon NPU is simulated on CPU here, not on {self._settings.device!r}", hint="device CPU"
            )
        facts = msgspec.json.decode(self._bundle.read("compiled.json"), type=Facts)
        if facts.soc not in CHIPS:
            raise BundleError(f"{self._where} is compiled for {facts.soc!r}, expected one of {', '.join(CHIPS)}")
        self._session = session(self._bundle.read(self._bundle.manifest.payload), CHIPS[facts.soc])
        del self._bundle
        return Engine(
            version=version("onnxruntime-qnn"),
            device=f"HTP of {facts.soc}",
            threads=1,
            streams=1,
            precision="float32",
            inputs=tuple(_spec(value) for value in self._session.get_inputs()),
            outputs=tuple(_spec(value) for value in self._session.get_outputs()),
        )

    def _run(self, inputs: Arrays) -> Sequence[NDArray[Any]]:
        found: Sequence[NDArray[Any]] = self._session.run(None, inputs)
        return found

    def _close(self) -> None:
        del self._session


def _spec(value: Any) -> TensorSpec:
    shape = tuple(size if isinstance(size, int) else None for size in value.shape)
    return TensorSpec(name=value.name, dtype=_TYPES.get(value.type, value.type), shape=shape)
