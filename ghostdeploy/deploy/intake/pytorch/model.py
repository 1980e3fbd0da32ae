"""A PyTorch module as the model of an export."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

import numpy as np

from ghostdeploy.batches import arrays_of
from ghostdeploy.deploy.plan.preprocessing import apply_overrides

if TYPE_CHECKING:
    from ghostdeploy.batches import Batch
    from ghostdeploy.deploy.intake.protocol import ReferenceModel
    from ghostdeploy.deploy.intake.pytorch.reference import Reference
    from ghostdeploy.deploy.intake.records import Folded
    from ghostdeploy.deploy.plan.config import ExportConfig
    from ghostdeploy.deploy.plan.steps import ExportRun
    from ghostdeploy.models.source import LoadedModel
    from ghostdeploy.preprocess import Preprocess
    from ghostdeploy.tasks.base import TaskInfo


@dataclass(frozen=True, slots=True)
class PyTorchModel:
    """See `ExportedModel`."""

    loaded: LoadedModel

    @property
    def name(self) -> str:
        """See `Described.name`."""
        return self.loaded.name

    @property
    def labels(self) -> list[str] | None:
        """See `Described.labels`."""
        return self.loaded.labels

    @property
    def preprocess(self) -> Preprocess:
        """See `Described.preprocess`."""
        return self.loaded.preprocess

    @property
    def source(self) -> str:
        """See `Described.source`."""
        return self.loaded.source

    @property
    def family(self) -> str:
        """See `Described.family`."""
        return self.loaded.family

    @property
    def input_names(self) -> tuple[str, ...]:
        """See `Described.input_names`."""
        from ghostdeploy.deploy.intake.pytorch.reference import parameters_of

        return tuple(one.name for one in parameters_of(self.loaded.module))

    @property
    def classifies(self) -> bool:
        """See `Described.classifies`."""
        return self.loaded.labels is not None or self.loaded.family != "custom"

    @property
    def task(self) -> TaskInfo | None:
        """See `Described.task`."""
        return self.loaded.task

    @property
    def intake(self) -> None:
        """See `Described.intake`."""

    @property
    def weight_bytes(self) -> int:
        """See `Described.weight_bytes`."""
        return self.loaded.weight_bytes

    def preprocess_for(self, config: ExportConfig) -> Preprocess:
        """See `ExportedModel.preprocess_for`."""
        return apply_overrides(self.loaded.preprocess, config.preprocess)

    def reference(self) -> Reference:
        """See `ExportedModel.reference`."""
        from ghostdeploy.deploy.intake.pytorch.reference import Reference

        return Reference(self.loaded.module, shared=self.loaded.shared)

    def rehearse(self, reference: ReferenceModel, golden: Batch, config: ExportConfig) -> None:
        """Records it as `torch.export` will: that finds control flow that depends on values."""
        import torch

        from ghostdeploy.deploy.fold.capture import capture

        places = np.arange(2 if config.batch is None else config.batch) % len(golden)
        module = cast("Reference", reference).module
        inputs = tuple(map(torch.from_numpy, arrays_of(golden[places])))
        capture(module, inputs, dynamic_batch=config.batch is None)

    def prepare(self, run: ExportRun) -> Folded:
        """See `ExportedModel.prepare`."""
        from ghostdeploy.deploy.intake.pytorch.prepare import prepare

        return prepare(self, run)

    def digest(self) -> str:
        """Hashes structure and weights."""
        import torch

        from ghostdeploy.module_copies import tensors_of

        digest = hashlib.sha256(self.source.encode())
        digest.update(repr(self.loaded.module).encode())
        for name, tensor in sorted(tensors_of(self.loaded.module).items()):
            digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
            if self.loaded.trained:
                values = tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8)
                digest.update(values.numpy().data)
        return digest.hexdigest()
