"""Bundles of one file and what killed exports leave, for the tests of staging."""

from __future__ import annotations

from ghostdeploy.staging import staging
from ghostdeploy.workspaces import mark


def write(folder, text="new"):
    (folder / "manifest.json").write_text(text)


def read(folder):
    return (folder / "manifest.json").read_text()


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def fail_inside(out, **options):
    with staging(out, "net", **options) as folder:
        write(folder)
        raise KeyError("x")


def dead(out, name, *, old=None):
    """Makes the workspace that a killed export of `name` leaves; `old` is the text of the bundle it moved away."""
    folder = out / f".{name}.tmp-12345-0a1b2c3d"
    (folder / "new" / name).mkdir(parents=True)
    (folder / "new" / name / "model.onnx").write_bytes(b"half")
    mark(folder)
    if old is not None:
        (folder / "old" / name).mkdir(parents=True)
        write(folder / "old" / name, old)
    return folder
