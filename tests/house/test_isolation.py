"""No process of ours imports what happens to lie in the folder where it was started."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import ghostdeploy
from ghostdeploy import isolation
from ghostdeploy.deploy.measure.bench_process import Process
from ghostdeploy.errors import BundleError

PACKAGE = Path(ghostdeploy.__file__).parent
NAMES = (
    "click",
    "collections",
    "ghostdeploy",
    "json",
    "msgspec",
    "numpy",
    "onnx",
    "pathlib",
    "sitecustomize",
    "typing",
)
PROGRAM = f"""
import json, os, pathlib, subprocess, sys
from ghostdeploy.isolation import child_command, child_environment, import_path
for name in {NAMES}:
    pathlib.Path(name + ".py").write_text("open('stolen', 'a').write(__name__)")
command = child_command("ghostdeploy.convert.child", "ghostdeploy.wheel:is_device_wheel", "onnx")
done = subprocess.run(command, env=child_environment(), stdin=subprocess.DEVNULL, check=True)
print(json.dumps(import_path()))
"""
STARTS = {
    "code": ("-c", PROGRAM),
    "script": ("program.py",),
    "module": ("-m", "program"),
}


def attempt(folder, *words, python=(sys.executable,), **variables):
    environment = {name: value for name, value in os.environ.items() if name not in {"PYTHONPATH", "PYTHONSAFEPATH"}}
    return subprocess.run(
        [*python, *words], cwd=folder, env=environment | variables, capture_output=True, text=True, check=False
    )


@pytest.fixture
def folder(tmp_path):
    """A working folder beside one with libraries."""
    (tmp_path / "here").mkdir()
    (tmp_path / "here" / "program.py").write_text(PROGRAM)
    (tmp_path / "libraries").mkdir()
    return tmp_path / "here"


@pytest.mark.parametrize("start", STARTS)
@pytest.mark.parametrize("entries", [None, "", ".", ":{libraries}", "sub:.:{libraries}"])
def test_a_child_sees_its_parents_libraries_and_no_working_folder(start, entries, folder):
    libraries = folder.parent / "libraries"
    named = {} if entries is None else {"PYTHONPATH": entries.format(libraries=libraries)}

    done = attempt(folder, *STARTS[start], **named)

    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert not (folder / "stolen").exists()
    assert str(folder) not in map(os.path.realpath, found)
    assert (str(libraries) in found) == ("libraries" in (entries or ""))
    assert (str(folder / "sub") in found) == ("sub" in (entries or ""))
    assert all(Path(entry).is_absolute() for entry in found)


def test_a_folder_that_pythonpath_names_in_full_stays_even_where_it_is_the_working_folder(folder):
    code = "import json; from ghostdeploy.isolation import import_path; print(json.dumps(import_path()))"

    found = json.loads(attempt(folder, "-c", code, PYTHONPATH=str(folder)).stdout)

    assert found[0] == str(folder)
    assert "" not in found


def test_what_a_program_puts_before_the_libraries_comes_first_in_its_children(folder):
    code = (
        f"import sys, json; sys.path.insert(0, {str(folder.parent / 'libraries')!r}); sys.path.append('/opt/late')\n"
        "from ghostdeploy.isolation import import_path; print(json.dumps(import_path()))"
    )

    found = json.loads(attempt(folder, "-c", code).stdout)

    assert (found[0], found[-1]) == (str(folder.parent / "libraries"), "/opt/late")


def test_the_command_as_a_module_takes_nothing_from_the_working_folder(folder):
    for name in ("click", "msgspec", "numpy", "json", "typing", "rich"):
        (folder / f"{name}.py").write_text("open('stolen', 'a').write(__name__)")

    done = attempt(folder, "-m", "ghostdeploy", "models", "ghostnet_0*", "--json")

    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)
    assert not (folder / "stolen").exists()


def test_a_program_that_embeds_us_keeps_its_import_path(folder):
    done = attempt(folder, "-c", "import sys; before = list(sys.path); import ghostdeploy; print(before == sys.path)")

    assert done.stdout.strip() == "True", done.stderr


def test_every_child_is_started_by_one_command():
    """A child that is started otherwise imports from its working folder; the bootstrap only says which Python it is."""
    sources = {path.relative_to(PACKAGE): path.read_text("utf-8") for path in PACKAGE.rglob("*.py")}
    starters = {
        str(name) for name, text in sources.items() if re.search(r"sys\.executable|multiprocessing import", text)
    }

    assert starters == {"isolation.py", "remote/bootstrap.py"}


def test_children_need_no_working_folder_at_all(folder):
    gone = folder.parent / "gone"
    gone.mkdir()
    code = "import os; os.rmdir(os.getcwd()); from ghostdeploy.isolation import import_path; print(len(import_path()))"

    assert int(attempt(gone, "-c", code).stdout) > 1


TALKER = """
import os, sys
from ghostdeploy.isolation import answers
out = answers()
os.write(1, b"a library prints\\n" * 20000)
os.write(2, b"and warns\\n" * 20000)
print("from Python as well")
out.write(b'{"seconds": 1.0}\\n')
out.flush()
if sys.stdin.readline():
    out.write(b'{"seconds": [1.0], "peak_bytes": null}\\n')
    out.flush()
    sys.exit("the last word")
"""


def test_a_measured_process_may_print_more_than_a_pipe_holds():
    with Process([sys.executable, "-c", TALKER], "the talker") as process:
        assert process.loaded.seconds == 1.0
        assert process.ask("calls", 1).seconds == [1.0]
        with pytest.raises(BundleError, match="the last word"):
            process.ask("calls", 1)


def test_interpreter_flags_that_isolate_are_passed_on():
    code = "from ghostdeploy.isolation import child_command; print(child_command('a')[1:-3])"

    assert attempt(".", "-c", code, python=(sys.executable, "-I")).stdout.strip() == "['-I']"
    assert attempt(".", "-c", code, python=(sys.executable, "-E", "-s")).stdout.strip() == "['-E', '-s']"


def test_the_environment_of_a_child_names_no_working_folder(monkeypatch, tmp_path):
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(["", ".", str(tmp_path)]))
    assert isolation.child_environment(OMP_NUM_THREADS="3")["PYTHONPATH"] == str(tmp_path)

    monkeypatch.setenv("PYTHONPATH", os.pathsep)
    found = isolation.child_environment(OMP_NUM_THREADS="3")
    assert "PYTHONPATH" not in found
    assert (found["OMP_NUM_THREADS"], found["PYTHONSAFEPATH"]) == ("3", "1")
