"""C compilers: the system's, else the one in the `ziglang` wheel, which has every processor.

    instruction set         compiler of the system                                   linked by
    this processor's        $CC, cc, gcc, clang                                      the same
    aarch64, x86-64         aarch64-linux-gnu-gcc, x86_64-linux-gnu-gcc              the same
    wasm32                  $CC or clang, where it has WebAssembly                   wasm-ld

A library for Linux is linked with the C library, for threads; zig makes what it needs for that once for each
processor, in `$ZIG_GLOBAL_CACHE_DIR`, by default `zig` in the folder of cached conversions. WebAssembly is linked with
nothing.
"""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

from ghostdeploy.convert.cache import Cache
from ghostdeploy.errors import MissingDependency
from ghostdeploy.machine import architecture
from ghostdeploy.runtimes.native.program import LEVELS, WASM

_FLAGS = (
    "-std=gnu11",
    "-O3",
    "-ffp-contract=fast",
    "-fno-math-errno",
    "-fvisibility=hidden",
    "-Wall",
    "-Wextra",
)
_LEVEL_FLAGS = {
    "x86-64": ("-march=x86-64",),
    "x86-64-v3": ("-march=x86-64-v3",),
    "x86-64-v3-vnni": ("-march=x86-64-v3", "-mavxvnni"),
    "x86-64-v4": ("-march=x86-64-v4", "-mprefer-vector-width=512"),
    "x86-64-v4-vnni": ("-march=x86-64-v4", "-mavx512vnni", "-mprefer-vector-width=512"),
    "aarch64": ("-march=armv8-a",),
    "aarch64-dotprod": ("-march=armv8.2-a+dotprod",),
    WASM: ("--target=wasm32", "-msimd128"),
}
_ZIG_FLAGS = {
    "x86-64": ("-target", "x86_64-linux-gnu.2.17", "-mcpu=x86_64"),
    "x86-64-v3": ("-target", "x86_64-linux-gnu.2.17", "-mcpu=x86_64_v3"),
    "x86-64-v3-vnni": ("-target", "x86_64-linux-gnu.2.17", "-mcpu=x86_64_v3+avxvnni"),
    "x86-64-v4": ("-target", "x86_64-linux-gnu.2.17", "-mcpu=x86_64_v4", "-mprefer-vector-width=512"),
    "x86-64-v4-vnni": ("-target", "x86_64-linux-gnu.2.17", "-mcpu=x86_64_v4+avx512vnni", "-mprefer-vector-width=512"),
    "aarch64": ("-target", "aarch64-linux-gnu.2.17", "-mcpu=generic"),
    "aarch64-dotprod": ("-target", "aarch64-linux-gnu.2.17", "-mcpu=generic+dotprod"),
    WASM: ("-target", "wasm32-freestanding", "-msimd128"),
}
_ELF, _FREE = ("-fPIC",), ("-ffreestanding",)
_ELF_LINK = ("-shared", "-s", "-Wl,-Bsymbolic")
_WASM_STACK = 256 << 10
"""Bytes; it lies before the data, so that a stack that is too deep is a trap and not a wrong answer."""
_WASM_LINK = ("--no-entry", "--export-dynamic", "--stack-first", "-z", f"stack-size={_WASM_STACK}", "-s")
_CROSS = {"x86-64": "x86_64-linux-gnu-gcc", "aarch64": "aarch64-linux-gnu-gcc"}


class Compiler(NamedTuple):
    """Beginnings of the commands that compile and link for an instruction set."""

    compile: tuple[str, ...]
    link: tuple[str, ...]
    caches: bool = False
    """It is zig, which keeps folders of its own."""


def find_compiler(level: str) -> Compiler:
    """Returns the compiler for an instruction set.

    Args:
        level: A name of `LEVELS`.

    Raises:
        MissingDependency: None is here.
    """
    found = (_for_wasm if level == WASM else _for_linux)(level) or _zig(level)
    if found is None:
        raise MissingDependency(
            f"no C compiler for {level} was found, expected {_wanted(level)} on the PATH, or the ziglang wheel"
        )
    return found


def zig_folders(home: Path, own: str) -> dict[str, str]:
    """Returns the variables that tell zig where its folders are.

    Args:
        home: The folder where it runs.
        own: One in that, for what is not kept.
    """
    named, kept = os.environ.get("ZIG_GLOBAL_CACHE_DIR"), Cache.of_user().folder
    everything = Path(named) if named else home / own / "zig" if kept is None else kept / "zig"
    try:
        everything.mkdir(parents=True, exist_ok=True)
    except OSError:
        everything = home / own / "zig"
    return {"ZIG_GLOBAL_CACHE_DIR": str(everything.absolute()), "ZIG_LOCAL_CACHE_DIR": f"{own}/zig-local"}


def _family(level: str) -> str:
    return next(name for name, levels in LEVELS.items() if level in levels)


def _names(level: str) -> list[str]:
    given = [os.environ["CC"]] if os.environ.get("CC") else []
    if level == WASM:
        return [*given, "clang"]
    family = _family(level)
    return [*given, "cc", "gcc", "clang"] if family == architecture() else [_CROSS[family]]


def _installed(level: str) -> list[list[str]]:
    """Returns the beginnings of commands, with whole paths: they run in another folder."""
    named = [shlex.split(name) for name in _names(level)]
    found = [(shutil.which(words[0]), words[1:]) for words in named if words]
    return [[str(Path(program).absolute()), *others] for program, others in found if program]


def _wanted(level: str) -> str:
    return " or ".join(_names(level)) + (" with WebAssembly and wasm-ld" if level == WASM else "")


def _for_linux(level: str) -> Compiler | None:
    for words in _installed(level):
        return Compiler((*words, *_FLAGS, *_ELF, *_LEVEL_FLAGS[level]), (*words, *_ELF_LINK))
    return None


def _for_wasm(level: str) -> Compiler | None:
    for words in _installed(level):
        if "wasm32" in _says(*words, "--print-targets"):
            linker = shutil.which(_says(*words, "-print-prog-name=wasm-ld").strip())
            if linker:
                return Compiler((*words, *_FLAGS, *_FREE, *_LEVEL_FLAGS[level]), (linker, *_WASM_LINK))
    return None


def _zig(level: str) -> Compiler | None:
    found = find_spec("ziglang")
    program = Path(found.origin or "ziglang").with_name("zig.exe" if os.name == "nt" else "zig") if found else Path()
    if not program.is_file():
        return None
    zig = str(program)
    flags = (*_FLAGS, *_ZIG_FLAGS[level])
    if level == WASM:
        return Compiler((zig, "cc", *flags, *_FREE), (zig, "wasm-ld", *_WASM_LINK), caches=True)
    return Compiler((zig, "cc", *flags, *_ELF), (zig, "cc", *_ZIG_FLAGS[level], *_ELF_LINK), caches=True)


def _says(*command: str) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout
