"""What the rest of the line asks of a model, whatever format it came in.

A further format is one class that answers these questions, and a row whose `intake` names its files.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from ghostdeploy.bundle.folder import Arrays
    from ghostdeploy.deploy.intake.facts import Facts
    from ghostdeploy.deploy.plan.config import ExportConfig
    from ghostdeploy.preprocess import Preprocess
    from ghostdeploy.progress import Stages


class ReferenceModel(Protocol):
    """Whatever gives golden outputs: the untouched model, in NumPy terms."""

    input_name: str

    def outputs(self, batch: NDArray[Any]) -> Arrays:
        """Returns all outputs by name."""
        ...

    def logits(self, batch: NDArray[Any]) -> NDArray[Any]:
        """Returns the first output."""
        ...


class Described(Protocol):
    """What a model says of itself."""

    @property
    def name(self) -> str:
        """Of its bundles, unless another is asked for."""
        ...

    @property
    def labels(self) -> list[str] | None:
        """Names of its classes, where it knows them."""
        ...

    @property
    def preprocess(self) -> Preprocess:
        """How it was trained to take an image."""
        ...

    @property
    def source(self) -> str:
        """For the manifest: where it came from."""
        ...

    @property
    def family(self) -> str:
        """Family of the network, for the manifest."""
        ...

    @property
    def weight_bytes(self) -> int:
        """Memory that its weights take."""
        ...


class ExportedModel(Described, Protocol):
    """A model that somebody wants to export."""

    def preprocess_for(self, config: ExportConfig) -> Preprocess:
        """Returns how it takes an image in this export.

        Raises:
            UsageError: The request does not fit what the model fixes.
        """
        ...

    def reference(self) -> ReferenceModel:
        """Returns what gives its golden outputs."""
        ...

    def rehearse(self, reference: ReferenceModel, golden: NDArray[Any], config: ExportConfig) -> None:
        """Does what finds out cheaply whether it can be recorded.

        Args:
            reference: See `reference`.
            golden: Some golden inputs, (N, C, H, W).
            config: The request.

        Raises:
            CheckpointError: It cannot.
        """
        ...

    def prepare(self, name: str, config: ExportConfig, work: Path, stages: Stages) -> Facts:
        """Brings it to where converters can start.

        Args:
            name: Of the bundles.
            config: The request.
            work: Folder that receives the program files and, for quantized precisions, the evidence.
            stages: Told of the progress.
        """
        ...

    def digest(self) -> str:
        """Returns the SHA-256 of all that makes it what it is; untrained weights differ at every start."""
        ...
