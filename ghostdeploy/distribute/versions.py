"""Numbered versions of a model in a server's repository.

    OUT/NAME/1/   a bundle, whole
    OUT/NAME/2/   its successor

A server may look at the folder at any moment: a version appears in one step, complete, and is never touched again. What
tells the server of it, its configuration, is written last. The same bundle again is no new version.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from ghostdeploy.bundle import manifest as mf
from ghostdeploy.bundle.folder import MANIFEST, MAX_MANIFEST
from ghostdeploy.bundle.placing import place_new
from ghostdeploy.bundle.staging import workspace
from ghostdeploy.bundle.workspaces import sweep
from ghostdeploy.distribute.forms import contents
from ghostdeploy.errors import BundleError, OutputError, UsageError
from ghostdeploy.files import read_limited, write_failure

if TYPE_CHECKING:
    from pathlib import Path

    from ghostdeploy.bundle.folder import Bundle

VERSION = re.compile(r"[1-9]\d{0,17}")
"""Names of folders that are versions of a model."""
_TRIES = 100


def add_version(folder: Path, bundle: Bundle) -> tuple[Path, bool]:
    """Puts a bundle beside the versions of a model.

    Args:
        folder: That of the model, `OUT/NAME`; made when absent.
        bundle: The new version.

    Returns:
        Its folder, and whether it is new.

    Raises:
        OutputError: It cannot be written.
        UsageError: The versions there have other inputs or outputs: clients of theirs would break.
    """
    newest = _newest(folder)
    if newest is not None:
        sweep(folder)
        there = _manifest(newest)
        if there.digest is not None and there.digest == bundle.manifest.digest:
            return newest, False
        if (there.inputs, there.outputs) != (bundle.manifest.inputs, bundle.manifest.outputs):
            raise UsageError(
                f"{folder} has versions with other inputs or outputs, and their clients would break",
                hint="give the model another name: --name NAME",
            )
    with workspace(folder, "version") as work:
        made = work / "bundle"
        for name, data in contents(bundle).items():
            (made / name).parent.mkdir(parents=True, exist_ok=True)
            (made / name).write_bytes(data)
        for _ in range(_TRIES):
            newest = _newest(folder)
            final = folder / str(1 if newest is None else int(newest.name) + 1)
            try:
                place_new(made, final)
            except FileExistsError:  # another process was faster
                continue
            return final, True
    raise OutputError(f"{folder} cannot be written: other processes add versions without end")


def _newest(folder: Path) -> Path | None:
    try:
        found = [path for path in folder.iterdir() if VERSION.fullmatch(path.name)]
    except FileNotFoundError:
        return None
    except OSError as error:
        raise OutputError(f"{folder} cannot be read: {write_failure(error)}") from error
    return max(found, key=lambda path: int(path.name), default=None)


def _manifest(version: Path) -> mf.Manifest:
    path = version / MANIFEST
    try:
        return mf.decode(read_limited(path, MAX_MANIFEST), where=str(path))
    except (OSError, BundleError) as error:
        raise UsageError(
            f"{version} was not made by ghostdeploy, so nothing is added beside it",
            hint="choose another --name or --out",
        ) from error
