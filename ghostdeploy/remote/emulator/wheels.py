"""The wheels for Arm: what ghostdeploy needs to run there, and the engines, pinned to the byte by `wheels.txt`.

pip fetches and unpacks them for another machine than its own: `--platform` names each C library that a wheel may ask
for, because pip compares them letter by letter. Versions are those of `constraints.txt`, which the tests compare.
"""

from __future__ import annotations

import re
import tempfile
from hashlib import sha256
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from ghostdeploy.errors import BadInput, MissingDependency
from ghostdeploy.isolation import child_command
from ghostdeploy.remote.emulator.programs import ProgramFailed, run
from ghostdeploy.remote.emulator.recipe import PYTHON, WHEELS

if TYPE_CHECKING:
    from ghostdeploy.target import Target

NAMES = (
    *("click", "msgspec", "numpy", "pillow", "rich", "markdown-it-py", "mdurl", "Pygments", "typing_extensions"),
    *("onnxruntime", "flatbuffers", "packaging", "protobuf"),
    *("ai-edge-litert", "backports.strenum"),
    *("ncnn", "openvino", "executorch"),
)
"""Each as in `constraints.txt`, and what it imports when it runs a bundle."""
UNUSED = frozenset(
    {
        *("ml_dtypes", "openvino-telemetry", "portalocker", "requests", "tqdm"),
        *("expecttest", "hydra-core", "hypothesis", "kgb", "mpmath", "omegaconf", "parameterized", "py-cpuinfo"),
        *("pytorch-tokenizers", "pyyaml", "ruamel.yaml", "sympy", "tabulate", "torchao"),
    }
)
"""What some of them ask for, and no bundle loads."""
_GLIBC = (36, 35, 34, 31, 28, 27, 26, 24, 17)
"""Minor versions of glibc 2 that wheels may ask for, Debian's own first."""
_LINE = re.compile(r"(\S+)==(\S+) --hash=sha256:[0-9a-f]{64}")


def has_engine(row: Target) -> bool:
    """Returns whether what a target's engine needs is among the wheels; a compiled network has none."""
    known = {name.lower() for name in NAMES}
    choices = (choice.split("|") for choice in row.runtime_packages)
    return row.runtime_packages != () and all(
        any(module.replace("_", "-") in known for module in modules) for modules in choices
    )


def install(site: Path, listed: Path = WHEELS) -> None:
    """Fetches the wheels and unpacks them.

    Args:
        site: Folder to make, for PYTHONPATH.
        listed: Names, versions and hashes.

    Raises:
        BadInput: A wheel has another hash than the list says; nothing of it was used.
        MissingDependency: pip is not here, or got no wheel.
        OutputError: The disk is full.
    """
    words: list[str | Path] = [
        "install",
        "--no-compile",
        "--require-hashes",
        "--requirement",
        listed.absolute(),
        "--target",
        site.absolute(),  # pip runs in another folder
    ]
    _pip(words, site.parent)


def versions(listed: Path = WHEELS) -> dict[str, str]:
    """Returns the version of each wheel in the list."""
    return {found[1]: found[2] for line in listed.read_text("ascii").splitlines() if (found := _LINE.match(line))}


def regenerate(constraints: Path, listed: Path = WHEELS) -> None:
    """Writes the list: the versions of `constraints`, and the hashes of what the package index has now."""
    pinned = dict(line.split("==") for line in constraints.read_text("ascii").splitlines() if "==" in line)
    lines = []
    with tempfile.TemporaryDirectory() as folder:
        for name in NAMES:
            got = Path(folder, name)
            _pip(["download", "--dest", got, f"{name}=={pinned[name]}"], Path(folder))
            (wheel,) = got.iterdir()
            lines.append(f"{name}=={pinned[name]} --hash=sha256:{sha256(wheel.read_bytes()).hexdigest()}\n")
    listed.write_text("".join(lines), "ascii")


def _pip(words: list[str | Path], folder: Path) -> None:
    """Runs pip for the emulated machine; the user's index, proxy and certificates count."""
    if find_spec("pip") is None:
        raise MissingDependency("fetching wheels for Arm needs pip, not installed here", hint="python -m ensurepip")
    platforms = [word for minor in _GLIBC for word in ("--platform", f"manylinux_2_{minor}_aarch64")]
    machine = ["--python-version", PYTHON, "--implementation", "cp", "--platform", "manylinux2014_aarch64", *platforms]
    command = child_command("pip", *map(str, words), "--no-deps", "--only-binary=:all:", *machine)
    variables = {"PIP_USER": "0", "PIP_REQUIRE_VIRTUALENV": "0", "PIP_DISABLE_PIP_VERSION_CHECK": "1"}
    try:
        run(command, folder=folder, variables=variables)
    except ProgramFailed as failed:
        if "DO NOT MATCH THE HASHES" in failed.output:
            name = re.search(r"^ +(\S+).* from ", failed.output, re.MULTILINE)
            raise BadInput(
                f"the wheel of {name[1] if name else 'a package'} for Arm has another SHA-256 than wheels.txt says",
                hint="look at your package index or mirror: what it gave was not used",
            ) from failed
        raise MissingDependency(
            f"pip got no wheels for Arm: {failed.reason}", hint="check the network and the package index of pip"
        ) from failed
