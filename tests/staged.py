"""Bundles of one file and what killed exports leave, for the tests of staging."""

from __future__ import annotations

import json

from ghostdeploy.bundle.staging import staging
from ghostdeploy.bundle.workspaces import mark


def manifest(name="net", files=("labels.txt",)):
    """Returns what of a manifest tells whose a folder's files are."""
    records = [{"path": path, "bytes": 3, "sha256": "0" * 64} for path in files]
    return json.dumps({"schema": 1, "name": name, "target": "onnx", "files": records})


def write(folder, text="new"):
    (folder / "manifest.json").write_text(manifest(text))


def read(folder):
    return json.loads((folder / "manifest.json").read_text())["name"]


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
