"""What /metrics counts beside KServe's latencies of each model."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prometheus_client import Counter, Gauge

if TYPE_CHECKING:
    from ghostdeploy.serving.models import Served

ANSWERS = Counter("ghostdeploy_answers", "Answers by protocol and status", ["protocol", "status"])
INSIDE = Gauge("ghostdeploy_requests_inside", "Requests of a model that run or wait", ["model", "version"])
BUNDLES = Gauge("ghostdeploy_bundle_info", "Bundles that are served", ["model", "version", "digest", "target"])


def watch(model: Served) -> None:
    """Shows a model in the metrics."""
    INSIDE.labels(model.name, model.version).set_function(lambda: model.work.inside)
    BUNDLES.labels(model.name, model.version, model.facts["digest"], model.facts["target"]).set(1)
