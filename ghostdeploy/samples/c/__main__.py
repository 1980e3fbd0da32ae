"""Writes images as the C program reads them, see `ghostdeploy.samples.c`."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import ghostdeploy as gd
from ghostdeploy.bundle.folder import open_bundle
from ghostdeploy.samples import report
from ghostdeploy.samples.c import write_pixels


def main(arguments: list[str] | None = None) -> int:
    """Writes them and prints their paths; returns the exit code."""
    parser = argparse.ArgumentParser(prog="c", description="Write images as PPM files of a bundle's size.")
    parser.add_argument("bundle", metavar="BUNDLE", help="folder of a native bundle for bytes (--input uint8-nhwc)")
    parser.add_argument("images", type=Path, nargs="+", metavar="IMAGE", help="image files")
    parser.add_argument("-o", "--out", type=Path, required=True, metavar="DIR", help="folder for the PPM files")
    options = parser.parse_args(arguments)
    try:
        print(*write_pixels(open_bundle(options.bundle), options.images, options.out), sep="\n")
    except gd.GhostDeployError as error:
        return report(error)
    return 0


if __name__ == "__main__":
    sys.exit(main())
