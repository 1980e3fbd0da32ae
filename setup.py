"""Three wheels from one source; everything else about the package is in pyproject.toml.

    pip wheel .                               whole: exports, proves, runs; sample models and images inside
    GHOSTDEPLOY_WHEEL=device pip wheel .      for devices: loads, verifies, evaluates, diagnoses and runs bundles
    GHOSTDEPLOY_WHEEL=app pip wheel .         for apps: `ghostdeploy.load` and what it returns; no command

The second is tagged `+device`, the third `+app`. They leave out what makes bundles, the sample data, docstrings and
comments: these would be a fifth of what they take installed. The third leaves out what proves bundles, too.
"""

from __future__ import annotations

import os
import runpy
import shutil
import tempfile
from pathlib import Path, PurePath

from setuptools import setup
from setuptools.command.build_py import build_py
from setuptools.command.egg_info import egg_info

ROOT = Path(__file__).parent
_contents = runpy.run_path(str(ROOT / "ghostdeploy" / "wheel_contents.py"))
LEFT_OUT, UNUSED = list(_contents["LEFT_OUT"]), {name: set(found) for name, found in _contents["UNUSED"].items()}
KEPT, without_remarks = _contents["KEPT"], _contents["without_remarks"]
ROOMS = (("ghostdeploy", "samples"), ("ghostdeploy", "remote"), ("deploy", "report"), ("native", "kernels"))
"""Whose data files are left out."""
KIND = os.environ.get("GHOSTDEPLOY_WHEEL", "")
if KIND == "app":
    LEFT_OUT += ["ghostdeploy.deploy", "ghostdeploy.device", "ghostdeploy.terminal"]
    UNUSED["ghostdeploy"] |= {
        "__main__",
        "batches",
        "cli",
        "encoded",
        "inspecting",
        "layer_costs",
        "open_inference",
        "progress",
        "start_child",
        "waiting",
    }
    UNUSED["ghostdeploy.bundle"] |= {"writing"}
    UNUSED["ghostdeploy.runtimes"] = {"probe"}
    UNUSED["ghostdeploy.tasks"] = {"bootstrap", "drawing", "labelled", "measure", "plain"}
    UNUSED |= {f"ghostdeploy.runtimes.{path.name}": {"costs", "probe"} for path in ROOT.glob("ghostdeploy/runtimes/*/")}
    UNUSED["ghostdeploy.runtimes.executorch"] |= {"contents"}
    UNUSED |= {
        f"ghostdeploy.tasks.{name}": {"data", "draw", "measure"} for name in ("detect", "embed", "landmarks", "segment")
    }
    UNUSED["ghostdeploy.tasks.detect"] |= {"average_precision"}
    UNUSED["ghostdeploy.tasks.embed"] |= {"verification"}
    UNUSED["ghostdeploy.tasks.landmarks"] |= {"error"}
    UNUSED["ghostdeploy.tasks.segment"] |= {"overlap"}


class DeviceBuild(build_py):
    """Copies what a device needs."""

    def run(self):
        """Starts from nothing: what an earlier build left would get into the wheel."""
        shutil.rmtree(self.build_lib, ignore_errors=True)
        super().run()

    def find_package_modules(self, package, package_dir):
        """Returns (package, module, file) of each module that is wanted."""
        found = super().find_package_modules(package, package_dir)
        found = [one for one in found if one[1] not in UNUSED.get(package, ())]
        if any(f"{package}.".startswith(f"{name}.") for name in LEFT_OUT):
            found = [one for one in found if one[1] in KEPT.get(package, ())]
        return found

    def build_module(self, module, module_file, package):
        """Copies a module without its docstrings and comments."""
        copied, done = super().build_module(module, module_file, package)
        path = Path(copied)
        path.write_text(without_remarks(path.read_text(encoding="utf-8")), encoding="utf-8")
        return copied, done

    def find_data_files(self, package, src_dir):
        """Returns the data files of a package, without those of `ROOMS`, and without the mark of a typed package."""
        parts = {file: PurePath(file).parts for file in super().find_data_files(package, src_dir)}
        files = {file: p for file, p in parts.items() if p[-1] != "py.typed"}
        return [f for f, p in files.items() if not any(p[i : i + 2] in ROOMS for i in range(len(p)))]


class DeviceInfo(egg_info):
    """Describes the package without its README: a device reads none; an app's wheel has no command either."""

    def run(self):
        """Leaves the long description and absent commands out."""
        self.distribution.metadata.long_description = None
        if KIND == "app":
            self.distribution.entry_points = {}
        super().run()


if KIND:
    if KIND not in ("device", "app"):
        raise SystemExit(f"GHOSTDEPLOY_WHEEL is {KIND!r}, it may be device or app")
    # Beside the source it would tell an editable installation that it is the device's.
    with tempfile.TemporaryDirectory() as elsewhere:
        setup(
            cmdclass={"build_py": DeviceBuild, "egg_info": DeviceInfo},
            options={"egg_info": {"tag_build": f"+{KIND}", "egg_base": elsewhere}},
        )
else:
    setup()
