"""A folder in which a plugin of the repository is used from the command line: a network, and images to calibrate."""

from __future__ import annotations

from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from ghostdeploy.bundle.folder import Bundle, open_bundle
from tests.commands import run

USUAL = ("--image-size", 24, "--crop-fraction", 1, "--calib", "set.npz", "--int8")


@contextmanager
def workplace(folder: Path, source: str):
    """Gives the working folder with `net.py` and `set.npz`.

    Args:
        folder: Empty.
        source: Of `net.py`, which has `network()` for four classes.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        Path("net.py").write_text(source)
        rng = np.random.default_rng(0)
        np.savez("set.npz", images=rng.integers(0, 256, (300, 24, 24, 3), np.uint8), labels=np.arange(300) % 4)
        yield folder


def bundle_of(capsys: pytest.CaptureFixture[str], target: str) -> Bundle:
    """Returns the bundle of `network`, made once per working folder."""
    path = Path(f"build/network-{target}-int8")
    if not path.is_dir():
        made = run(capsys, "export", "net.py:network", "-t", target, *USUAL)
        assert made.code == 0, made.err
    return open_bundle(path)
