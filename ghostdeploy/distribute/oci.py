"""An OCI image layout (image-spec 1.1): `oci-layout`, `index.json`, `blobs/sha256/…`.

    index.json      a descriptor per bundle, its tag in `org.opencontainers.image.ref.name`
    manifest        artifactType `application/vnd.ghostdeploy.bundle.v1`, the empty config, one layer per file whose
                    path is in `org.opencontainers.image.title`, as ORAS writes files

Blobs are named by their SHA-256, so a file that two bundles share is there once, and adding a bundle touches none. The
index is written last. A tag moves to the new bundle; the old one's manifest stays, without a tag.
"""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, Any

from ghostdeploy.distribute.forms import Packaged, Wanted, contents, name_of
from ghostdeploy.errors import OutputError, UsageError
from ghostdeploy.files import is_there, read_limited, write_failure, write_whole

if TYPE_CHECKING:
    from pathlib import Path

    from ghostdeploy.bundle.folder import Bundle

ARTIFACT = "application/vnd.ghostdeploy.bundle.v1"
_LAYER = "application/vnd.ghostdeploy.file.v1"
_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
_INDEX = "application/vnd.oci.image.index.v1+json"
_EMPTY = "application/vnd.oci.empty.v1+json"
_TAG = "org.opencontainers.image.ref.name"
_TITLE = "org.opencontainers.image.title"
_MAX_INDEX = 16 << 20


def make(bundle: Bundle, wanted: Wanted) -> Packaged:
    """Adds a bundle to a layout; see `distribute.forms.package`."""
    name = name_of(bundle, wanted)
    index = _index(wanted.out)
    layers = [
        _store(wanted.out, data, _LAYER) | {"annotations": {_TITLE: path}}
        for path, data in sorted(contents(bundle).items())
    ]
    manifest = bundle.manifest
    annotations = {
        "org.opencontainers.image.created": manifest.created,
        "org.opencontainers.image.title": name,
        "org.opencontainers.image.description": f"{manifest.model.name}, {manifest.target}, {manifest.precision}",
        "com.ghostdeploy.digest": manifest.digest or "",
        "com.ghostdeploy.verdict": manifest.verdict,
    } | ({"org.opencontainers.image.licenses": wanted.license} if wanted.license else {})
    document = {
        "schemaVersion": 2,
        "mediaType": _MANIFEST,
        "artifactType": ARTIFACT,
        "config": _store(wanted.out, b"{}", _EMPTY),
        "layers": layers,
        "annotations": annotations,
    }
    made = _store(wanted.out, _json(document), _MANIFEST) | {"artifactType": ARTIFACT, "annotations": {_TAG: name}}
    new = made not in index["manifests"]
    if new:
        kept = [_untagged(one, name) for one in index["manifests"] if one["digest"] != made["digest"]]
        write_whole(wanted.out / "oci-layout", _json({"imageLayoutVersion": "1.0.0"}), what="the layout")
        write_whole(wanted.out / "index.json", _json(index | {"manifests": [*kept, made]}), what="the index")
    return Packaged(bundle=str(bundle.path), form="oci", name=name, version=name, path=str(wanted.out), new=new)


def _untagged(descriptor: dict[str, Any], name: str) -> dict[str, Any]:
    """Returns a descriptor without its tag where that is the new one's."""
    if descriptor.get("annotations", {}).get(_TAG) != name:
        return descriptor
    return descriptor | {"annotations": {key: v for key, v in descriptor["annotations"].items() if key != _TAG}}


def _store(out: Path, data: bytes, kind: str) -> dict[str, Any]:
    """Writes a blob that is not there yet; returns its descriptor."""
    digest = hashlib.sha256(data).hexdigest()
    path = out / "blobs" / "sha256" / digest
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        there = path.is_file() and hashlib.sha256(path.read_bytes()).hexdigest() == digest
    except OSError as error:
        raise OutputError(f"{path} cannot be written: {write_failure(error)}") from error
    if not there:
        write_whole(path, data, what="the blob")
    return {"mediaType": kind, "digest": f"sha256:{digest}", "size": len(data)}


def _index(out: Path) -> dict[str, Any]:
    path = out / "index.json"
    if not is_there(path):
        if is_there(out) and any(out.iterdir()) and not is_there(out / "blobs"):
            raise UsageError(f"{out} is no OCI layout and not empty", hint="choose another --out")
        return {"schemaVersion": 2, "mediaType": _INDEX, "manifests": []}
    try:
        found = json.loads(read_limited(path, _MAX_INDEX))
        if found["schemaVersion"] == 2 and all(isinstance(one["digest"], str) for one in found["manifests"]):
            return dict(found)
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        pass
    raise UsageError(f"{path} is no index of an OCI layout, not replaced", hint="choose another --out")


def _json(document: dict[str, Any]) -> bytes:
    return json.dumps(document, separators=(",", ":"), ensure_ascii=False).encode()
