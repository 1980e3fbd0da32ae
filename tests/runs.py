"""An export under way, for tests of what its stages do."""

from __future__ import annotations

from ghostdeploy.convert.cache import Cache
from ghostdeploy.deploy.plan.config import ExportConfig
from ghostdeploy.deploy.plan.steps import ExportRun
from ghostdeploy.progress import Stages


def run_in(work, *names, **options):
    """Returns an export of a PyTorch model called `net`, whose workspace is `work`; it keeps no conversion."""
    config = ExportConfig(targets=names or ("onnx",), out=work.parent, **options)
    return ExportRun(config=config, name="net", intake=None, work=work, cache=Cache(None), stages=Stages())
