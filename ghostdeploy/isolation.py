"""Import paths: modules come from installed libraries, never from the working folder.

`python -m` puts the working folder first on the import path, `python script.py` the script's folder, and an empty or
relative entry of PYTHONPATH means the working folder as well. An `onnx.py` beside a checkpoint would then run in place
of the library. So every child process gets the import path of its parent without these folders, and the command line
removes them from its own. What stays: absolute entries of PYTHONPATH, sub-folders that a relative one names, what
`.pth` files add, what the program appended after the standard library itself, and a folder into which `pip install
--target` put us.

It imports only what Python has loaded at its start, because it runs while the working folder is still searched first.
"""

from __future__ import annotations

import io  # noqa: TC003 - `typing` is not loaded yet
import os
import sys

_PACKAGE = os.path.dirname(os.path.realpath(__file__))
_STARTER = os.path.join(_PACKAGE, "start_child.py")
INTERPRETER = "GHOSTDEPLOY_INTERPRETER"
"""Environment variable: words that start Python, JSON, where an emulator must be named for every process."""


def import_path() -> list[str]:
    """Returns the import path of this process, absolute entries only, without the folders where it was started."""
    named, started = _named(), _started_in()
    libraries = _place(os.path.dirname(os.__file__))
    places = [_place(entry) for entry in sys.path]
    front = places.index(libraries) if libraries in places else len(places)
    kept = [
        entry
        for index, (entry, place) in enumerate(zip(sys.path, places, strict=True))
        if os.path.isabs(entry) and (index >= front or place not in started or place in named)
    ]
    known = {_place(entry) for entry in kept}
    return [entry for place, entry in named.items() if place not in known] + kept


def leave_start_folder() -> None:
    """Takes the folders where this process was started off its own import path; for programs of ours alone."""
    sys.path[:] = import_path()


def is_our_program() -> bool:
    """Returns whether this process is `ghostdeploy …` or `python -m ghostdeploy…`, and no program that embeds us."""
    words = sys.orig_argv
    module = next((words[i + 1] for i, word in enumerate(words[:-1]) if word == "-m"), "")
    script = os.path.basename(sys.argv[0]) if getattr(sys, "argv", None) else ""
    return f"{module}.".startswith("ghostdeploy.") if script == "-m" else script in ("ghostdeploy", "ghostdeploy.exe")


def child_command(module: str, *words: str) -> list[str]:
    """Returns the command of a child process that runs `main()` of one of our modules; see `child_environment`.

    Args:
        module: Dotted name.
        words: Its command line.
    """
    import json

    flags = sys.flags
    kept = ["-I"] if flags.isolated else ["-E"] * flags.ignore_environment + ["-s"] * flags.no_user_site
    python = json.loads(os.environ.get(INTERPRETER, "null")) or [sys.executable]
    return [*python, *kept, _STARTER, json.dumps(import_path()), module, *words]


def child_environment(**variables: str) -> dict[str, str]:
    """Returns the environment of a child process: ours, with an import path that names no working folder.

    Args:
        variables: Set in addition.
    """
    found = os.environ | {"PYTHONSAFEPATH": "1"} | variables  # for processes that the child starts itself
    found.pop("PYTHONPATH", None)
    named = list(_named().values())
    return found | ({"PYTHONPATH": os.pathsep.join(named)} if named else {})


def answers() -> io.BufferedWriter:
    """Returns the standard output of this process for replies only; all other output goes to standard error.

    Libraries print anywhere, from C as well; their lines must not be read as our replies.
    """
    sys.stdout.flush()
    ours = os.dup(1)
    os.dup2(2, 1)
    return os.fdopen(ours, "wb")


def _named() -> dict[str, str]:
    """Returns the absolute entries of PYTHONPATH, by their place."""
    value = "" if sys.flags.ignore_environment else os.environ.get("PYTHONPATH", "")
    return {_place(entry): entry for entry in value.split(os.pathsep) if os.path.isabs(entry)}


def _started_in() -> set[str]:
    """Returns the working folder, that at the start if the shell passed it, and the script's folder."""
    found = {_place(os.environ.get("PWD", ""))} | {_place(folder) for folder in _working_folder()}
    script = getattr(sys.modules.get("__main__"), "__file__", None)
    if script is not None:
        found.add(_place(os.path.dirname(os.path.abspath(script))))
    home = os.path.dirname(_PACKAGE)
    if any(name.startswith("ghostdeploy-") and name.endswith(".dist-info") for name in os.listdir(home)):
        found.discard(_place(home))
    return found


def _working_folder() -> list[str]:
    try:
        return [os.getcwd()]
    except OSError:  # it was removed
        return []


def _place(entry: str) -> str:
    return os.path.normcase(os.path.realpath(entry)) if os.path.isabs(entry) else ""
