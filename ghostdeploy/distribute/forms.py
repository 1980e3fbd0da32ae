"""The table of forms, and what all have in common."""

from __future__ import annotations

import re
from importlib import import_module
from pathlib import Path  # noqa: TC003 - msgspec resolves annotations at run time
from typing import TYPE_CHECKING, Literal

from ghostdeploy import targets
from ghostdeploy.bundle import signature as sg
from ghostdeploy.bundle.folder import MANIFEST, MAX_MANIFEST, open_bundle
from ghostdeploy.bundle.record import Record
from ghostdeploy.bundle.staging import require_folder
from ghostdeploy.errors import GateFailed, UsageError
from ghostdeploy.files import read_limited
from ghostdeploy.visible import visible_line

if TYPE_CHECKING:
    from collections.abc import Callable

    from ghostdeploy.bundle.folder import Bundle
    from ghostdeploy.target import Served

Form = Literal["triton", "ovms", "huggingface", "oci"]
FORMS: tuple[Form, ...] = ("triton", "ovms", "huggingface", "oci")
MODEL_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}")
"""Names of models that every server, hub and registry takes."""


class Packaged(Record, frozen=True, kw_only=True):
    """What was handed over."""

    bundle: str
    form: Form
    name: str
    """Of the model, in the form."""
    version: str | None
    """Number or tag; None where the form has none."""
    path: str
    """Folder that holds the bundle's files, or the layout that holds their blobs."""
    new: bool
    """False where the same bundle was there already."""
    note: str | None = None
    """What the server cannot be told, and what follows."""


class Wanted(Record, frozen=True, kw_only=True):
    """How it is handed over."""

    out: Path
    name: str | None = None
    """None is that of the bundle's folder."""
    license: str | None = None
    """SPDX identifier of the model; None is unknown."""
    intended_use: str | None = None
    """One sentence for the model card."""
    base_path: str | None = None
    """Where the server sees `out`; None is its absolute path here."""


def package(path: Path, form: Form, wanted: Wanted) -> Packaged:
    """Hands a bundle over.

    Args:
        path: The bundle.
        form: See `FORMS`.
        wanted: Where to, and what the bundle itself does not say.

    Raises:
        BundleError: It is damaged.
        GateFailed: It failed a gate of its export.
        OutputError: It cannot be written.
        UsageError: The form's server has no engine for its target, or another model has the name there.
    """
    bundle = open_bundle(path)
    if bundle.manifest.verdict == "failed":
        because = visible_line(bundle.manifest.failed_because or "its manifest gives no reason")
        raise GateFailed(f"{path} failed a gate and is not handed over: {because}", hint="ghostdeploy diagnose BUNDLE")
    require_folder(wanted.out)
    make: Callable[[Bundle, Wanted], Packaged] = import_module(f"ghostdeploy.distribute.{form}").make
    return make(bundle, wanted)


def contents(bundle: Bundle) -> dict[str, bytes]:
    """Returns every file of a bundle by its path: those that the manifest lists, hashed; manifest and signatures."""
    files = {record.path: bundle.read(record.path, check_hash=True) for record in bundle.manifest.files}
    files[MANIFEST] = read_limited(bundle.path / MANIFEST, MAX_MANIFEST)
    if sg.read(bundle.path):
        files[sg.SIGNATURES] = read_limited(bundle.path / sg.SIGNATURES, sg.MAX_FILE)
    return files


def name_of(bundle: Bundle, wanted: Wanted) -> str:
    """Returns the model's name in the form, which every server, hub and registry takes.

    Raises:
        UsageError: It has other characters.
    """
    name = wanted.name or bundle.path.absolute().name
    if not MODEL_NAME.fullmatch(name):
        raise UsageError(
            f"{visible_line(name)!r} is no name for a model there, expected letters, digits, dots, _ and -",
            hint="give one with --name",
        )
    return name


def require_served(bundle: Bundle, form: str, title: str) -> Served:
    """Returns how a server runs a bundle's target.

    Raises:
        UsageError: It does not, or with another engine than the one that was proven.
    """
    row = targets.find(bundle.manifest.target)
    for served in row.served:
        if served.form == form:
            return served
    able = [other.name for other in targets.TARGETS.values() if any(one.form == form for one in other.served)]
    raise UsageError(
        f"{title} does not run {row.name} bundles with the engine that was proven",
        hint=f"export to {' or '.join(able)}",
    )
