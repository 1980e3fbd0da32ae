"""Runs of `tune` over tiny bundles that lie where exports would have put them, and chosen measurements."""

from __future__ import annotations

import shutil
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import msgspec
from torch import nn

from ghostdeploy.bundle.folder import MANIFEST, open_bundle
from ghostdeploy.bundle.manifest import encode
from ghostdeploy.deploy.intake.pytorch.model import PyTorchModel
from ghostdeploy.deploy.plan.config import ExportConfig
from ghostdeploy.deploy.tune.candidates import Candidate, Entry, Setting, settings
from ghostdeploy.deploy.tune.contenders import Contenders
from ghostdeploy.deploy.tune.exporting import Workshop
from ghostdeploy.deploy.tune.journal import Header, Journal, Round
from ghostdeploy.deploy.tune.place import Here
from ghostdeploy.deploy.tune.progress import Progress
from ghostdeploy.deploy.tune.request import TuneConfig
from ghostdeploy.deploy.tune.run import Tuning
from ghostdeploy.models.source import from_module

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

HEADER = Header(model="model", options="options", tools="ghostdeploy 0", machine="a machine, 2 usable cores")
ONE, TWO = Setting(1, "latency"), Setting(2, "latency")


class Net(nn.Sequential):
    """A network that exports in no time."""

    def __init__(self) -> None:
        super().__init__(nn.Conv2d(3, 8, 3, 2), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 10))


class Stage:
    """A state folder with a journal, and what works on it."""

    def __init__(self, out: Path, journal: Journal, config: TuneConfig) -> None:
        self.journal = journal
        self.config = config
        self.workshop = Workshop(PyTorchModel(from_module(Net().eval())), "tiny", config.export, journal.folder)
        self.contenders = Contenders(config, journal, settings(2, config.objective))
        self.progress = Progress(None, config.budget, journal.spent)
        self.tuning = Tuning(self.contenders, self.workshop, journal, self.progress, Here())

    def plant(self, bundle: Path, **changes: Any) -> Candidate:
        """Puts a copy of a bundle where its export would be; `changes` are fields of its manifest."""
        manifest = open_bundle(bundle).manifest
        candidate = Candidate(manifest.target, manifest.precision, changes.pop("without", None))
        folder = self.workshop.path(candidate)
        shutil.copytree(bundle, folder)
        changed = msgspec.structs.replace(manifest, **{"verdict": "passed", "unverified_because": None} | changes)
        (folder / MANIFEST).write_bytes(encode(changed))
        self.contenders.bundles[candidate] = open_bundle(folder)
        return candidate

    def measured(self, *rounds: dict[Entry, float], sitting: int = 1, queued: bool = False) -> None:
        """Notes rounds: seconds by entry."""
        for one in rounds:
            seconds = {entry.key: value for entry, value in one.items()}
            found = Round(sitting=sitting, calls=seconds, queued=seconds if queued else {}, spent=1.0)
            self.journal.append(found)


@contextmanager
def stage(out: Path, *, targets: tuple[str, ...] = ("onnx", "openvino"), **options: Any) -> Iterator[Stage]:
    """Gives a stage over `out/tiny-tune`; `options` are fields of `TuneConfig`."""
    export = ExportConfig(targets=targets, out=out, preprocess={"size": 32})
    config = TuneConfig(export=export, left_out={}, **options)
    with Journal(out / "tiny-tune", HEADER) as journal:
        yield Stage(out, journal, config)
