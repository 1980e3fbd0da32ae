"""The static runner on emulated Arm cores; without it tests skip, or fail where GHOSTDEPLOY_REQUIRE names it."""

from __future__ import annotations

import json
import subprocess

from ghostdeploy.remote.runner import replay
from ghostdeploy.remote.runner.build import built
from tests.conftest import refuse
from tests.emulated import require_emulator

NAME = "runner"
"""In GHOSTDEPLOY_REQUIRE."""


def require_runner() -> bytes:
    """Returns the runner for Arm; tests compile nothing that takes minutes, so it must have been built."""
    found = built("aarch64")
    if found is None:
        refuse(NAME, "the runner for Arm is not built here: python -m ghostdeploy.remote.runner")
    return found


class Runner:
    """The runner on an emulated core.

    Args:
        folder: A free one.
        core: Its name.
    """

    def __init__(self, folder, core="cortex-a72"):
        self.folder = folder
        self.path = folder / "runner"
        self.path.write_bytes(require_runner())
        self.path.chmod(0o755)
        self.command = require_emulator(core).command([str(self.path)])

    def __call__(self, *words):
        """Returns exit code and JSON lines of one call."""
        done = subprocess.run([*self.command, *map(str, words)], capture_output=True, check=False)
        assert done.returncode >= 0, f"ended by signal {-done.returncode}"
        return done.returncode, [json.loads(line) for line in done.stdout.decode().splitlines()]

    def replay(self, given):
        """Returns exit code and lines of a replay, and the container that it wrote, None where it wrote none."""
        files = {"graph": given.graph, "weights": given.weights, "inputs": given.inputs}
        for name, data in files.items():
            (self.folder / name).write_bytes(data)
        outputs = self.folder / "outputs"
        outputs.unlink(missing_ok=True)
        code, said = self("replay", *(self.folder / name for name in files), outputs, "--threads", 1)
        return code, said, outputs.read_bytes() if outputs.exists() else None

    def verify(self, path):
        """Returns the verification of a bundle, and the outputs."""
        given = replay.prepare(path)
        code, said, outputs = self.replay(given)
        assert code == 0, said
        return replay.judge(given, said[-1], outputs, "aarch64"), outputs
