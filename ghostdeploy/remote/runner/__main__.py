"""Fetches ncnn's source package and builds the runner, before the first device or where a network is.

python -m ghostdeploy.remote.runner [--arch aarch64|x86_64] [--source FILE] [--jobs N]
"""

from __future__ import annotations

import argparse
import hashlib
import sys
from pathlib import Path

from ghostdeploy.errors import GhostDeployError
from ghostdeploy.remote.runner.build import build, built
from ghostdeploy.remote.runner.recipe import RECIPES
from ghostdeploy.remote.runner.source import COMMAND, fetch, keep, package


def main() -> int:
    """Returns the exit code."""
    parser = argparse.ArgumentParser(prog=COMMAND, description="Builds the program that proves bundles on phones.")
    parser.add_argument("--arch", choices=tuple(RECIPES), default="aarch64")
    parser.add_argument("--source", type=Path, help="the source package of ncnn, where pip cannot fetch it")
    parser.add_argument("--jobs", type=int, help="compilers at a time")
    words = parser.parse_args()
    try:
        found = built(words.arch)
        if found is None:
            if words.source is None:
                fetch()
            else:
                keep(package(words.source))
            found = build(words.arch, jobs=words.jobs)
    except GhostDeployError as error:
        sys.stderr.write(f"error: {error.message}\n" + (f"hint: {error.hint}\n" if error.hint else ""))
        return error.exit_code
    sys.stdout.write(f"runner for {words.arch}: {len(found):,} bytes, {hashlib.sha256(found).hexdigest()}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
