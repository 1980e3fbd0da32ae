"""Builds the runner: ncnn's static library by its own CMake, then one compilation of ours, linked statically.

The result is a file of the cache, whole or absent, whose name is a hash of everything that it is made of: the source
package, our sources, the recipe, and the compiler's version. CMake and compilers run in child processes with a log,
which stays where they fail.
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

from ghostdeploy.cached import keep_checked, open_checked
from ghostdeploy.errors import ExportFailed, MissingDependency, OutputError
from ghostdeploy.files import write_failure
from ghostdeploy.machine import usable_cores
from ghostdeploy.remote.runner.recipe import HERE, RECIPES, SHA256, SOURCES, Recipe, runners_folder
from ghostdeploy.remote.runner.source import COMMAND, MOST, package

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
    data = package(source)
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        log = folder / f"{_name(recipe)}.log"
        for left in folder.glob(".build-*"):  # of builds that were killed
            if left.stat().st_mtime < time.time() - _STALE_S:
                shutil.rmtree(left, ignore_errors=True)
        with tempfile.TemporaryDirectory(prefix=".build-", dir=folder) as work:
            made = _compile(recipe, data, Path(work), log, [cmake, str(jobs or usable_cores())])
        kept = keep_checked(folder, _name(recipe), [made], MOST)
    except OSError as error:
        raise OutputError(f"the runner cannot be written to {folder}: {write_failure(error)}") from error
    if not kept:
        raise OutputError(f"others may write {folder}, so nothing is kept there", hint=f"chmod go-w {folder}")
    log.unlink(missing_ok=True)
    return made


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


def _compile(recipe: Recipe, data: bytes, work: Path, log: Path, cmake: list[str]) -> bytes:
    """Returns the runner; `cmake` is its path and the number of compilers at a time."""
    root = _unpacked(data, work)
    library, flags = work / "build", " ".join(recipe.flags)
    compilers = {"CMAKE_C_COMPILER": recipe.compiler.replace("g++", "gcc"), "CMAKE_CXX_COMPILER": recipe.compiler}
    options = recipe.options | compilers | {"CMAKE_C_FLAGS": flags, "CMAKE_CXX_FLAGS": flags}
    log.unlink(missing_ok=True)
    step = partial(_run, recipe, log)
    step([cmake[0], "-S", root, "-B", library, "-G", "Unix Makefiles", *(f"-D{k}={v}" for k, v in options.items())])
    step([cmake[0], "--build", library, "--target", "ncnn", "--parallel", cmake[1]])
    result = work / "runner"
    paths: list[str | Path] = [
        "-I",
        root / "src",
        "-I",
        library / "src",
        HERE / "runner.cpp",
        library / "src" / "libncnn.a",
    ]
    words: list[str | Path] = ["-std=c++17", "-O2", *recipe.flags, "-static", "-fopenmp", "-s", *paths, "-o", result]
    step([recipe.compiler, *words])
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


def _name(recipe: Recipe) -> str:
    """Returns the name of the built runner in the cache."""
    version = subprocess.run(
        [recipe.compiler, "-dumpfullversion"], capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL
    ).stdout.strip()
    sources = {name: hashlib.sha256((HERE / name).read_bytes()).hexdigest() for name in SOURCES}
    parts = [SHA256, sources, recipe.compiler, version, recipe.flags, recipe.options]
    return f"runner-{recipe.name}-{hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:32]}"
