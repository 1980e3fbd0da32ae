"""Builds artefacts into a work folder, each once; what cannot be built is remembered with its reason.

FOLDER/b<batch>/<network>-<target>-<precision>    bundles of ours (`default` and `merged` in place of a precision)
FOLDER/b1/<network>-ncnn                          pnnx's files
<name>.failed                                   why it is missing; delete the file to try again
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections import defaultdict
from typing import TYPE_CHECKING

import numpy as np

from comparison.contest import FOLDER, Engine, Network
from ghostdeploy import samples
from ghostdeploy.deploy.default_route.model import Named
from ghostdeploy.deploy.default_route.route import DefaultRoute
from ghostdeploy.errors import GhostDeployError
from ghostdeploy.preprocess import Preprocess, to_pixels

if TYPE_CHECKING:
    from pathlib import Path

_SECONDS = 3600


def shipped_images(path: Path) -> Path:
    """Writes the shipped photographs, their mirror images and both upside down; returns the set's path."""
    if not path.exists():
        spec = Preprocess(size=256, crop_fraction=1.0)
        images = np.stack([to_pixels(photo, spec) for photo in samples.photos()])
        images = np.concatenate([images, images[:, :, ::-1]])
        np.savez(path, images=np.concatenate([images, images[:, ::-1]]))
    return path


class Shelf:
    """The artefacts of one network for one batch size.

    Args:
        folder: Work folder.
        network: Whose.
        batch: Images per call.
        calibration: Images for INT8.
        log: Called with one line per step.
    """

    def __init__(self, folder: Path, network: Network, batch: int, calibration: Path | None, log) -> None:
        self._folder = folder.resolve() / f"b{batch}"
        self._ncnn = folder.resolve() / "b1"
        self._network, self._batch, self._calibration, self._log = network, batch, calibration, log
        self._folder.mkdir(parents=True, exist_ok=True)
        self._ncnn.mkdir(exist_ok=True)

    def source(self, engine: Engine) -> str | None:
        """Returns what the engine's process is given: a folder, or MODEL; None for what could not be built."""
        if engine.kind == "merged" and self._network.merged is None:
            return None
        if engine.name.startswith("torch"):
            return self._network.spec
        path = self.path(engine)
        return str(path) if path.is_dir() else None

    def path(self, engine: Engine) -> Path:
        """Returns the folder of an artefact, built or not."""
        if engine.kind == "peer":
            return self._ncnn / f"{self._network.name}-{engine.name}"
        return self._folder / f"{self._network.name}-{engine.target}-{engine.precision or engine.kind}"

    def failure(self, engine: Engine) -> str | None:
        """Returns why an artefact could not be built."""
        file = self._failed(engine)
        return file.read_text().strip() if file.exists() else None

    def build(self, engines: list[Engine]) -> None:
        """Builds what is neither there nor known to fail."""
        missing = [one for one in engines if self._is_missing(one)]
        by_precision = defaultdict(list)
        for one in missing:
            if one.kind == "ours":
                by_precision[one.precision].append(one)
        for precision, group in by_precision.items():
            self._export(group, precision)
            for one in group:  # where one target failed, the others are tried alone
                if len(group) > 1 and self._is_missing(one):
                    self._export([one], precision)
        self._defaults([one for one in missing if one.kind in ("default", "merged")])
        for one in missing:
            if one.name == "ncnn":
                self._ncnn_files(one)

    def _is_missing(self, engine: Engine) -> bool:
        if engine.name.startswith("torch") or (engine.kind == "merged" and self._network.merged is None):
            return False
        return not self.path(engine).is_dir() and not self._failed(engine).exists()

    def _failed(self, engine: Engine) -> Path:
        return self.path(engine).with_suffix(".failed")

    def _export(self, group: list[Engine], precision: str) -> None:
        words = [word for one in group for word in ("-t", one.target)]
        if precision != "fp32":
            words.append(f"--{precision}")
        if precision == "int8" and not self._network.spec.startswith("sample:"):
            words += ["--calib", str(self._calibration or shipped_images(self._ncnn / "calibration.npz"))]
        words += ["--batch", str(self._batch), "-o", str(self._folder), "--name", self._network.name]
        said = self._run("-m", "ghostdeploy", "export", self._network.spec, *words)
        if len(group) == 1 and self._is_missing(group[0]):
            self._failed(group[0]).write_text(said)

    def _ncnn_files(self, engine: Engine) -> None:
        path = self.path(engine)
        part = path.with_suffix(".part")  # a killed export must not look like a finished one
        shutil.rmtree(part, ignore_errors=True)
        part.mkdir()
        said = self._run("-m", "comparison.ncnn_export", self._network.spec, part, folder=part)
        if said:
            self._failed(engine).write_text(said)
        else:
            part.rename(path)

    def _defaults(self, missing: list[Engine]) -> None:
        routes: dict[str, DefaultRoute] = {}
        for one in missing:
            spec = self._network.spec if one.kind == "default" else self._network.merged
            self._log(f"{self._network.name}: {one.name}, batch {self._batch}")
            try:
                if spec not in routes:
                    routes[spec] = DefaultRoute(Named(spec=spec))
                routes[spec].export(one.target, self._folder, name=self.path(one).name, batch=self._batch)
            except GhostDeployError as error:
                self._failed(one).write_text(error.message)

    def _run(self, *words: object, folder: Path | None = None) -> str:
        """Runs Python with these words; returns its last words where it fails."""
        self._log(f"{self._network.name}: {' '.join(map(str, words[2:]))}")
        environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(FOLDER), *filter(None, sys.path)])}
        try:
            done = subprocess.run(
                [sys.executable, *map(str, words)],
                cwd=folder,
                env=environment,
                capture_output=True,
                text=True,
                timeout=_SECONDS,
                check=False,
            )
        except subprocess.TimeoutExpired:
            return f"took more than {_SECONDS} s"
        if done.returncode == 0:
            return ""
        lines = done.stderr.splitlines()
        said = [line for line in lines if line.startswith("error: ")] or lines or [f"exit {done.returncode}"]
        return said[-1].removeprefix("error: ")
