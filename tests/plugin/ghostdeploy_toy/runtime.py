"""The running of a payload, by the reference evaluator of the `onnx` package."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
from onnx.reference import ReferenceEvaluator

from ghostdeploy.bundle.manifest import TensorSpec
from ghostdeploy.errors import UnsupportedHardware
from ghostdeploy.runtimes.base import Runtime
from ghostdeploy.runtimes.interface import Engine, Interface, Settings
from ghostdeploy_toy import payload

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ghostdeploy.bundle.folder import Arrays, Bundle


class ToyRuntime(Runtime):
    """Runs `model.toy` on the processor, with one thread."""

    engine = "toy"

    def __init__(self, bundle: Bundle, interface: Interface, settings: Settings) -> None:
        self._bundle = bundle
        super().__init__(interface, settings)

    def _open(self) -> Engine:
        if (self._settings.device or "CPU").upper() != "CPU":
            raise UnsupportedHardware(f"toy knows no device {self._settings.device!r}", hint="devices here are CPU")
        model = payload.read(self._bundle.read(self._bundle.manifest.payload))
        self._evaluator = ReferenceEvaluator(model)
        return Engine(
            version=onnx.__version__,
            device="CPU",
            threads=1,
            streams=1,
            precision="float32",
            inputs=tuple(_spec(value) for value in model.graph.input),
            outputs=tuple(_spec(value) for value in model.graph.output),
        )

    def _run(self, inputs: Arrays) -> Sequence[np.ndarray[Any, Any]]:
        with np.errstate(all="ignore"):  # it warns of sums that overflow, where other engines give infinity
            return [np.asarray(array) for array in self._evaluator.run(None, inputs)]

    def _close(self) -> None:
        del self._evaluator


def _spec(value: Any) -> TensorSpec:
    kind = value.type.tensor_type
    shape = tuple(size.dim_value if size.HasField("dim_value") else None for size in kind.shape.dim)
    return TensorSpec(name=value.name, dtype=onnx.helper.tensor_dtype_to_np_dtype(kind.elem_type).name, shape=shape)
