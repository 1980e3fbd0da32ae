"""Compilers of the native target: zig for every processor, the two ways to get one, and one that fails."""

from __future__ import annotations

import struct
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from ghostdeploy import targets
from ghostdeploy.bundle.folder import open_bundle
from ghostdeploy.convert.base import ExportJob
from ghostdeploy.convert.process import Converter
from ghostdeploy.errors import ExportFailed
from ghostdeploy.exporters.native.compilers import find_compiler
from ghostdeploy.machine import architecture
from tests.commands import assert_one_sentence, run
from tests.conftest import require, require_package
from tests.onnx_files import saved, small

ELF_MACHINES = {"x86-64": 62, "x86-64-v3": 62, "x86-64-v4": 62, "aarch64": 183}
OUT = "it's: (an) odd folder"
HOST = "x86-64-v3" if architecture() == "x86-64" else "aarch64"


@pytest.fixture(autouse=True, scope="module")
def runtime():
    require("native")


@pytest.fixture
def no_compiler(tmp_path, monkeypatch):
    """A PATH without programs."""
    monkeypatch.delenv("CC", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path / "empty"))


@pytest.fixture
def no_wheel(tmp_path, monkeypatch):
    """A `ziglang` without zig comes first on the import path of children."""
    package = tmp_path / "site" / "ziglang"
    package.mkdir(parents=True)
    (package / "__init__.py").touch()
    monkeypatch.setenv("PYTHONPATH", str(package.parent))


@pytest.fixture
def model(tmp_path):
    """A file whose network no cache knows."""
    return saved(small(size=24), tmp_path / "model.onnx")


def export(capsys, model, tmp_path, *words):
    return run(capsys, "export", model, "-t", "native", "-o", tmp_path / OUT, *words)


@pytest.mark.slow
@pytest.mark.parametrize(
    "level", [HOST, *(pytest.param(one, marks=pytest.mark.full) for one in ELF_MACHINES if one != HOST)]
)
def test_zig_alone_makes_a_library_for_every_processor(model, tmp_path, capsys, no_compiler, monkeypatch, level):
    require_package("ziglang")
    monkeypatch.setenv("GHOSTDEPLOY_CACHE", str(tmp_path / "cache"))

    answer = export(capsys, model, tmp_path, "--arch", level, "--json")

    assert answer.code == 0, answer.err
    bundle = open_bundle(answer.document["bundles"][0]["path"])
    library = (bundle.path / "lib" / f"{level}.so").read_bytes()
    assert library[:4] == b"\x7fELF"
    assert struct.unpack_from("<H", library, 18)[0] == ELF_MACHINES[level]
    assert bundle.manifest.verdict == "passed"
    assert (tmp_path / "cache" / "zig").is_dir()
    assert {path.name for path in (bundle.path / "lib").iterdir()} <= {f"{level}.so", f"{HOST}.so", "x86-64-v4.so"}


@pytest.mark.parametrize("level", [HOST, "wasm32"])
def test_without_a_compiler_both_ways_to_get_one_are_told(
    model, tmp_path, capsys, no_compiler, no_wheel, monkeypatch, level
):
    monkeypatch.setenv("GHOSTDEPLOY_CACHE", "")

    answer = export(capsys, model, tmp_path, "--arch", level)

    wanted = "clang with WebAssembly and wasm-ld" if level == "wasm32" else "cc or gcc or clang"
    assert_one_sentence(answer, 4, f"no C compiler for {level}", wanted, "ziglang", 'pip install "ghostdeploy[native]"')
    assert not list((tmp_path / OUT).glob("*/manifest.json"))


def test_a_compiler_that_fails_is_named_and_its_log_is_kept(model, tmp_path, capsys, monkeypatch):
    broken = tmp_path / "cc"
    broken.write_text(f"#!{sys.executable}\nimport sys\nsys.exit('error: out of registers')\n")
    broken.chmod(0o755)
    monkeypatch.setenv("CC", str(broken))
    monkeypatch.setenv("GHOSTDEPLOY_CACHE", "")

    answer = export(capsys, model, tmp_path)

    assert_one_sentence(answer, 5, "cc failed with code 1: error: out of registers", "log")
    (log,) = (tmp_path / OUT).glob("*.log")
    assert "-ffp-contract=fast" in log.read_text()


def test_the_compiler_that_the_environment_names_comes_first(tmp_path, monkeypatch):
    named = tmp_path / "mine"
    named.write_text("#!/bin/sh\n")
    named.chmod(0o755)
    monkeypatch.setenv("CC", f"{named} --quick")

    assert find_compiler(HOST).compile[:2] == (str(named), "--quick")


def test_a_converter_that_is_stopped_takes_its_compilers_along(tiny_bundle, tmp_path, monkeypatch):
    told = tmp_path / "told"
    compiler = tmp_path / "cc"
    compiler.write_text(f"#!/bin/sh\necho $$ >> {told}\nexec sleep 600\n")
    compiler.chmod(0o755)
    source = tiny_bundle("onnx") / "model.onnx"
    monkeypatch.setenv("CC", str(compiler))
    (tmp_path / "payload").mkdir()
    job = ExportJob(
        source=str(source),
        folder=str(tmp_path / "payload"),
        result=str(tmp_path / "result.json"),
        precision="fp32",
        input_names=("input",),
        output_names=("logits",),
        dynamic_batch=False,
    )

    with ThreadPoolExecutor(1) as pool, Converter(targets.find("native"), tmp_path / "log") as converter:
        conversion = pool.submit(converter.convert, job, seconds=600)
        wait_until(lambda: told.exists() and told.read_text().endswith("\n"))
        converter.close()
        with pytest.raises(ExportFailed, match="was killed by SIGKILL"):
            conversion.result()

    wait_until(lambda: not any(alive(int(number)) for number in told.read_text().split()))


def wait_until(done):
    end = time.monotonic() + 120
    while not done():
        assert time.monotonic() < end, "it does not come"
        time.sleep(0.01)


def alive(number):
    try:
        return Path(f"/proc/{number}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False
