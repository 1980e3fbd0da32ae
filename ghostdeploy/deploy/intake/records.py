"""The results of intake: reference outputs, and the model that converters start from. Each fact is in one record."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np

from ghostdeploy.bundle.manifest import TensorSpec
from ghostdeploy.preprocess import ORDERS

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from typing_extensions import Self

    from ghostdeploy.batches import Batch
    from ghostdeploy.bundle.folder import Arrays
    from ghostdeploy.bundle.manifest import HalfRange, ModelInfo, PassRecord
    from ghostdeploy.convert.base import Ports
    from ghostdeploy.deploy.intake.inputs import Inputs
    from ghostdeploy.deploy.prove.evaluate import Predictions
    from ghostdeploy.deploy.prove.images import ImageSet
    from ghostdeploy.deploy.quantize.evidence import Evidence
    from ghostdeploy.preprocess import Preprocess
    from ghostdeploy.tasks.base import Task
    from ghostdeploy.tasks.measure import Measure


@dataclass(frozen=True, slots=True, kw_only=True)
class Interface:
    """What a payload takes and gives, with the golden vectors of both sides."""

    preprocess: Preprocess
    """How it takes an image."""
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    golden_inputs: Arrays
    golden_outputs: Arrays

    @classmethod
    def of(cls, golden: Arrays, outputs: Arrays, preprocess: Preprocess, batch: int | None, task: Task) -> Self:
        """Returns the interface of a payload that is built for `batch` images, None being any.

        Args:
            golden: Golden inputs by name, as `preprocess` makes them; those of four dimensions are images.
            outputs: What the reference gives for them, by name.
            preprocess: How the payload takes an image.
            batch: Images per inference.
            task: What the outputs mean.
        """
        roles = task.roles(outputs)

        def spec(name: str, array: NDArray[Any], layout: Any = None) -> TensorSpec:
            shape = (batch, *array.shape[1:])
            return TensorSpec(name=name, dtype=str(array.dtype), shape=shape, layout=layout, role=roles.get(name))

        return cls(
            preprocess=preprocess,
            inputs=tuple(
                spec(key, array, preprocess.layout if array.ndim == 4 else None) for key, array in golden.items()
            ),
            outputs=tuple(spec(key, array) for key, array in outputs.items()),
            golden_inputs=golden,
            golden_outputs=outputs,
        )

    def with_layout(self, layout: Any) -> Interface:
        """Returns that of a payload that takes images in the given order of dimensions; None leaves them."""
        if layout in (None, self.preprocess.layout):
            return self
        dtype = "uint8" if self.preprocess.takes_pixels else "float32"
        order = ORDERS[layout]
        moved = {
            name: np.ascontiguousarray(array.transpose(order)) if array.ndim == 4 else array
            for name, array in self.golden_inputs.items()
        }
        specs = (
            spec
            if spec.layout is None
            else msgspec.structs.replace(spec, layout=layout, shape=tuple(spec.shape[axis] for axis in order))
            for spec in self.inputs
        )
        preprocess = msgspec.structs.replace(self.preprocess, layout=layout, dtype=dtype)
        return replace(self, preprocess=preprocess, inputs=tuple(specs), golden_inputs=moved)

    def as_written(self, ports: Ports | None) -> Interface:
        """Returns that of a payload with its own types and sizes.

        Golden outputs take its types where that changes no value: PyTorch's class map is int64, LiteRT's int32.
        """
        if ports is None:
            return self
        found = {spec.name: spec for spec in (*ports.inputs, *ports.outputs)}
        inputs, outputs = (
            tuple(
                msgspec.structs.replace(found.get(spec.name, spec), layout=spec.layout, role=spec.role)
                for spec in specs
            )
            for specs in (self.inputs, self.outputs)
        )
        golden = {spec.name: _as_type(self.golden_outputs[spec.name], spec.dtype) for spec in outputs}
        return replace(self, inputs=inputs, outputs=outputs, golden_outputs=golden)


def _as_type(array: NDArray[Any], dtype: str) -> NDArray[Any]:
    """Returns an array in another type, or as it is where that would change a value."""
    cast = array.astype(dtype)
    return cast if np.array_equal(cast, array) else array


@dataclass(frozen=True, slots=True, kw_only=True)
class ReferenceRun:
    """Outputs of the reference for the images of an export; it runs once on each."""

    images: Inputs
    """The sets as they were given."""
    preprocess: Preprocess
    """How the reference takes an image."""
    golden: Batch
    """Golden inputs, as the reference takes them."""
    task: Task
    """What the outputs mean."""
    interface: Interface
    """Of the program that converters start from."""
    labels: list[str]
    """One per class; none where the first output scores no classes."""
    evidence: Evidence | None
    """Images and reference logits of a precision that is judged on images."""
    predictions: Predictions | None
    """The reference's on the images that judge."""
    error: float | None = None
    """Of the reference itself, see `Parity.reference_error`."""
    measure: Measure | None = None
    """The reference's, on the labelled images of a task that has a measure of its own."""
    batch_note: str | None
    """What the batch means for the outputs; None where it means nothing, see `ghostdeploy.deploy.intake.batching`."""

    @property
    def data(self) -> ImageSet | None:
        """Labelled images that judge: all but those that calibrate."""
        return self.images.data if self.evidence is None else self.evidence.data


@dataclass(frozen=True, slots=True, kw_only=True)
class Folded:
    """A model where converters start; its program files are in the workspace."""

    seen: ReferenceRun
    model: ModelInfo
    passes: dict[str, tuple[PassRecord, ...]]
    """Certificate of the fold, by the program file that it led to."""
    tools: dict[str, str]
    """Versions of what folded it."""
    modules: tuple[str, ...] = ()
    """Dotted names of the PyTorch modules."""
    conditioning: dict[float, PassRecord] = field(default_factory=dict)
    """Certificate of the equalization by strength; the quantizer chooses one."""
    half_ranges: dict[str, HalfRange] = field(default_factory=dict)
    """Of an fp16 export: the float16 range of each program file's graph."""
