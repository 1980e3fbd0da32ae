"""What is served, and within which limits."""

from __future__ import annotations

from pathlib import Path  # noqa: TC003 - msgspec resolves annotations at run time
from typing import TYPE_CHECKING

from ghostdeploy import targets
from ghostdeploy.bundle.folder import open_bundle
from ghostdeploy.bundle.record import Record
from ghostdeploy.distribute.forms import MODEL_NAME
from ghostdeploy.distribute.versions import VERSION
from ghostdeploy.errors import GateFailed, UsageError
from ghostdeploy.open_inference import DATATYPES
from ghostdeploy.visible import visible_line

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ghostdeploy.bundle.manifest import Manifest, TensorSpec


class Limits(Record, frozen=True, kw_only=True):
    """What a client can ask for at most."""

    batch: int = 32
    """Images of a request."""
    body: int = 16 << 20
    """Bytes of a request."""
    queue: int = 64
    """Requests of a model that are under way or wait, and of each protocol; one more is refused."""
    seconds: float = 30.0
    """From a request to its answer, and for a body to arrive."""
    grace: float = 30.0
    """For the requests under way when the server is stopped."""


class Place(Record, frozen=True, kw_only=True):
    """Where the server listens; port 0 is any free one."""

    host: str = "127.0.0.1"
    http_port: int = 8080
    grpc_port: int | None = 8081
    """None serves no gRPC."""


class Named(Record, frozen=True, kw_only=True):
    """A bundle as clients know it."""

    path: Path
    name: str
    version: str
    manifest_digest: str | None
    """None in bundles of early versions."""


def named(paths: Sequence[Path]) -> list[Named]:
    """Returns bundles with their names and versions: `NAME/VERSION` of a repository, else the folder's name, version 1.

    Raises:
        BundleError: One is damaged.
        GateFailed: One failed a gate of its export.
        UsageError: Two have one name and version, versions of a name differ in inputs or outputs, or a name or type is
            none that the protocol has.
    """
    found: dict[tuple[str, str], Named] = {}
    manifests: dict[str, tuple[Path, Manifest]] = {}
    for path in paths:
        manifest = open_bundle(path, check_hashes=False).manifest  # hashed when it is loaded
        _require_served(path, manifest)
        name, version = _name(path)
        if (other := found.get((name, version))) is not None:
            raise UsageError(
                f"{other.path} and {path} are both {name} version {version}, expected one of each",
                hint="rename a folder, or package them as versions: ghostdeploy package BUNDLE --for triton -o DIR",
            )
        first, theirs = manifests.setdefault(name, (path, manifest))
        if (theirs.inputs, theirs.outputs) != (manifest.inputs, manifest.outputs):
            raise UsageError(
                f"{first} and {path} are versions of {name} with other inputs or outputs", hint="rename a folder"
            )
        found[name, version] = Named(path=path, name=name, version=version, manifest_digest=manifest.digest)
    return list(found.values())


def metadata_of(specs: Sequence[TensorSpec]) -> list[dict[str, object]]:
    """Returns inputs or outputs as the protocol describes them; -1 is any size."""
    return [
        {
            "name": spec.name,
            "datatype": DATATYPES[spec.dtype],
            "shape": [-1, *(-1 if size is None else size for size in spec.shape[1:])],  # any batch: a runtime splits it
        }
        for spec in specs
    ]


def facts(manifest: Manifest) -> dict[str, str]:
    """Returns what a client may want to know of a bundle, beside its tensors."""
    return {
        "digest": manifest.digest or "",
        "task": manifest.task.name,
        "target": manifest.target,
        "precision": manifest.precision,
        "verdict": manifest.verdict,
        "model": manifest.model.name,
    }


def platform(manifest: Manifest) -> str:
    """Returns the engine's name, as the protocol calls a platform."""
    return f"ghostdeploy_{targets.find(manifest.target).name}"


def _require_served(path: Path, manifest: Manifest) -> None:
    if manifest.verdict == "failed":
        because = visible_line(manifest.failed_because or "its manifest gives no reason")
        raise GateFailed(f"{path} failed a gate and is not served: {because}", hint=f"ghostdeploy diagnose {path}")
    for spec in (*manifest.inputs, *manifest.outputs):
        if spec.dtype not in DATATYPES:
            raise UsageError(f"{spec.name!r} of {path} is {spec.dtype}, which the protocol has no name for")


def _name(path: Path) -> tuple[str, str]:
    folder = path.absolute()
    name, version = (folder.parent.name, folder.name) if VERSION.fullmatch(folder.name) else (folder.name, "1")
    if not MODEL_NAME.fullmatch(name):
        raise UsageError(
            f"{visible_line(name)!r} is no name for a model there, expected letters, digits, dots, _ and -",
            hint="rename the folder",
        )
    return name, version
