"""The hash of everything a conversion depends on; equal keys mean equal files.

    job          exporter, precision, names, settings, module names; each file it reads by its content
    this tool    every source file of ghostdeploy, and of the package that the exporter is in
    libraries    every installed distribution with the hashes of its own files (its RECORD); the Python version
    machine      processor, its features, usable cores: quantizers choose by what graphs give when run here
    environment  variables that affect the engines, such as ONEDNN_MAX_CPU_ISA

A path of a file in the workspace is replaced by the file's content. A path outside the workspace stays a path, and the
workspace's name is new in each export: anything not hashed by content can cause a miss, never a false hit. A
saved program holds two identities of objects in memory; they are left out.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import re
import sys
import zipfile
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from ghostdeploy import targets, waiting
from ghostdeploy.cached import digest_of
from ghostdeploy.machine import cpu_flags, cpu_name, usable_cores

if TYPE_CHECKING:
    from ghostdeploy.convert.base import ExportJob

_COMMON = ("ATEN", "GOMP", "KMP", "MKL", "OMP", "OPENBLAS", "PYTORCH", "TORCH", "TORCHDYNAMO")
"""Beginnings of names of variables that PyTorch and its kernels read; each target names its own."""
_LOADING = ("LD_PRELOAD", "LD_LIBRARY_PATH", "PYTHONPATH")
_ADDRESS = re.compile(rb'(graph_id\\*": *)\d+')
_IDENTITY = ".data/serialization_id"


def conversion_key(exporter: str, job: ExportJob, work: Path) -> str:
    """Returns the key of a conversion.

    Args:
        exporter: Import string, of ghostdeploy or of a plugin.
        job: What it is to do; its files are there.
        work: The workspace.
    """
    asked = msgspec.to_builtins(msgspec.structs.replace(job, folder="", result=""))
    source = Path(job.source)
    labelled = None if job.quantization is None else job.quantization.labelled
    facts = {
        "exporter": exporter,
        "job": _by_content(asked, work),
        "beside the source": {} if source.parent == work else _contents(source.parent),
        "labelled": {} if labelled is None else _contents(Path(labelled)),
        "its package": _sources(exporter.partition(":")[0].partition(".")[0]),
        "here": surroundings(),
    }
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()


def surroundings() -> dict[str, Any]:
    """Returns what every conversion of this process depends on."""
    kinds = {*_COMMON, *(kind for row in targets.TARGETS.values() for kind in row.environment)}
    named = (name for name in os.environ if name in _LOADING or name.split("_")[0] in kinds)
    steering = {name: os.environ[name] for name in named if name not in waiting.VARIABLES}  # changes no number
    machine = [platform.machine(), cpu_name(), sorted(cpu_flags()), usable_cores()]
    return {"tool": _sources("ghostdeploy"), "libraries": _libraries(), "machine": machine, "environment": steering}


def _contents(root: Path) -> dict[str, str]:
    """Returns the hashes of all files of a folder, or of one file, by their names in it."""
    paths = sorted(path for path in root.rglob("*") if path.is_file()) if root.is_dir() else [root]
    return {str(path.relative_to(root)): content(path) for path in paths}


def content(path: Path) -> str:
    """Returns the hash of a file's content; a saved program's without the identities in it."""
    if path.suffix == ".pt2" and zipfile.is_zipfile(path):
        return _content_of_program(path)
    with path.open("rb") as stream:
        return digest_of(stream).hexdigest()


def _by_content(value: Any, work: Path) -> Any:
    if isinstance(value, dict):
        return {key: _by_content(one, work) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_by_content(one, work) for one in value]
    if not isinstance(value, str) or not value.startswith(f"{work}{os.sep}"):
        return value
    path = Path(value)
    if path.is_dir():
        return {one.name: content(one) for one in sorted(path.iterdir()) if one.is_file()}
    if not path.is_file():
        return value
    return content(path)


def _content_of_program(path: Path) -> str:
    """A zip archive: names and contents of its members, in order of names."""
    digest = hashlib.sha256()
    with zipfile.ZipFile(path) as archive:
        for name in sorted(archive.namelist()):
            if name.endswith(_IDENTITY):
                continue
            digest.update(f"{name}\0".encode())
            if name.endswith(".json"):
                digest.update(_ADDRESS.sub(rb"\g<1>0", archive.read(name)))
                continue
            with archive.open(name) as member:
                digest.update(digest_of(member).digest())  # type: ignore[arg-type]  # an IO[bytes] that reads alike
    return digest.hexdigest()


@cache
def _sources(package: str) -> str:
    """Returns the hash of a package's sources: an editable installation has a RECORD that does not change."""
    spec = find_spec(package)
    roots = [] if spec is None or spec.submodule_search_locations is None else spec.submodule_search_locations
    digest = hashlib.sha256()
    for root in map(Path, roots):
        for path in sorted(root.rglob("*.py")):
            digest.update(f"{path.relative_to(root)}\0".encode() + hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()


@cache
def _libraries() -> str:
    digest = hashlib.sha256(sys.version.encode())
    for root in sys.path:
        folder = Path(root)
        for facts in sorted((*folder.glob("*.dist-info"), *folder.glob("*.egg-info"))):
            record = facts / "RECORD"
            digest.update(f"{facts.name}\0".encode())
            if record.is_file():
                digest.update(hashlib.sha256(record.read_bytes()).digest())
    return digest.hexdigest()
