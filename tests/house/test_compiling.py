"""The compiler of the tests remembers what is the same, and nothing else."""

from __future__ import annotations

import sys

import pytest

from tests.conftest import require_program

ONE = "int number(void) { return NUMBER; }\n"


@pytest.fixture
def compiling(tmp_path, capfd):
    """A function: source, header → the object, and what the compiler said; `calls` counts the real ones."""
    from tests import compiling

    real, counted, kept = require_program("cc"), tmp_path / "counted", tmp_path / "kept"
    counted.write_text(f'#!/bin/sh\necho >> {tmp_path}/calls\nexec {real} "$@"\n')
    counted.chmod(0o755)
    kept.mkdir()

    def compiled(source, header, *words):
        folder = tmp_path / f"sources{len(list(tmp_path.glob('sources*')))}"
        folder.mkdir()
        (folder / "number.h").write_text(header)
        (folder / "number.c").write_text('#include "number.h"\n' + source)
        target = folder / "number.o"
        code = compiling.main(str(kept), [str(counted), *words, "-c", str(folder / "number.c"), "-o", str(target)])
        return code, target.read_bytes() if target.exists() else None, capfd.readouterr().err

    compiled.calls = lambda: len((tmp_path / "calls").read_text().splitlines())
    return compiled


def test_the_same_is_compiled_once_and_what_differs_anew(compiling):
    first = compiling(ONE, "#define NUMBER 1\n", "-O1")
    assert (first[0], first[2], compiling.calls()) == (0, "", 1)
    assert compiling(ONE, "#define NUMBER 1\n", "-O1") == first
    assert compiling.calls() == 1

    assert compiling(ONE, "#define NUMBER 2\n", "-O1")[1] != first[1]
    assert compiling(ONE.replace("number", "other"), "#define NUMBER 1\n", "-O1")[1] != first[1]
    compiling(ONE, "#define NUMBER 1\n", "-O2")
    assert compiling.calls() == 4


@pytest.mark.parametrize(("source", "code"), [("int f(void) { int unused; return 0; }\n", 0), ("int f(\n", 1)])
def test_what_warns_or_fails_is_told_every_time(compiling, source, code):
    answers = [compiling(source, "", "-Wall") for _ in range(2)]

    assert [one[0] for one in answers] == [code, code]
    assert all("number.c" in one[2] for one in answers)
    assert compiling.calls() == 2


def test_exports_of_the_tests_compile_by_it():
    import os

    from ghostdeploy.exporters.native.compilers import find_compiler
    from ghostdeploy.exporters.native.options import default_levels

    require_program("cc")
    assert "compiling.py" in os.environ["CC"]
    assert sys.executable in find_compiler(default_levels()[0]).compile
