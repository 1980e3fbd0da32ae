"""A C++ program that runs an OpenVINO bundle, and the compiler arguments to build it.

    g++ -std=c++17 -O2 -o classify $(python -m ghostdeploy.samples.cpp)

The `openvino` wheel ships OpenVINO's C++ headers and libraries, so nothing else of OpenVINO has to be installed. The
library has no unversioned name in the wheel; it is therefore given to the linker by its path.
"""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

from ghostdeploy.errors import MissingDependency


def compiler_arguments() -> list[str]:
    """Returns the source file, and the include, library and run paths of the installed `openvino` wheel.

    Raises:
        MissingDependency: No wheel with headers and the library is installed.
    """
    spec = find_spec("openvino")
    home = Path(spec.origin).parent if spec is not None and spec.origin else Path("openvino")
    include = home / "include"
    libraries = sorted((home / "libs").glob("libopenvino.so*"))
    if not (include / "openvino" / "openvino.hpp").is_file() or not libraries:
        raise MissingDependency(
            "OpenVINO's C++ headers and library are not installed here, expected them inside the openvino wheel",
            hint='pip install "ghostdeploy[openvino-runtime]"',
        )
    source = Path(__file__).with_name("classify.cpp")
    return [
        str(source),
        "-isystem",
        str(include),
        str(libraries[-1]),
        f"-Wl,-rpath,{home / 'libs'}",
        "-lz",
        "-ljpeg",
        "-lpng",
    ]
