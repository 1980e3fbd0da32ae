"""The runner is built of pinned source by named programs; what is missing or fails is one sentence."""

from __future__ import annotations

import hashlib
import io
import re
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

from ghostdeploy.errors import BadInput, ExportFailed, MissingDependency
from ghostdeploy.remote.runner import __main__ as command
from ghostdeploy.remote.runner import build, recipe, replay, source
from tests.conftest import require, require_program
from tests.runners import require_runner

ROOT = Path(__file__).parents[2]
PROGRAM = """#!/bin/sh
[ "$1" = -dumpfullversion ] && echo 12.2.0 && exit 0
echo "$(basename $0) has a bad day"
exit 9
"""


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv(recipe.VARIABLE, str(tmp_path / "runners"))
    return tmp_path / "runners"


@pytest.fixture
def programs(tmp_path, monkeypatch):
    """A PATH with nothing but what a test puts there."""
    folder = tmp_path / "programs"
    folder.mkdir()
    for name in ("sh", "echo", "basename"):
        (folder / name).symlink_to(shutil.which(name))
    monkeypatch.setenv("PATH", str(folder))

    def add(*names):
        for name in names:
            (folder / name).write_text(PROGRAM)
            (folder / name).chmod(0o755)

    return add


def kept(cache):
    return sorted(path.name for path in cache.iterdir()) if cache.exists() else []


@pytest.fixture
def archive(monkeypatch):
    """A source package that is taken for the pinned one."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as file:
        for name in ("CMakeLists.txt", "src/net.h", "python/never.py", "../outside"):
            file.addfile(tarfile.TarInfo(f"ncnn-1/{name}"), io.BytesIO())
    digest = hashlib.sha256(packed.getvalue()).hexdigest()
    monkeypatch.setattr(source, "SHA256", digest)
    monkeypatch.setattr(build, "SHA256", digest)
    return packed.getvalue()


def test_the_version_is_that_of_the_constraints():
    assert f"ncnn=={recipe.VERSION}" in (ROOT / "constraints.txt").read_text().splitlines()


@pytest.mark.parametrize(
    ("there", "lacks", "hint"),
    [
        ((), "aarch64-linux-gnu-g++", "apt-get install g++-aarch64-linux-gnu"),
        (("aarch64-linux-gnu-g++",), "cmake", "apt-get install cmake, or pip install cmake"),
        (("aarch64-linux-gnu-g++", "cmake"), "make", "apt-get install make"),
    ],
)
def test_a_missing_program_is_named_with_its_package(cache, programs, there, lacks, hint):
    programs(*there)

    with pytest.raises(MissingDependency, match=rf"needs {lacks.replace('+', '.')}, not found here") as caught:
        build.build("aarch64")
    assert caught.value.hint == hint
    assert build.built("aarch64") is None


def test_without_the_source_the_command_is_named(cache, programs):
    programs("aarch64-linux-gnu-g++", "cmake", "make")

    with pytest.raises(MissingDependency, match=f"source package {recipe.ARCHIVE}") as caught:
        build.build("aarch64")
    assert "python -m ghostdeploy.remote.runner" in caught.value.hint
    assert not [name for name in kept(cache) if not name.endswith(".log")]


def test_another_source_is_refused(cache, tmp_path):
    other = tmp_path / recipe.ARCHIVE
    other.write_bytes(b"something else")

    with pytest.raises(BadInput, match=r"has SHA-256 [0-9a-f]{12}…, expected ad8cdd63e975…"):
        source.package(other)
    with pytest.raises(MissingDependency, match="is not at /no/file"):
        source.package(Path("/no/file"))


def test_a_failing_build_keeps_its_log_and_nothing_else(cache, programs, archive):
    programs("aarch64-linux-gnu-g++", "cmake", "make")
    source.keep(archive)

    with pytest.raises(ExportFailed, match="build of the runner for aarch64 failed in cmake with code 9") as caught:
        build.build("aarch64", jobs=1)
    assert "cmake has a bad day" in caught.value.log.read_text()
    assert kept(cache) == sorted([recipe.ARCHIVE, caught.value.log.name])


def test_a_damaged_package_in_the_cache_is_absent(cache, archive):
    source.keep(archive)
    path = cache / recipe.ARCHIVE
    path.write_bytes(path.read_bytes()[:-1])

    with pytest.raises(MissingDependency, match="source package"):
        source.package()


def test_only_what_the_build_reads_is_unpacked(tmp_path, archive):
    root = build._unpacked(archive, tmp_path)

    assert sorted(path.name for path in root.rglob("*") if path.is_file()) == ["CMakeLists.txt", "net.h"]


def test_an_address_of_pip_is_found_where_pip_refuses_the_version():
    said = f"Discarding https://index.example/packages/ab/{recipe.ARCHIVE} (from https://index.example/simple/ncnn/)"

    assert source._ADDRESS.search(said)[0] == f"https://index.example/packages/ab/{recipe.ARCHIVE}"


def test_the_command_tells_the_runner_that_is_built(capsys, monkeypatch):
    found = require_runner()
    monkeypatch.setattr(sys, "argv", ["runner"])

    assert command.main() == 0
    assert hashlib.sha256(found).hexdigest() in capsys.readouterr().out


def test_the_command_says_what_is_missing_in_one_sentence(capsys, monkeypatch, cache, programs):
    monkeypatch.setattr(sys, "argv", ["runner", "--source", "/no/file"])

    assert command.main() == 4
    error, hint = capsys.readouterr().err.splitlines()
    assert error.startswith("error: the source package")
    assert hint.startswith("hint: ")


def test_its_kernels_are_those_of_the_recipe(tmp_path):
    tool = require_program("aarch64-linux-gnu-objdump")
    (tmp_path / "runner").write_bytes(require_runner())

    said = subprocess.run([tool, "-d", tmp_path / "runner"], capture_output=True, text=True, check=True).stdout

    assert "sdot" in said, "dot products"
    assert "smmla" in said, "matrix products"
    assert re.search(r"fmla\s+v\d+\.8h", said) is None, "no float16"


@pytest.mark.full
@pytest.mark.slow
def test_the_runner_of_this_machine_is_built_and_runs(cache, tmp_path, tiny_bundle):
    """Ten minutes: the whole of ncnn, for x86-64."""
    require("ncnn")
    require_program(recipe.RECIPES["x86_64"].compiler)
    require_program("cmake")
    try:
        data = package_of_the_user()
    except MissingDependency as error:
        pytest.skip(error.message)
    source.keep(data)
    program = tmp_path / "runner"
    program.write_bytes(build.runner("x86_64"))
    program.chmod(0o755)
    given = replay.prepare(tiny_bundle("ncnn"))
    for name, content in (("graph", given.graph), ("weights", given.weights), ("inputs", given.inputs)):
        (tmp_path / name).write_bytes(content)

    files = [tmp_path / name for name in ("graph", "weights", "inputs", "outputs")]
    done = subprocess.run([program, "replay", *files, "--threads", "2"], capture_output=True, text=True, check=False)

    assert done.returncode == 0, done.stdout
    found = replay.judge(given, replay.answer(done.stdout)[-1], files[-1].read_bytes(), "x86_64")
    assert found.verdict == "passed"
    assert not list(cache.glob(".build-*"))


def package_of_the_user():
    """Returns the source package that the user fetched."""
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv(recipe.VARIABLE)
        return source.package()
