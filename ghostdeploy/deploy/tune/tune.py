"""`ghostdeploy tune` from request to result."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ghostdeploy.deploy.tune.candidates import enumerate_candidates, settings
from ghostdeploy.deploy.tune.contenders import Contenders
from ghostdeploy.deploy.tune.exporting import Workshop
from ghostdeploy.deploy.tune.fingerprint import header_of
from ghostdeploy.deploy.tune.journal import Journal
from ghostdeploy.deploy.tune.progress import Progress
from ghostdeploy.deploy.tune.report import publish, refuse_foreign, write_tables
from ghostdeploy.deploy.tune.run import Tuning
from ghostdeploy.deploy.tune.summary import summarize

if TYPE_CHECKING:
    from ghostdeploy.deploy.tune.progress import Watcher
    from ghostdeploy.deploy.tune.request import TuneRequest
    from ghostdeploy.deploy.tune.results import Tuned


def tune(asked: TuneRequest, watcher: Watcher | None = None) -> Tuned:
    """Finds the best bundle of a model for this machine, or for `asked.place`, and how to run it.

    Everything is kept in `OUT/<model>-tune`: bundles, journal, tables. A second call continues where the first one
    ended.

    Args:
        asked: The request.
        watcher: Is shown the progress.

    Returns:
        The record; the winning bundle is in `OUT/<model>-<target>-<precision>`.

    Raises:
        GateFailed: No bundle passed its gates, or none is within the limits.
        GhostDeployError: See the tree in `ghostdeploy.errors`.
    """
    config, load, place = asked.config, asked.resolve(), asked.place
    candidates = enumerate_candidates(config.export.rows, config.precisions, place.flags)
    model = load()
    name = asked.name or model.name
    out, state = config.export.out, config.export.out / f"{name}-tune"
    refuse_foreign(out, name, candidates, state, replace=config.restart)
    header = header_of(model, config.export, place.name)
    with Journal(state, header, restart=config.restart) as journal:
        progress = Progress(watcher, config.budget, journal.spent)
        contenders = Contenders(config, journal, settings(place.cores, config.objective))
        workshop = Workshop(model, name, config.export, state)
        tuning = Tuning(contenders, workshop, journal, progress, place)
        picked = tuning.run(candidates)
        found = summarize(contenders, workshop, picked, tuning.considered, machine=header.machine)
        winner = workshop.path(contenders.entries()[picked.pick].candidate)
        publish(winner, out, state, replace=config.restart)
        write_tables(found, state)
    return found
