"""The worker of a default route: loads the module and hands it to the target's own converter."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from ghostdeploy import targets
from ghostdeploy.deploy.default_route.model import open_source

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ghostdeploy.convert.base import DefaultConverter, ExportJob, Written

ROUTE = "route"
"""Setting of a job: import string of a `DefaultConverter`."""
REQUIREMENT = "requirement"
"""Setting of a job: what pip installs to have what it needs."""


class DefaultRouteWorker:
    """Untouched module → payload."""

    tools: Sequence[str] = ()

    def export(self, job: ExportJob) -> Written:
        """See `Exporter.export`."""
        route, requirement = str(job.settings[ROUTE]), str(job.settings[REQUIREMENT])
        converter: DefaultConverter = targets.resolve(route, requirement=requirement)()
        self.tools = converter.tools
        return converter.write(*open_source(job), Path(job.folder))
