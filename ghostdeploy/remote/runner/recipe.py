"""What the runner is built from and how, per architecture.

The base code runs on every core of the architecture: for Arm that is ARMv8.0, so atomics are inlined as loops (GCC
would call outlined ones, which ask the kernel). ncnn has its INT8 kernels with dot products and 8-bit matrix products
beside them, and chooses at run time.

Left out: what the runner never uses. Its float16 and bfloat16 kernels would change numbers (see `runtimes.ncnn.engine`)
and are half of ncnn's compilation; images are prepared on the host; the GPU is not used.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

VERSION = "1.0.20261020"
"""Of ncnn, as in constraints.txt."""
SHA256 = "ad8cdd63e9755cfa8e23b9b6d9ce46156077d80298a89e7c3ba325ffccfca200"
"""Of its source package."""
ARCHIVE = f"ncnn-{VERSION}.tar.gz"
VARIABLE = "GHOSTDEPLOY_RUNNERS"
"""Environment variable: the folder for the source package and built runners."""
SOURCES = ("runner.cpp", "arrays.hpp", "probe.hpp", "rates.hpp")
HERE = Path(__file__).parent

OPTIONS = {
    "CMAKE_BUILD_TYPE": "Release",
    "NCNN_VERSION": VERSION.rpartition(".")[2],  # else the day of the build
    **dict.fromkeys(("NCNN_BUILD_TOOLS", "NCNN_BUILD_EXAMPLES", "NCNN_BUILD_BENCHMARK", "NCNN_INSTALL_SDK"), "OFF"),
    **dict.fromkeys(("NCNN_VULKAN", "NCNN_PIXEL", "NCNN_C_API", "NCNN_BF16", "NCNN_WEIGHT_QUANT"), "OFF"),
    "NCNN_DISABLE_PIC": "ON",
}
_ARM_OPTIONS = {
    "CMAKE_SYSTEM_NAME": "Linux",
    "CMAKE_SYSTEM_PROCESSOR": "aarch64",
    "NCNN_VFPV4": "OFF",
    "NCNN_ARM82": "OFF",
    "NCNN_ARM82DOT": "ON",
    "NCNN_ARM84I8MM": "ON",
}
_INTEL_OPTIONS = {
    **dict.fromkeys(("NCNN_AVX512", "NCNN_XOP", "NCNN_F16C", "NCNN_AVXNECONVERT"), "OFF"),
    **dict.fromkeys(("NCNN_AVXVNNIINT8", "NCNN_AVXVNNIINT16"), "OFF"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """How the runner of an architecture is built."""

    name: str
    compiler: str
    """C++ compiler; the C compiler is the same with `gcc`."""
    package: str
    """Debian's, which has it."""
    flags: tuple[str, ...]
    options: dict[str, str]
    """Of ncnn's CMake."""


RECIPES = {
    one.name: one
    for one in (
        Recipe(
            name="aarch64",
            compiler="aarch64-linux-gnu-g++",
            package="g++-aarch64-linux-gnu",
            flags=("-march=armv8-a", "-mno-outline-atomics"),
            options=OPTIONS | _ARM_OPTIONS,
        ),
        Recipe(
            name="x86_64",
            compiler="x86_64-linux-gnu-g++",
            package="g++",
            flags=("-march=x86-64",),
            options=OPTIONS | _INTEL_OPTIONS,
        ),
    )
}
"""By architecture: phones are `aarch64`, `x86_64` serves Android's emulator and tests on the host."""


def runners_folder() -> Path:
    """Returns the folder of the source package and of built runners."""
    named = os.environ.get(VARIABLE)
    if named:
        return Path(named).absolute()
    root = os.environ.get("XDG_CACHE_HOME", "")
    return (Path(root) if Path(root).is_absolute() else Path.home() / ".cache") / "ghostdeploy" / "runners"
