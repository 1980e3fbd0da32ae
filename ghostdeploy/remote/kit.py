"""Device kits: folders for devices that nobody can reach. Copied there, one command proves what is in them.

    KIT/  prove.py  kit.json (hashes)  ghostdeploy-…whl  site/ (engines for the device)  bundles/NAME/…  README.txt

The engines are unpacked wheels for Arm Linux with Python 3.11 (Debian 12, Raspberry Pi OS), pinned by their hashes:
nothing is installed there, and no network is needed.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from ghostdeploy import targets
from ghostdeploy.bundle.folder import open_bundle, sha256
from ghostdeploy.errors import OutputError, UsageError
from ghostdeploy.files import is_there, write_failure
from ghostdeploy.progress import Stages
from ghostdeploy.remote import kit_script
from ghostdeploy.remote.device_wheel import device_wheel
from ghostdeploy.remote.emulator import wheels
from ghostdeploy.remote.emulator.recipe import PYTHON, WHEELS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ghostdeploy.bundle.folder import Bundle
    from ghostdeploy.progress import Listener

ARCHITECTURES = ("aarch64",)
_ENGINES = {
    "onnxruntime": ("flatbuffers", "packaging", "protobuf"),
    "ai-edge-litert": ("backports.strenum", "flatbuffers", "protobuf"),
    "executorch": (),
    "ncnn": (),
    "openvino": (),
}
"""Engines that have wheels for Arm, and what they import."""
_README = """Copy this folder to the device, and run there:

    python3 prove.py

It proves and times the bundles, and writes receipt.json. Bring that back:

    ghostdeploy verify receipt.json BUNDLE...
"""


def make_kit(
    out: Path,
    names: Sequence[str],
    bundles: Sequence[Path],
    *,
    architecture: str = "aarch64",
    listener: Listener | None = None,
) -> Path:
    """Makes a kit.

    Args:
        out: Folder to make.
        names: Targets whose engines are packed; none are those of the bundles.
        bundles: What is to be proven there; others may be put into `bundles` later, which `kit.json` does not cover.
        architecture: One of `ARCHITECTURES`.
        listener: Receives the progress.

    Returns:
        `out`.

    Raises:
        UsageError: Nothing to pack, an unknown architecture, or a target whose engine has no wheel for it.
        BundleError: A bundle is damaged, or two have one name.
        OutputError: `out` is there, or cannot be written.
        MissingDependency: The engines cannot be fetched.
    """
    if architecture not in ARCHITECTURES:
        raise UsageError(f"no kit for {architecture}", hint=f"architectures are {', '.join(ARCHITECTURES)}")
    opened = [open_bundle(path) for path in bundles]
    wanted = dict.fromkeys([*names, *(bundle.manifest.target for bundle in opened)])
    if not wanted:
        raise UsageError("a kit of nothing", hint="name bundles, or targets: -t TARGET")
    engines = [engine for engine in map(_engine, wanted) if engine is not None]
    if is_there(out):
        raise OutputError(f"{out} is there already", hint="name another folder: -o DIR")
    stages = Stages(listener)
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".kit-", dir=out.parent) as folder:
            made = Path(folder, "kit")
            made.mkdir()
            with stages.stage(f"fetch {', '.join(dict.fromkeys(engines)) or 'NumPy'} for {architecture}"):
                _fetch(made / "site", engines)
            with stages.stage("pack the kit"):
                _fill(made, opened, architecture)
            made.rename(out)
    except OSError as error:
        raise OutputError(f"{out} cannot be written: {write_failure(error)}") from error
    return out


def _engine(name: str) -> str | None:
    """Returns the distribution of a target's engine; None where the bundle is all that runs.

    Raises:
        UsageError: It has none for the device.
    """
    packages = targets.find(name).runtime_packages
    if not packages:
        return None
    for choice in packages:
        for module in choice.split("|"):
            if (found := module.replace("_", "-")) in _ENGINES:
                return found
    able = ", ".join(row.name for row in targets.TARGETS.values() if wheels.has_engine(row))
    raise UsageError(f"the engine of {name} has no package for Arm Linux that a kit can hold", hint=f"one of {able}")


def _fetch(site: Path, engines: Sequence[str]) -> None:
    own = {*engines, *(need for one in engines for need in _ENGINES[one])}
    others = {*_ENGINES, *(need for needs in _ENGINES.values() for need in needs)} - own
    lines = [line for line in WHEELS.read_text("ascii").splitlines() if line.partition("==")[0] not in others]
    listed = site.parent / "wheels.txt"
    listed.write_text("\n".join([*lines, ""]), "ascii")
    wheels.install(site, listed)


def _fill(kit: Path, bundles: Sequence[Bundle], architecture: str) -> None:
    name, content = device_wheel()
    (kit / name).write_bytes(content)
    (kit / "README.txt").write_text(_README, "utf-8")
    shutil.copyfile(Path(kit_script.__file__), kit / "prove.py")
    (kit / "bundles").mkdir()
    for bundle in bundles:
        place = kit / "bundles" / bundle.path.resolve().name
        if place.exists():
            raise UsageError(f"two bundles are called {place.name}", hint="rename one of the folders")
        for record in bundle.manifest.files:
            (place / record.path).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(bundle.path / record.path, place / record.path)
        shutil.copyfile(bundle.path / "manifest.json", place / "manifest.json")
    files = {path.relative_to(kit).as_posix(): sha256(path) for path in sorted(kit.rglob("*")) if path.is_file()}
    document = {"architecture": architecture, "python": PYTHON, "wheel": name, "files": files}
    (kit / "kit.json").write_text(json.dumps(document, indent=1), "utf-8")
