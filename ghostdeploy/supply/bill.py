"""The bill of materials of a bundle: CycloneDX 1.6, JSON (ECMA-424).

    metadata.component      the bundle, a `machine-learning-model` with its model card; its version is the manifest's
                            digest, which covers every file
    components              its files with their hashes, the trained model it was made of, the libraries that made it
                            (scope `excluded`: the device has none of them) and the engine that runs it (`required`)
    dependencies            bundle → files, trained model, engine

The document follows from the manifest alone: the same bundle gives the same bytes, so a bill can be compared, hashed
and signed like any file.
"""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from ghostdeploy import targets
from ghostdeploy.bundle.figures import figures
from ghostdeploy.bundle.manifest import SCHEMA

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ghostdeploy.bundle.folder import Bundle
    from ghostdeploy.bundle.manifest import Manifest

_NAMESPACE = uuid.UUID("6f1d3a52-1c52-5e0c-9d0f-0f2f6a1b7a55")
_TRAINED = "trained-model"
_BUNDLE = "bundle"


def bill(bundle: Bundle) -> dict[str, Any]:
    """Returns the document, ready for JSON.

    Args:
        bundle: Whose files were checked.
    """
    manifest = bundle.manifest
    parts = [*_files(manifest), _trained(manifest), *_libraries(manifest), *_engines(manifest)]
    needed = [part["bom-ref"] for part in parts if part.get("scope") != "excluded"]
    identity = manifest.digest or f"{manifest.name} {manifest.created}"
    return {
        "$schema": "http://cyclonedx.org/schema/bom-1.6.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "serialNumber": f"urn:uuid:{uuid.uuid5(_NAMESPACE, identity)}",
        "version": 1,
        "metadata": {
            "timestamp": manifest.created,
            "lifecycles": [{"phase": "build"}],
            "tools": {
                "components": [_library("ghostdeploy", manifest.tools.get("ghostdeploy", ""), kind="application")]
            },
            "component": _described(manifest),
        },
        "components": parts,
        "dependencies": [{"ref": _BUNDLE, "dependsOn": needed}, *({"ref": part["bom-ref"]} for part in parts)],
    }


def _described(manifest: Manifest) -> dict[str, Any]:
    return {
        "type": "machine-learning-model",
        "bom-ref": _BUNDLE,
        "name": manifest.name,
        "version": manifest.digest or "no digest",
        "description": f"{manifest.model.name} for {manifest.target}, {manifest.precision}: {manifest.verdict}",
        "modelCard": {
            "modelParameters": _parameters(manifest),
            "quantitativeAnalysis": {"performanceMetrics": [*_metrics(manifest)]},
            "considerations": {"technicalLimitations": [*_limitations(manifest)]},
        },
        "properties": [
            _property("manifest-schema", SCHEMA),
            _property("target", manifest.target),
            _property("precision", manifest.precision),
            _property("verdict", manifest.verdict),
        ],
    }


def _parameters(manifest: Manifest) -> dict[str, Any]:
    found: dict[str, Any] = {
        "task": manifest.task.name,
        "architectureFamily": manifest.model.family,
        "modelArchitecture": manifest.model.name,
        "inputs": [{"format": f"{spec.name}: {spec.dtype} {_shape(spec.shape)}"} for spec in manifest.inputs],
        "outputs": [{"format": f"{spec.name}: {spec.dtype} {_shape(spec.shape)}"} for spec in manifest.outputs],
    }
    if (quantized := manifest.quantization) is not None and (calibration := quantized.calibration) is not None:
        name = f"calibration, {calibration.count} images, SHA-256 {calibration.sha256}"
        found["datasets"] = [{"type": "dataset", "name": name}]
    return found


def _metrics(manifest: Manifest) -> Iterator[dict[str, Any]]:
    """Yields what was measured, with its interval."""
    for one in figures(manifest):
        yield _metric(one.title, one.value, one.ci95, one.where)
    if (parity := manifest.parity) is not None and parity.sqnr_db is not None:
        yield _metric("SQNR to the float32 model in dB, worst output", parity.sqnr_db, None, f"{parity.count} images")


def _limitations(manifest: Manifest) -> Iterator[str]:
    yield from (because for because in (manifest.failed_because, manifest.unverified_because) if because is not None)
    if manifest.accuracy is not None:
        yield from manifest.accuracy.notes


def _files(manifest: Manifest) -> Iterator[dict[str, Any]]:
    for record in manifest.files:
        yield {
            "type": "file",
            "bom-ref": f"file:{record.path}",
            "name": record.path,
            "hashes": [{"alg": "SHA-256", "content": record.sha256}],
            "properties": [_property("bytes", record.bytes)],
        }


def _trained(manifest: Manifest) -> dict[str, Any]:
    model = manifest.model
    found: dict[str, Any] = {
        "type": "machine-learning-model",
        "bom-ref": _TRAINED,
        "name": model.name,
        "description": f"trained weights, from {model.source}",
        "properties": [_property("parameters", model.params), _property("macs", model.macs)],
    }
    if model.weights_sha256 is not None:
        found["hashes"] = [{"alg": "SHA-256", "content": model.weights_sha256}]
    return found


def _libraries(manifest: Manifest) -> Iterator[dict[str, Any]]:
    for name, version in manifest.tools.items():
        if name != "ghostdeploy":
            yield _library(name, version, role="build-") | {"scope": "excluded"}


def _engines(manifest: Manifest) -> Iterator[dict[str, Any]]:
    """Yields the packages of the engine, without a version: the bundle allows any that passes `verify`."""
    for name in targets.find(manifest.target).runtime_packages:
        yield _library(name.partition("|")[0].replace("_", "-"), "", role="engine-") | {"scope": "required"}


def _library(name: str, version: str, *, kind: str = "library", role: str = "") -> dict[str, Any]:
    purl = f"pkg:pypi/{quote(name.lower().replace('_', '-'))}" + (f"@{quote(version, safe='')}" if version else "")
    return {"type": kind, "bom-ref": f"{role}{purl}", "name": name, "purl": purl} | (
        {"version": version} if version else {}
    )


def _metric(kind: str, value: float, interval: tuple[float, float] | None, where: str) -> dict[str, Any]:
    found: dict[str, Any] = {"type": kind, "value": f"{value:.6g}", "slice": where}
    if interval is not None:
        low, high = interval
        found["confidenceInterval"] = {"lowerBound": f"{low:.6g}", "upperBound": f"{high:.6g}"}
    return found


def _property(name: str, value: object) -> dict[str, str]:
    return {"name": f"ghostdeploy:{name}", "value": str(value)}


def _shape(shape: tuple[int | None, ...]) -> str:
    return "×".join("N" if size is None else str(size) for size in shape)
