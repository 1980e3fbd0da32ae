"""Compiles the sources of a network: one library for each instruction set, each source on its own, two at a time.

Compilers run in the folder of the sources and get names relative to it: zig reads the lists of headers that Clang
writes, and takes a colon and a space in the name of a folder for the end of a name.
"""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from ghostdeploy.convert.base import RefusedError
from ghostdeploy.exporters.native.compilers import find_compiler, zig_folders
from ghostdeploy.runtimes.native.program import WASM

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_AT_ONCE = 2


def library_name(level: str) -> str:
    """Returns the name of the file that is made for an instruction set."""
    return f"{level}.{'wasm' if level == WASM else 'so'}"


def build(sources: Sequence[Path], level: str, library: Path) -> None:
    """Compiles and links a library.

    Args:
        sources: C files of one folder; headers lie beside them.
        level: A name of `LEVELS`.
        library: File to write.

    Raises:
        MissingDependency: No compiler for it is here.
        RefusedError: The compiler fails; what it says is in the log.
    """
    compiler = find_compiler(level)
    home, own = sources[0].parent, f".{level}"
    (home / own).mkdir()
    surroundings = os.environ | (zig_folders(home, own) if compiler.caches else {})
    run = partial(_run, folder=home, surroundings=surroundings)
    objects = [f"{own}/{source.stem}.o" for source in sources]
    commands = [
        [*compiler.compile, "-c", source.name, "-o", made] for source, made in zip(sources, objects, strict=True)
    ]
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        list(pool.map(run, commands))
    run([*compiler.link, *objects, "-o", str(library.absolute())])
    shutil.rmtree(home / own)


def _run(command: list[str], folder: Path, surroundings: Mapping[str, str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=folder, env=surroundings)
    sys.stderr.write(f"{shlex.join(command)}\n{done.stdout}{done.stderr}")
    if done.returncode:
        lines = [line for line in done.stderr.splitlines() if "error" in line] or done.stderr.splitlines()[-1:]
        raise RefusedError(f"{Path(command[0]).name} failed with code {done.returncode}: {' '.join(lines[:1])}")
