"""The host's side of a replay: what the runner reads, made of a bundle, and the judgement of what it wrote.

The bundle is checked here, its preprocessing too; the payload, the golden inputs and the outputs travel. The judge is
that of `verify`.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ghostdeploy.bundle.folder import open_bundle
from ghostdeploy.deploy.prove import preparation
from ghostdeploy.deploy.prove.commands import Verification, verification_of
from ghostdeploy.errors import BundleError, ExportFailed, UnsupportedHardware
from ghostdeploy.machine import best_set
from ghostdeploy.remote.runner import containers

if TYPE_CHECKING:
    import os

    from ghostdeploy.bundle.folder import Arrays, Bundle
    from ghostdeploy.bundle.manifest import TensorSpec
    from ghostdeploy.deploy.prove.preparation import Preparation

TARGET = "ncnn"
_GRAPH, _WEIGHTS = "model.param", "model.bin"
_SETS = {"dot product": "asimddp", "int8 matrices": "i8mm"}
"""What the runner says of its kernels, as the kernel of Linux spells it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Payload:
    """A bundle whose hashes were checked, and what the runner reads of it."""

    path: str
    bundle: Bundle
    graph: bytes
    weights: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Replayable(Payload):
    """With its golden vectors; its preprocessing was checked too."""

    inputs: bytes
    """Container of the golden inputs."""
    golden: Arrays
    prepared: Preparation | None


def payload_of(path: str | os.PathLike[str]) -> Payload:
    """Checks a bundle's hashes and returns what the runner reads of it.

    Args:
        path: The bundle.

    Raises:
        BundleError: Damaged or altered.
        UnsupportedHardware: Its engine needs Python on the device.
    """
    bundle = open_bundle(path, hold=True)
    target = bundle.manifest.target
    if target != TARGET:
        raise UnsupportedHardware(
            f"{path} is a {target} bundle, and a device without Python runs {TARGET} bundles only",
            hint=f"ghostdeploy export -t {TARGET} makes one; its engine is the static runner",
        )
    return Payload(path=str(path), bundle=bundle, graph=bundle.read(_GRAPH), weights=bundle.read(_WEIGHTS))


def prepare(path: str | os.PathLike[str]) -> Replayable:
    """Checks a bundle's hashes and preprocessing, and makes what the runner reads.

    Args:
        path: The bundle.

    Raises:
        BundleError: Damaged, altered, or of inputs that the runner cannot take.
        UnsupportedHardware: Its engine needs Python on the device.
    """
    found = payload_of(path)
    bundle = found.bundle
    inputs, golden = bundle.golden()
    prepared, inputs = preparation.check(bundle, inputs)
    try:
        packed = containers.pack(inputs)
    except ValueError as error:
        raise BundleError(f"golden inputs of {path}: {error}") from error
    return Replayable(
        path=found.path,
        bundle=bundle,
        graph=found.graph,
        weights=found.weights,
        inputs=packed,
        golden=golden,
        prepared=prepared,
    )


def judge(given: Replayable, said: dict[str, Any], outputs: bytes, architecture: str) -> Verification:
    """Judges what the runner wrote, as `verify` does.

    Args:
        given: What it read.
        said: Its line.
        outputs: The container that it wrote.
        architecture: Of the device, `aarch64` or `x86_64`.

    Raises:
        BundleError: Its outputs are not those of the manifest.
        ExportFailed: They are damaged: the device wrote them, and the way back.
    """
    return verification_of(
        given.bundle,
        given.path,
        outputs_of(given, outputs),
        given.golden,
        given.prepared,
        engine=f"{said['engine']} {said['version']} (static runner)",
        isa=kernels_of(said, architecture),
    )


def outputs_of(given: Payload, data: bytes) -> Arrays:
    """Returns the outputs in a container that the runner wrote, as the manifest has them.

    Args:
        given: What it read.
        data: The container.

    Raises:
        BundleError: They are not those of the manifest.
        ExportFailed: They are damaged: the device wrote them, and the way back.
    """
    try:
        arrays = containers.unpack(data)
    except ValueError as error:
        raise ExportFailed(f"the outputs of {given.path} came back damaged: {error}") from error
    specs = given.bundle.manifest.outputs
    if arrays.keys() != {spec.name for spec in specs}:
        raise BundleError(f"payload of {given.path} has outputs {', '.join(arrays)}, not those of its manifest")
    return {spec.name: _shaped(arrays[spec.name], spec, given) for spec in specs}


def kernels_of(said: dict[str, Any], architecture: str) -> str:
    """Returns the instruction set of the runner's INT8 kernels.

    Args:
        said: A line of it.
        architecture: Of the device, `aarch64` or `x86_64`.
    """
    name = {"x86_64": "x86-64"}.get(architecture, architecture)
    return best_set(name, {"asimd", *(flag for key, flag in _SETS.items() if said.get(key))})


def answer(text: str) -> list[dict[str, Any]]:
    """Reads the JSON lines of the runner; others, such as a linker's warnings, are passed over."""
    found = []
    for line in text.splitlines():
        try:
            one = json.loads(line)
        except ValueError:
            continue
        if isinstance(one, dict):
            found.append(one)
    return found


def _shaped(array: Any, spec: TensorSpec, given: Payload) -> Any:
    """Returns an output in the shape of the manifest; a blob has no dimensions of size 1 that it may have."""
    sizes, wanted = array.shape[1:], spec.shape[1:]
    if [one for one in sizes if one != 1] != [one for one in wanted if one != 1]:
        raise BundleError(f"payload of {given.path} gives {spec.name} as {sizes} for one image, expected {wanted}")
    return array.reshape(len(array), *wanted)
