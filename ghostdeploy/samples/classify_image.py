"""The smallest complete app: loads a bundle once and classifies images.

    python -m ghostdeploy.samples.classify_image BUNDLE IMAGE…

An image that cannot be classified is named and does not affect the others. Needs the bundle's engine, never torch.
"""

from __future__ import annotations

import argparse
import sys

import ghostdeploy as gd
from ghostdeploy.samples import report
from ghostdeploy.visible import visible_line


def main(arguments: list[str] | None = None) -> int:
    """Prints the best classes of each image; returns the exit code."""
    parser = argparse.ArgumentParser(prog="classify_image", description="Classify images with a bundle.")
    parser.add_argument("bundle", metavar="BUNDLE", help="folder that `ghostdeploy export` wrote")
    parser.add_argument("images", metavar="IMAGE", nargs="+", help="image files")
    parser.add_argument("-k", "--top", type=int, default=3, metavar="K", help="classes to print (default 3)")
    options = parser.parse_args(arguments)
    code = 0
    try:
        with gd.load(options.bundle) as model:
            for image in options.images:
                try:
                    classes = model.classify(image, k=options.top)
                except gd.errors.InputError as error:
                    code = report(error)
                    continue
                for label, probability in classes:
                    print(visible_line(f"{image}: {label} {probability:.1%}"))
    except gd.GhostDeployError as error:
        return report(error)
    return code


if __name__ == "__main__":
    sys.exit(main())
