"""Proves the bundles of this folder on this device and writes receipt.json; needs no network and installs nothing.

    python3 prove.py [--no-bench] [-o receipt.json]

Every file is compared with the hashes of kit.json first. This file of a kit is prove.py.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import platform
import sys
import tempfile
import zipfile

HERE = os.path.dirname(os.path.abspath(__file__))


def main() -> int:
    """Returns the exit code."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("-o", "--out", default="receipt.json", help="where the receipt goes")
    parser.add_argument("--no-bench", action="store_true", help="prove the numbers, measure no time")
    given = parser.parse_args()
    with open(os.path.join(HERE, "kit.json"), encoding="utf-8") as stream:
        kit = json.load(stream)
    wrong = _misfit(kit) or _altered(kit["files"])
    if wrong:
        sys.stderr.write("error: %s\n" % wrong)
        return 4
    sys.path.insert(0, os.path.join(HERE, "site"))
    os.environ["PYTHONPATH"] = os.path.join(HERE, "site")
    with tempfile.TemporaryDirectory(prefix="ghostdeploy-") as folder:
        with zipfile.ZipFile(os.path.join(HERE, kit["wheel"])) as wheel:
            wheel.extractall(folder)
        sys.path.insert(0, folder)
        from ghostdeploy.device.kit import main as prove

        return prove(os.path.join(HERE, "bundles"), os.path.abspath(given.out), 0 if given.no_bench else 20)


def _misfit(kit: dict[str, str]) -> str | None:
    """Returns why this device cannot use the kit."""
    version, machine = ".".join(platform.python_version_tuple()[:2]), platform.machine()
    if machine not in (kit["architecture"], {"aarch64": "arm64"}.get(kit["architecture"])):
        return "this kit is for {}, this machine is {}".format(kit["architecture"], machine)
    if version != kit["python"]:
        return "this kit is for Python {}, this is {}: run it with python{}".format(
            kit["python"], version, kit["python"]
        )
    return None


def _altered(files: dict[str, str]) -> str | None:
    """Returns which file is not as it was packed."""
    for name, digest in sorted(files.items()):
        try:
            with open(os.path.join(HERE, *name.split("/")), "rb") as stream:
                found = hashlib.sha256(stream.read()).hexdigest()
        except OSError as error:
            return f"{name} cannot be read: {error.strerror}"
        if found != digest:
            return f"{name} was altered: copy the kit again"
    return None


if __name__ == "__main__":
    sys.exit(main())
