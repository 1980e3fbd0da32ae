"""Finishing a build kit on the machine that has the GPU."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ghostdeploy.convert.base import Finished
from ghostdeploy.exporters.tensorrt.engine import require_gpu
from ghostdeploy.nvidia import kit
from ghostdeploy.nvidia.library import any_library

if TYPE_CHECKING:
    from pathlib import Path


class KitFinisher:
    """Engines of a kit; only engines, their timing cache and `kit/build.json` are new, the graph stays."""

    worker = "ghostdeploy.exporters.tensorrt.build:EngineBuilder"

    def require(self) -> None:
        """See `Finisher.require`."""
        require_gpu(any_library())

    def finished(self, folder: Path) -> Finished:
        """See `Finisher.finished`."""
        spec = kit.decode((folder / kit.SPEC).read_bytes(), where=str(folder / kit.SPEC))
        return Finished(engine=spec.engines[0].file, fault=kit.missing_precision(spec, spec.engines[0]))
