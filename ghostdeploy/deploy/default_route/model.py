"""The model of a default route by name, so that the parent and the converter's process load the same one."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import torch

from ghostdeploy import targets
from ghostdeploy.bundle.manifest import Record
from ghostdeploy.models.source import load_model
from ghostdeploy.module_copies import in_eval_mode

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ghostdeploy.convert.base import DefaultConverter, ExportJob, Written
    from ghostdeploy.models.source import LoadedModel


class Named(Record, frozen=True, kw_only=True):
    """A model as the command line names it, see `load_model`."""

    spec: str | None
    weights: str | None = None
    weights_key: str | None = None
    num_classes: int | None = None

    def load(self) -> LoadedModel:
        """Builds the module and loads its weights."""
        weights = None if self.weights is None else Path(self.weights)
        return load_model(self.spec, weights=weights, weights_key=self.weights_key, num_classes=self.num_classes)


class Source(Record, frozen=True, kw_only=True):
    """The file that `ExportJob.source` names."""

    model: Named
    state: str
    """File with the state dictionary: a factory may draw other weights at each call."""
    batch: int
    shape: tuple[int, int, int]
    """Channels, height and width of the input."""
    converter: str
    """Import string of the target's `DefaultConverter`."""
    requirement: str
    """What pip must install for it."""


class DefaultRouteWorker:
    """Untouched module → payload, in the converter's process."""

    tools: Sequence[str] = ()

    def export(self, job: ExportJob) -> Written:
        """See `Exporter.export`; the example input is seeded noise."""
        source = msgspec.json.decode(Path(job.source).read_bytes(), type=Source)
        converter: DefaultConverter = targets.resolve(source.converter, requirement=source.requirement)()
        self.tools = converter.tools
        module = in_eval_mode(source.model.load().module)
        module.load_state_dict(torch.load(source.state, weights_only=True))
        shape = (source.batch, *source.shape)
        example = torch.randn(shape, generator=torch.Generator().manual_seed(0))
        return converter.write(module, example, Path(job.folder))
