"""Builds the runner: ncnn's static library by its own CMake, then one compilation of ours, linked statically.

    source package → library (minutes) → runner (seconds)

Both are files of the cache, whole or absent, whose names are hashes of everything that they are made of: the source
package, the recipe, the compiler's version, and for the runner our sources. CMake and compilers run in child processes
with a log, which stays where they fail.
"""

from __future__ import annotations

import hashlib
import io
import json
import shutil
import subprocess
import tarfile
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from ghostdeploy.cached import keep_checked, open_checked
from ghostdeploy.errors import ExportFailed, MissingDependency, OutputError
from ghostdeploy.files import write_failure
from ghostdeploy.machine import usable_cores
from ghostdeploy.remote.runner.recipe import HERE, RECIPES, SHA256, SOURCES, Recipe, runners_folder
from ghostdeploy.remote.runner.source import COMMAND, MOST, package

if TYPE_CHECKING:
    from collections.abc import Callable

    Step = Callable[[list[str | Path]], None]

_ARCHIVE = "libncnn.a"
_SECONDS = 3600.0
_STALE_S = 2 * _SECONDS
_WANTED = ("CMakeLists.txt", "LICENSE.txt", "cmake/", "src/")
"""Parts of the source package that the build reads."""


def runner(architecture: str) -> bytes:
    """Returns the runner of an architecture, built before or now.

    Args:
        architecture: Of `recipe.RECIPES`.

    Raises:
        MissingDependency: A compiler, CMake or the source package is not here.
        ExportFailed: The build failed; its log is named.
        OutputError: The cache cannot be written.
    """
    found = built(architecture)
    return build(architecture) if found is None else found


def built(architecture: str) -> bytes | None:
    """Returns the runner of an architecture; None where it has not been built with this compiler."""
    recipe = RECIPES[architecture]
    if shutil.which(recipe.compiler) is None:
        return None
    with open_checked(runners_folder(), _name(recipe), MOST) as stream:
        return None if stream is None else stream.read()


def build(architecture: str, *, source: Path | None = None, jobs: int | None = None) -> bytes:
    """Builds the runner of an architecture and keeps it.

    Args:
        architecture: Of `recipe.RECIPES`.
        source: The source package of ncnn; None is the fetched one.
        jobs: Compilers at a time; None is one per usable core.

    Raises:
        MissingDependency: A compiler, CMake or the source package is not here.
        ExportFailed: It failed; its log is named.
        OutputError: The cache cannot be written.
    """
    recipe, folder = RECIPES[architecture], runners_folder()
    cmake = _require(recipe)
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        log = folder / f"{_name(recipe)}.log"
        for left in folder.glob(".build-*"):  # of builds that were killed
            if left.stat().st_mtime < time.time() - _STALE_S:
                shutil.rmtree(left, ignore_errors=True)
        log.unlink(missing_ok=True)
        with tempfile.TemporaryDirectory(prefix=".build-", dir=folder) as work:
            step = partial(_run, recipe, log)
            with open_checked(folder, _name(recipe, library=True), MOST) as stream:
                library = None if stream is None else stream.read()
            if library is None:
                library = _library(recipe, package(source), Path(work), [cmake, str(jobs or usable_cores())], step)
                _keep(folder, _name(recipe, library=True), library)
            made = _linked(recipe, library, Path(work), step)
            _keep(folder, _name(recipe), made)
    except OSError as error:
        raise OutputError(f"the runner cannot be written to {folder}: {write_failure(error)}") from error
    log.unlink(missing_ok=True)
    return made


def _keep(folder: Path, name: str, data: bytes) -> None:
    if not keep_checked(folder, name, [data], MOST):
        raise OutputError(f"others may write {folder}, so nothing is kept there", hint=f"chmod go-w {folder}")


def _require(recipe: Recipe) -> str:
    """Returns the path of CMake.

    Raises:
        MissingDependency: Names what is not here.
    """
    cmake = shutil.which("cmake")
    if shutil.which(recipe.compiler) is None:
        raise MissingDependency(
            f"the runner for {recipe.name} needs {recipe.compiler}, not found here",
            hint=f"apt-get install {recipe.package}",
        )
    if cmake is None:
        raise MissingDependency(
            f"the runner for {recipe.name} needs cmake, not found here",
            hint="apt-get install cmake, or pip install cmake",
        )
    if shutil.which("make") is None:
        raise MissingDependency(f"the runner for {recipe.name} needs make, not found here", hint="apt-get install make")
    return cmake


def _library(recipe: Recipe, data: bytes, work: Path, cmake: list[str], step: Step) -> bytes:
    """Returns a tar file of ncnn's library and headers; `cmake` is its path and the number of compilers at a time."""
    root = _unpacked(data, work)
    build, flags = work / "build", " ".join(recipe.flags)
    compilers = {"CMAKE_C_COMPILER": recipe.compiler.replace("g++", "gcc"), "CMAKE_CXX_COMPILER": recipe.compiler}
    options = recipe.options | compilers | {"CMAKE_C_FLAGS": flags, "CMAKE_CXX_FLAGS": flags}
    step([cmake[0], "-S", root, "-B", build, "-G", "Unix Makefiles", *(f"-D{k}={v}" for k, v in options.items())])
    step([cmake[0], "--build", build, "--target", "ncnn", "--parallel", cmake[1]])
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as archive:
        for path in (
            build / "src" / _ARCHIVE,
            *sorted((build / "src").glob("*.h")),
            *sorted((root / "src").glob("*.h")),
        ):
            archive.add(path, path.name)
    return packed.getvalue()


def _linked(recipe: Recipe, library: bytes, work: Path, step: Step) -> bytes:
    """Returns the runner."""
    there, result = work / "library", work / "runner"
    with tarfile.open(fileobj=io.BytesIO(library)) as archive:
        archive.extraction_filter = getattr(tarfile, "data_filter", None)
        archive.extractall(there)
    paths: list[str | Path] = ["-I", there, HERE / "runner.cpp", there / _ARCHIVE]
    step([recipe.compiler, "-std=c++17", "-O2", *recipe.flags, "-static", "-fopenmp", "-s", *paths, "-o", result])
    return result.read_bytes()


def _unpacked(data: bytes, work: Path) -> Path:
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        wanted = [one for one in archive.getmembers() if one.name.partition("/")[2].startswith(_WANTED)]
        archive.extraction_filter = getattr(tarfile, "data_filter", None)
        archive.extractall(work, wanted)
    (root,) = (path for path in work.iterdir() if path.is_dir())
    return root


def _run(recipe: Recipe, log: Path, words: list[str | Path]) -> None:
    with log.open("ab") as stream:
        stream.write((" ".join(map(str, words)) + "\n").encode())
        stream.flush()
        try:
            code = subprocess.run(
                [str(word) for word in words],
                stdin=subprocess.DEVNULL,
                stdout=stream,
                stderr=subprocess.STDOUT,
                timeout=_SECONDS,
                check=False,
            ).returncode
        except subprocess.TimeoutExpired as error:
            raise _failed(recipe, f"took more than {_SECONDS:g} s", log) from error
    if code:
        raise _failed(recipe, f"failed in {Path(words[0]).name} with code {code}", log)


def _failed(recipe: Recipe, how: str, log: Path) -> ExportFailed:
    return ExportFailed(
        f"the build of the runner for {recipe.name} {how}",
        log=log,
        hint=f"read {log}, then {COMMAND} --arch {recipe.name}",
    )


def _name(recipe: Recipe, *, library: bool = False) -> str:
    """Returns the name of what is built in the cache."""
    version = subprocess.run(
        [recipe.compiler, "-dumpfullversion"], capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL
    ).stdout.strip()
    ours = {} if library else {name: hashlib.sha256((HERE / name).read_bytes()).hexdigest() for name in SOURCES}
    parts = [SHA256, ours, recipe.compiler, version, recipe.flags, recipe.options]
    digest = hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:32]
    return f"{'ncnn' if library else 'runner'}-{recipe.name}-{digest}"
