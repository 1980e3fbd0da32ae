"""Prints the arguments for the compiler, see `ghostdeploy.samples.cpp`."""

from __future__ import annotations

import argparse
import sys

from ghostdeploy.errors import MissingDependency
from ghostdeploy.samples import report
from ghostdeploy.samples.cpp import compiler_arguments


def main(arguments: list[str] | None = None) -> int:
    """Prints them on one line; returns the exit code."""
    what = "Print the compiler arguments: g++ -std=c++17 -O2 -o classify $(python -m ghostdeploy.samples.cpp)"
    argparse.ArgumentParser(prog="cpp", description=what).parse_args(arguments)
    try:
        print(*compiler_arguments())
    except MissingDependency as error:
        return report(error)
    return 0


if __name__ == "__main__":
    sys.exit(main())
