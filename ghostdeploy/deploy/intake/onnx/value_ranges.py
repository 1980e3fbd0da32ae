"""Largest magnitude of each tensor of an ONNX graph, and of its constants, passed to a watcher."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from onnx import TensorProto, numpy_helper

from ghostdeploy.convert.graph.shapes import element_types
from ghostdeploy.deploy.quantize.activations import Activations, in_groups

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    import onnx

    from ghostdeploy.batches import Batch
    from ghostdeploy.deploy.fold.half_range import Watch


def watch_model(model: onnx.ModelProto, batches: Callable[[], Iterable[Batch]], watch: Watch) -> None:
    """Runs a graph on every batch, once for each group of tensors that fits into memory.

    Args:
        model: Not changed.
        batches: Gives its inputs (N, …).
        watch: Called with every float32 tensor and constant.
    """
    for tensor in model.graph.initializer:
        if tensor.data_type == TensorProto.FLOAT:
            watch.constant(numpy_helper.to_array(tensor), tensor.name)
    types = element_types(model)
    made = [name for node in model.graph.node for name in node.output if types.get(name) == TensorProto.FLOAT]
    for group in in_groups(model, made):
        reader = Activations(model, group)
        for batch in batches():
            for name, values in reader(batch):
                watch.result(float(np.abs(values[np.isfinite(values)]).max(initial=0.0)), reader.maker(name))
