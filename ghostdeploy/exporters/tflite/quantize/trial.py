"""Trials of one strength and one range estimator on a TFLite graph; biases stay as trained."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ghostdeploy.deploy.prove.fidelity import worst_db
from ghostdeploy.deploy.quantize import ranges as rg
from ghostdeploy.deploy.quantize.choose import Chosen
from ghostdeploy.deploy.quantize.layer_errors import LayerErrors
from ghostdeploy.deploy.quantize.recipe import Choice
from ghostdeploy.deploy.quantize.shared_scales import shared_ranges
from ghostdeploy.exporters.tflite import file as tf
from ghostdeploy.exporters.tflite.quantize import writer
from ghostdeploy.exporters.tflite.quantize.runner import TFLiteRunner, TFLiteTaps

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from ghostdeploy.batches import Batch
    from ghostdeploy.bundle.folder import Arrays
    from ghostdeploy.deploy.quantize.choose import Stream
    from ghostdeploy.deploy.quantize.recipe import RangeMethod
    from ghostdeploy.exporters.tflite.quantize.graph import TFLiteGraph
    from ghostdeploy.tasks.base import Task

ERROR_IMAGES = 16
"""Images that the error of each layer is measured on."""


class TFLiteTrial:
    """Tries choices on TFLite graphs.

    Args:
        graph: The float graph.
        judging: Images that judge.
        wanted: Float outputs of those, by name.
        task: What they mean.
    """

    def __init__(self, graph: TFLiteGraph, judging: Sequence[Batch], wanted: Arrays, task: Task) -> None:
        self._graph, self._judging, self._wanted, self._task = graph, judging, wanted, task

    def collect(self, floating: bytes, batches: Stream, batch_count: int | None = None) -> dict[str, rg.Histogram]:
        """See `Trial.collect`."""
        tensors = self._graph.activations()
        return rg.collect_from(TFLiteTaps(floating, tensors), tensors, batches, batch_count=batch_count)

    def tries(
        self, strength: float, method: RangeMethod, floating: bytes, histograms: dict[str, rg.Histogram]
    ) -> Iterator[Chosen]:
        """See `Trial.tries`."""
        ranges = shared_ranges(self._graph.shared_scales(), histograms, method, symmetric=False)
        data = tf.pack(writer.write(floating, ranges, self._graph.behind_layers(), integer_io=False))
        outputs = TFLiteRunner(data, delegate=True).collect(self._judging, self._wanted)
        found = worst_db(self._task, outputs, self._wanted)
        choice = Choice(strength=strength, ranges=method, correct_bias=False)
        errors = {layer.name: LayerErrors() for layer in self._graph.layers()}
        yield Chosen(found, choice, floating, histograms, ranges, errors)


def layer_errors(
    floating: bytes, quantized: bytes, outputs: Mapping[str, str], batches: Iterable[Batch]
) -> dict[str, LayerErrors]:
    """Returns the error at the output of every layer: its own and what arrives from the layers before it.

    Args:
        floating: Float file.
        quantized: INT8 file; tensors keep their names.
        outputs: Tensor that each layer writes, by the layer's name.
        batches: Model inputs.
    """
    found = {name: LayerErrors() for name in outputs}
    plain, coded = (TFLiteTaps(data, list(outputs.values())) for data in (floating, quantized))
    together = min(plain.images, coded.images)
    for piece in (batch[start : start + together] for batch in batches for start in range(0, len(batch), together)):
        wanted, got = dict(plain(piece)), dict(coded(piece))
        for name, output in outputs.items():
            record, reference, values = found[name], wanted[output].astype(float), got[output]
            record.images += len(piece)
            record.signal += float((reference**2).sum())
            record.error += float(((values - reference) ** 2).sum())
    return found
