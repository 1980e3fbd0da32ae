"""The quantizer of TFLite graphs, in its own process like every converter."""

from __future__ import annotations

from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ghostdeploy.convert.base import Written
from ghostdeploy.deploy.prove.tolerance import FLOAT32_RELATIVE_ERROR
from ghostdeploy.deploy.quantize.conditioned import largest_error
from ghostdeploy.deploy.quantize.quantization import LayerFacts, Quantization
from ghostdeploy.deploy.quantize.recipe import weight_key
from ghostdeploy.exporters.tflite import file as tf
from ghostdeploy.exporters.tflite.outputs import separate_outputs
from ghostdeploy.exporters.tflite.payload import write
from ghostdeploy.exporters.tflite.quantize import writer
from ghostdeploy.exporters.tflite.quantize.float_simulation import in_float
from ghostdeploy.exporters.tflite.quantize.graph import TFLiteGraph
from ghostdeploy.exporters.tflite.quantize.runner import TFLiteRunner, TFLiteTaps
from ghostdeploy.exporters.tflite.quantize.trial import ERROR_IMAGES, TFLiteTrial, layer_errors
from ghostdeploy.exporters.tflite.read_back import ports, read_precision

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from numpy.typing import NDArray

    from ghostdeploy.batches import Batch
    from ghostdeploy.bundle.folder import Arrays
    from ghostdeploy.convert.base import ExportJob, QuantizeSpec


class Quantizer:
    """Float `model.tflite` → INT8 `model.tflite`, `diagnosis.json`, `quantized.json`, simulated outputs."""

    tools = ("ai-edge-quantizer", "ai-edge-litert")

    def export(self, job: ExportJob) -> Written:
        """See `Exporter.export`."""
        assert job.quantization is not None  # a quantizer's job
        data = Path(job.source).read_bytes()
        work = TFLiteQuantization(data, job.quantization, integer_io=bool(job.settings.get("int8_io")))
        model = tf.read(work.quantized)
        tf.drop_repeated_names(model)
        path = write(model, job)
        work.leave_results(job)
        return Written(precision=read_precision(path), ports=ports(model))


class TFLiteQuantization(Quantization):
    """Of a float TFLite file into an INT8 one.

    Args:
        floating: Float file with named tensors.
        spec: What to do.
        integer_io: The file's inputs and outputs are INT8, not float.
    """

    tool = f"AI Edge Quantizer {version('ai-edge-quantizer')}"
    noise = "arriving"

    def __init__(self, floating: bytes, spec: QuantizeSpec, *, integer_io: bool) -> None:
        self._integer_io = integer_io
        model = tf.read(floating)
        separate_outputs(model, read=True)
        self._graph = TFLiteGraph(model)
        super().__init__(tf.pack(model), spec)
        few = next(iter(self._calibration()))[:ERROR_IMAGES]
        self.errors = layer_errors(self.floating, self.quantized, self._graph.outputs(), [few])

    def list_layers(self) -> list[LayerFacts]:
        """See `Quantization.list_layers`."""
        return self._graph.layers()

    def runner(self, graph: bytes, *, simulate: bool) -> TFLiteRunner:
        """See `Quantization.runner`."""
        return TFLiteRunner(tf.pack(in_float(tf.read(graph))) if simulate else graph, delegate=not simulate)

    def candidates(self, images: Sequence[Batch]) -> dict[float, bytes]:
        """See `Quantization.candidates`."""
        assert self.spec.conditioned is not None  # checked by the caller
        found = {0.0: self.floating}
        runner = self.runner(self.floating, simulate=False)
        wanted = runner.collect(images, runner.outputs)
        with np.load(self.spec.conditioned, allow_pickle=False) as archive:
            for strength in archive["strengths"].tolist():
                changed = self._with_weights(archive, strength)
                if changed is None:
                    self.notes.append(
                        f"skipped equalization of strength {strength:g}: the converted graph has other layers"
                    )
                    continue
                error = largest_error(self.runner(changed, simulate=False).collect(images, wanted), wanted)
                if error <= FLOAT32_RELATIVE_ERROR:
                    found[strength] = changed
                else:
                    text = f"skipped equalization of strength {strength:g}: it changes the outputs by {error:.1e}"
                    self.notes.append(text)
        return found

    def activations(self, graph: bytes, tensors: Sequence[str], images: Batch) -> Iterable[tuple[str, NDArray[Any]]]:
        """See `Quantization.activations`."""
        return TFLiteTaps(graph, tensors)(images)

    def channels(self, values: NDArray[Any]) -> int:
        """See `Quantization.channels`."""
        return values.ndim - 1

    def _with_weights(self, archive: Any, strength: float) -> bytes | None:
        """Returns the file with equalized weights; the layers are those of the PyTorch graph in another order."""
        model = tf.read(self.floating)
        named = {tf.fingerprint(archive[weight_key(0.0, i, "weight")]): i for i in range(_count(archive))}
        for kind, operator in tf.layers(model):
            weights = tf.constant(model, operator.inputs[1])
            assert weights is not None  # layers() yields constant weights
            index = named.get(tf.fingerprint(weights))
            if index is None or kind not in _ORDERS:
                return None
            array = archive[weight_key(strength, index, "weight")]
            order = _ORDERS[kind] if array.ndim == 4 else tuple(range(array.ndim))
            tf.set_constant(model, operator, 1, array.transpose(order).reshape(weights.shape))
            bias = tf.constant(model, operator.inputs[2]) if len(operator.inputs) > 2 else None
            shift = archive[weight_key(strength, index, "bias")] - archive[weight_key(0.0, index, "bias")]
            if bias is not None:  # the converter adds what follows: the 3 of a hard sigmoid
                tf.set_constant(model, operator, 2, bias + shift)
            elif shift.any():  # it leaves a bias of zeros out
                return None
        return tf.pack(model)

    def trial(self, judging: Sequence[Batch], correcting: Sequence[Batch], wanted: Arrays) -> TFLiteTrial:
        """See `Quantization.trial`."""
        return TFLiteTrial(self._graph, judging, wanted, self.task)

    def write(self, float_layers: frozenset[str]) -> bytes:
        """See `Quantization.write`."""
        outputs = self._graph.outputs()
        floating = [outputs[name] for name in sorted(float_layers)]
        if not self._integer_io:
            floating += self._graph.behind_layers()
        return tf.pack(writer.write(self.floating, self.chosen.ranges, floating, integer_io=self._integer_io))

    def float_by_rule(self) -> tuple[str, ...]:
        """See `Quantization.float_by_rule`."""
        return ()


_ORDERS = {"CONV_2D": (0, 2, 3, 1), "DEPTHWISE_CONV_2D": (1, 2, 3, 0), "FULLY_CONNECTED": (0, 1, 2, 3)}
"""From PyTorch's order of a convolution's weights (O, I/groups, H, W)."""


def _count(archive: Any) -> int:
    return sum(name.startswith("0/") and name.endswith("/weight") for name in archive.files)
