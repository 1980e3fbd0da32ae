"""The source package of ncnn, pinned to the byte: fetched once with pip, checked before every use.

pip alone refuses it: `setup.py` of ncnn gives the day of the build as the version, and pip wants that of the file name.
What pip says names the file's address, and an address given to pip has no version to compare. The user's index, proxy
and certificates count both times.
"""

from __future__ import annotations

import hashlib
import re
import subprocess
import tempfile
from pathlib import Path

from ghostdeploy.cached import keep_checked, open_checked
from ghostdeploy.errors import BadInput, MissingDependency, OutputError
from ghostdeploy.files import write_failure
from ghostdeploy.isolation import child_command, child_environment
from ghostdeploy.remote.runner.recipe import ARCHIVE, SHA256, VERSION, runners_folder

COMMAND = "python -m ghostdeploy.remote.runner"
MOST = 64 << 20
"""Bytes of the largest package or runner."""
_ADDRESS = re.compile(rf"(?:https?|file)://[^\s#]+/{re.escape(ARCHIVE)}")


def package(path: Path | None = None) -> bytes:
    """Returns the source package; its hash was compared.

    Args:
        path: A file; None is what was fetched before.

    Raises:
        BadInput: It is not the pinned one.
        MissingDependency: It is not here.
    """
    if path is None:
        with open_checked(runners_folder(), ARCHIVE, MOST) as stream:
            data = None if stream is None else stream.read()
    else:
        data = path.read_bytes() if path.is_file() else None
    if data is None:
        where = runners_folder() if path is None else path
        raise MissingDependency(
            f"the source package {ARCHIVE}, of which the runner is built, is not at {where}",
            hint=f"{COMMAND} fetches it with pip; or {COMMAND} --source FILE",
        )
    if (found := hashlib.sha256(data).hexdigest()) != SHA256:
        raise BadInput(
            f"{path or ARCHIVE} has SHA-256 {found[:12]}…, expected {SHA256[:12]}…",
            hint=f"take {ARCHIVE} from the package index, or look at your mirror",
        )
    return data


def fetch() -> None:
    """Fetches the source package into the cache, unless it is there.

    Raises:
        BadInput: It is not the pinned one; it was not kept.
        MissingDependency: pip is not here, or got none.
        OutputError: The cache cannot be written.
    """
    try:
        package()
    except MissingDependency:
        with tempfile.TemporaryDirectory() as folder:
            keep(package(_download(Path(folder))))


def keep(data: bytes) -> None:
    """Keeps the package in the cache.

    Raises:
        OutputError: It cannot be written.
    """
    folder = runners_folder()
    try:
        kept = keep_checked(folder, ARCHIVE, [data], MOST)
    except OSError as error:
        raise OutputError(f"{ARCHIVE} cannot be written to {folder}: {write_failure(error)}") from error
    if not kept:
        raise OutputError(f"others may write {folder}, so nothing is kept there", hint=f"chmod go-w {folder}")


def _download(folder: Path) -> Path:
    said = _pip(f"ncnn=={VERSION}", folder)
    if not (folder / ARCHIVE).exists():
        address = _ADDRESS.search(said)
        said = _pip(address[0], folder) if address else said
    if not (folder / ARCHIVE).exists():
        errors = [line for line in said.splitlines() if line.startswith("ERROR:")] or said.splitlines()[-1:]
        raise MissingDependency(
            f"pip got no {ARCHIVE}: {errors[0].removeprefix('ERROR: ') if errors else 'it said nothing'}",
            hint=f"check the network and the package index of pip; or {COMMAND} --source FILE",
        )
    return folder / ARCHIVE


def _pip(what: str, folder: Path) -> str:
    words = ["download", "--no-deps", "--no-binary", "ncnn", "--dest", str(folder), what]
    done = subprocess.run(
        child_command("pip", "--disable-pip-version-check", *words),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env=child_environment(PIP_USER="0", PIP_REQUIRE_VIRTUALENV="0", PIP_CONSTRAINT=""),
        text=True,
        errors="replace",
        check=False,
    )
    return done.stdout
