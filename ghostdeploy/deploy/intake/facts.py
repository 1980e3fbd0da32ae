"""What is true of the model of an export whatever the target, and how it looks to a target."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np

from ghostdeploy.preprocess import ORDERS

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ghostdeploy.bundle.folder import Arrays
    from ghostdeploy.bundle.manifest import HalfRange, ModelInfo, PassRecord, TensorSpec
    from ghostdeploy.convert.base import Ports
    from ghostdeploy.deploy.intake.protocol import ReferenceModel
    from ghostdeploy.deploy.prove.evaluate import Predictions
    from ghostdeploy.deploy.prove.images import ImageSet
    from ghostdeploy.deploy.quantize.evidence import Evidence
    from ghostdeploy.preprocess import Preprocess


@dataclass(slots=True, kw_only=True)
class Facts:
    """What is true of the model whatever the target."""

    model: ModelInfo
    preprocess: Preprocess
    """As the payload takes its input."""
    reference_preprocess: Preprocess
    """As the reference takes it."""
    labels: list[str]
    reference: ReferenceModel
    data: ImageSet | None
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    golden_inputs: Arrays
    golden_outputs: Arrays
    passes: dict[str, tuple[PassRecord, ...]]
    """Certificate of the fold, by the program file that it led to."""
    conditioning: dict[float, PassRecord]
    """Certificate of the equalization by strength; the quantizer chooses one."""
    tools: dict[str, str]
    modules: tuple[str, ...]
    """Dotted names of the PyTorch modules."""
    half_ranges: dict[str, HalfRange] = field(default_factory=dict)
    """Of an fp16 export: what the graph of each program file needs of float16."""
    evidence: Evidence | None = None
    """Images and reference logits of a quantized export."""
    reference_predictions: Predictions | None = None
    """The reference's on the labelled images; there with `data`."""
    batch_note: str | None = None
    """What the batch means for the outputs; None where it means nothing."""

    def with_layout(self, layout: Any) -> Facts:
        """Returns the facts of a payload that takes images in the given order of dimensions; None leaves them."""
        if layout in (None, self.preprocess.layout):
            return self
        dtype = "uint8" if self.preprocess.takes_pixels else "float32"
        order = ORDERS[layout]
        moved = {name: np.ascontiguousarray(array.transpose(order)) for name, array in self.golden_inputs.items()}
        specs = (
            msgspec.structs.replace(spec, layout=layout, shape=tuple(spec.shape[axis] for axis in order))
            for spec in self.inputs
        )
        preprocess = msgspec.structs.replace(self.preprocess, layout=layout, dtype=dtype)
        return replace(self, preprocess=preprocess, inputs=tuple(specs), golden_inputs=moved)

    def as_written(self, ports: Ports | None) -> Facts:
        """Returns the facts of a payload with its own types and sizes.

        Golden outputs take its types where that changes no value: PyTorch's class map is int64, LiteRT's int32.
        """
        if ports is None:
            return self
        found = {spec.name: spec for spec in (*ports.inputs, *ports.outputs)}
        inputs, outputs = (
            tuple(msgspec.structs.replace(found.get(spec.name, spec), layout=spec.layout) for spec in specs)
            for specs in (self.inputs, self.outputs)
        )
        golden = {spec.name: _as_type(self.golden_outputs[spec.name], spec.dtype) for spec in outputs}
        return replace(self, inputs=inputs, outputs=outputs, golden_outputs=golden)


def _as_type(array: NDArray[Any], dtype: str) -> NDArray[Any]:
    """Returns an array in another type, or as it is where that would change a value."""
    cast = array.astype(dtype)
    return cast if np.array_equal(cast, array) else array
