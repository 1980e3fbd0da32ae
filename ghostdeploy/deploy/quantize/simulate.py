"""Running an ONNX graph exactly as it is written: no fusion, so that Q/DQ pairs are float arithmetic.

This is the *simulation* of a quantized graph: the numbers an engine gives that accumulates without overflow. Fused INT8
kernels of a processor may differ from it; the difference is the execution gap.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from ghostdeploy.batches import by_name, filled
from ghostdeploy.deploy.quantize.runner import Runner
from ghostdeploy.machine import engine_threads
from ghostdeploy.telemetry import silent

with silent():
    import onnxruntime as ort

if TYPE_CHECKING:
    import onnx
    from numpy.typing import NDArray

    from ghostdeploy.batches import Batch

TOGETHER = 4
"""Images of one run of a quantizer where the batch is free. With 32, GhostNet 1.0× takes 1.5 times as long and twice
the memory."""
_QUIET = 4
"""Errors are raised, not printed as well."""


class NoBatchError(ValueError):
    """An output has no first dimension; the message is its name and kind."""


class GraphRunner(Runner):
    """One graph.

    Args:
        model: The graph; the first dimension of its inputs may be fixed, batches are then split and filled up.
        fused: Let ONNX Runtime optimise: the same numbers up to the rounding of floats, faster. A value between two
            integers may fall to the other side.
        packed: Let it bring constant weights into the order of its kernels; computed ones never are, and the kernels
            for them sum in another order.
        threads: Threads; None is one per core that this process may use.
        together: Images of one run where the batch is free, of a network that is known to treat them one by one; None
            is all.
    """

    def __init__(
        self,
        model: onnx.ModelProto,
        *,
        fused: bool = False,
        packed: bool = True,
        threads: int | None = None,
        together: int | None = None,
    ) -> None:
        options = ort.SessionOptions()
        options.log_severity_level = _QUIET
        options.intra_op_num_threads = threads or engine_threads()
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")  # others want the cores, too
        options.add_session_config_entry("session.disable_quant_qdq", "1")  # Q/DQ pairs stay float arithmetic
        if not fused:
            options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
        if not packed:
            options.add_session_config_entry("session.disable_prepacking", "1")
        self._session = ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
        inputs = self._session.get_inputs()
        self._inputs = [value.name for value in inputs]
        first = inputs[0].shape[0]
        self._batch: int | None = first if isinstance(first, int) else None
        self._together = together
        self.outputs = [value.name for value in self._session.get_outputs()]

    def __call__(self, batch: Batch) -> list[NDArray[Any]]:
        """Returns the outputs, first dimension as many as `batch` has images.

        Args:
            batch: (N, …), any N ≥ 1.

        Raises:
            NoBatchError: An output is a scalar, or no tensor.
        """
        size = self._batch or self._together or len(batch)
        parts = []
        for start in range(0, len(batch), size):
            piece = batch[start : start + size]
            outputs = self._session.run(None, by_name(filled(piece, self._batch or len(piece)), self._inputs))
            for name, output in zip(self.outputs, outputs, strict=True):
                if not isinstance(output, np.ndarray) or not output.ndim:
                    raise NoBatchError(f"{name} is {'a scalar' if hasattr(output, 'ndim') else 'no tensor'}")
            parts.append([output[: len(piece)] for output in outputs])
        if len(parts) == 1:
            return parts[0]  # no copy: they may be all activations of a graph
        return [np.concatenate(column) for column in zip(*parts, strict=True)]
