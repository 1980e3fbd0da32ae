"""The tutorial's blocks, run one after the other in an empty folder, as a reader would."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

PAGE = Path(__file__).parents[2] / "docs" / "tutorial.md"
BLOCK = re.compile(r"^```(bash|python)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


@pytest.mark.slow
def test_every_block_of_the_tutorial_runs(tmp_path):
    blocks = BLOCK.findall(PAGE.read_text("utf-8"))
    assert [kind for kind, _ in blocks] == ["python", "bash", "bash", "bash", "bash", "python", "bash"]
    programs = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    said = []
    for kind, text in blocks:
        command = ["bash", "-euc", text] if kind == "bash" else [sys.executable, "-c", text]
        environment = os.environ | {"PATH": programs}
        done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"{text}\n{done.stdout}\n{done.stderr}"
        said.append(done.stdout)
    assert "passed" in said[3]
    assert "ankle boot" in said[5].splitlines()[0]
    assert "is signed by key" in said[6]
    assert (tmp_path / "mine.cdx.json").is_file()
