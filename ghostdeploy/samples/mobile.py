"""Writes the input contract of a bundle as Kotlin or Swift source, so that no number is copied by hand.

    python -m ghostdeploy.samples.mobile BUNDLE --kotlin -o ModelContract.kt
    python -m ghostdeploy.samples.mobile BUNDLE --swift -o ModelContract.swift

Everything comes from `manifest.json`: the model file with its SHA-256, tensor shape, type and layout, resize, crop and
interpolation, mean and standard deviation, and the labels file. The code that uses it is in docs/mobile.md.

A float32 input takes (pixel / 255 − mean) / std per channel. A uint8 input takes the pixels as they are: the graph
normalises, and mean and standard deviation only document it.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ghostdeploy.bundle.folder import LABELS, open_bundle
from ghostdeploy.bundle.placing import write_own
from ghostdeploy.errors import BundleError, GhostDeployError, UsageError
from ghostdeploy.preprocess import described
from ghostdeploy.runtimes.scores import scored_classes
from ghostdeploy.samples import report

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from ghostdeploy.bundle.manifest import Manifest, Scores

_MADE = "// Written by ghostdeploy.samples.mobile"
Value = str | bool | int | tuple[int, ...] | tuple[float, ...]


@dataclass(frozen=True)
class Constant:
    """One line of the contract."""

    name: str
    """In snake case; each language has its own spelling."""
    value: Value
    comment: str = ""


def contract(manifest: Manifest) -> list[Constant]:
    """Returns the constants that an app needs, in the order in which it needs them.

    Raises:
        BundleError: Not one image in and one row of logits out, a batch that an app does not have, or preprocessing
            that the code of docs/mobile.md does not do.
    """
    image, *more = manifest.inputs
    spec = manifest.preprocess
    batch = image.shape[0]
    _refuse_other_preprocessing(manifest)
    if more or image.layout is None or image.dtype not in {"float32", "uint8"} or batch not in {1, None}:
        found = ", ".join(f"{one.name} {one.dtype} {list(one.shape)} {one.layout}" for one in manifest.inputs)
        raise BundleError(
            f"{manifest.name} takes {found}, expected one image, float32 or uint8, one at a time",
            hint="export without --batch, or write the contract of this model by hand",
        )
    hashes = {record.path: record.sha256 for record in manifest.files}
    classes = scored_classes(manifest)
    names = [Constant("labels_file", LABELS, "UTF-8, one class per line, in the order of the output")]
    names.append(Constant("class_count", classes))
    shape = tuple(1 if size is None else size for size in image.shape)
    return [
        Constant("model_name", manifest.name),
        Constant("model_file", Path(manifest.payload).name),
        Constant("model_sha256", hashes[manifest.payload], "compare after a download, before the file is loaded"),
        *(names if classes else ()),
        Constant("input_name", image.name),
        Constant("input_shape", shape, f"{image.layout.upper()}, RGB"),
        Constant("input_type", image.dtype),
        Constant("channels_last", image.layout == "nhwc"),
        Constant("output_name", manifest.outputs[0].name, _SCORES[manifest.scores] if classes else _NO_SCORES),
        Constant(
            "resize_short_side",
            spec.rounded(spec.sides[0] / spec.crop_fraction),
            "pixels; the long side keeps the aspect ratio, rounded down",
        ),
        Constant("crop_size", spec.sides[0], "pixels, from the centre"),
        Constant("interpolation", spec.interpolation, "antialiased when it shrinks"),
        Constant("normalise", image.dtype == "float32", _normalise_comment(image.dtype)),
        Constant("mean", tuple(value / spec.white for value in spec.mean), "RGB, on the 0 to 1 scale"),
        Constant("standard_deviation", tuple(value / spec.white for value in spec.std), "RGB, on the 0 to 1 scale"),
    ]


def _refuse_other_preprocessing(manifest: Manifest) -> None:
    spec = manifest.preprocess
    ways = (spec.resize, spec.sampling, spec.color)
    if spec.ready or ways != ("crop", "half-pixel", "rgb") or spec.sides[0] != spec.sides[1]:
        raise BundleError(
            f"{manifest.name} prepares images by {described(spec)}, expected the centre crop of a square RGB image",
            hint="write the preprocessing of this model by hand, after ghostdeploy/preprocess",
        )


_SCORES: dict[Scores, str] = {
    "logits": "logits: softmax is up to the app",
    "probabilities": "probabilities: the network ends in softmax",
}


_NO_SCORES = "not class scores: what they mean is up to the app"


def _normalise_comment(dtype: str) -> str:
    if dtype == "float32":
        return "float32 input: (pixel / 255 - mean) / standard deviation"
    return "uint8 input: pixels as they are, the graph normalises"


def kotlin(manifest: Manifest) -> str:
    """Returns the contract as a Kotlin object."""

    def line(constant: Constant) -> str:
        value, name = constant.value, constant.name.upper()
        if not isinstance(value, tuple):
            return f"    const val {name} = {_scalar(value, escape_dollar)}"
        if isinstance(value[0], float):
            return f"    val {name} = floatArrayOf({', '.join(f'{number!r}f' for number in value)})"
        return f"    val {name} = intArrayOf({', '.join(map(str, value))})"

    def escape_dollar(text: str) -> str:
        return text.replace("$", "\\$")

    return _source(manifest, "object ModelContract {", line)


def swift(manifest: Manifest) -> str:
    """Returns the contract as a Swift enumeration without cases."""

    def line(constant: Constant) -> str:
        value = constant.value
        first, *rest = constant.name.split("_")
        name = first + "".join(word.capitalize() for word in rest)
        if not isinstance(value, tuple):
            return f"    static let {name} = {_scalar(value, str)}"
        kind = "Float" if isinstance(value[0], float) else "Int"
        return f"    static let {name}: [{kind}] = [{', '.join(map(repr, value))}]"

    return _source(manifest, "enum ModelContract {", line)


def _source(manifest: Manifest, head: str, line: Callable[[Constant], str]) -> str:
    constants = contract(manifest)
    rows = [line(one) + (f"  // {one.comment}" if one.comment else "") for one in constants]
    made = f"{_MADE} from manifest.json of {_printable(manifest.name)}; do not edit."
    return "\n".join([made, head, *rows, "}", ""])


def _scalar(value: str | int, escape: Callable[[str], str]) -> str:
    if isinstance(value, int):
        return str(value).lower()  # true and false in both languages
    quoted = _printable(value).replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escape(quoted)}"'


def _printable(text: str) -> str:
    """Returns the text; a line break in a name would put foreign code into the source.

    Raises:
        BundleError: A character that cannot be printed.
    """
    if not text.isprintable():
        raise BundleError(f"manifest has {text!r}, expected printable characters in what becomes source code")
    return text


def main(arguments: Sequence[str] | None = None) -> int:
    """Writes the file; returns the exit code."""
    parser = argparse.ArgumentParser(prog="mobile", description="Write a bundle's input contract as source code.")
    parser.add_argument("bundle", metavar="BUNDLE", help="folder that `ghostdeploy export` wrote")
    language = parser.add_mutually_exclusive_group(required=True)
    language.add_argument("--kotlin", dest="write", action="store_const", const=kotlin, help="for Android")
    language.add_argument("--swift", dest="write", action="store_const", const=swift, help="for iOS")
    parser.add_argument("-o", "--out", type=Path, metavar="FILE", help="file to write (default: standard output)")
    options = parser.parse_args(arguments)
    try:
        text = options.write(open_bundle(options.bundle).manifest)
        if options.out is None:
            print(text, end="")
        else:
            _write(options.out, text)
    except GhostDeployError as error:
        return report(error)
    return 0


def _write(path: Path, text: str) -> None:
    """Writes the file; one that is there is replaced only where this sample wrote it."""
    head = _MADE.encode()
    if not write_own(path, text.encode().removeprefix(head), head):
        raise UsageError(f"{path} exists and was not written by this sample", hint="give another file with -o")


if __name__ == "__main__":
    sys.exit(main())
