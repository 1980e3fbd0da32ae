"""The options of `export`, as one decorator."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ghostdeploy import targets
from ghostdeploy.terminal.console import GivenPath

if TYPE_CHECKING:
    from collections.abc import Callable

    from ghostdeploy.targets import Option

_FOLDER = GivenPath()


def _triple(text: str) -> tuple[float, float, float]:
    try:
        red, green, blue = (float(part) for part in text.split(","))
    except ValueError as error:
        raise click.BadParameter(f"{text!r} is not three numbers such as 0.485,0.456,0.406") from error
    return red, green, blue


def _side(text: str) -> int:
    try:
        return int(text)
    except ValueError as error:
        raise click.BadParameter(f"{text!r} is not one number of pixels: images are square") from error


def _batch(text: str) -> int | None:
    if text == "dynamic":
        return None
    try:
        return int(text)
    except ValueError as error:
        raise click.BadParameter(f"{text!r} is neither a number nor `dynamic`") from error


def _names(text: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in text.split(",") if part.strip())


def _of_a_target(option: Option) -> Callable[..., Any]:
    """Returns the option for click."""
    if option.metavar is not None:
        return click.option(option.flag, type=_names, default="", metavar=option.metavar, help=option.help)
    if not option.choices:
        return click.option(option.flag, is_flag=True, help=option.help)
    choice, default = click.Choice(option.choices), option.choices[0]
    return click.option(option.flag, type=choice, default=default, show_default=True, help=option.help)


_OPTIONS = (
    click.argument("model", required=False),
    click.option(
        "-t",
        "--target",
        "target_names",
        multiple=True,
        metavar="TARGET",
        help=f"{', '.join(targets.TARGETS)} or all; repeatable.",
    ),
    click.option("--weights", type=_FOLDER, metavar="FILE", help="Checkpoint: .pth, .pt, .pth.tar or .safetensors."),
    click.option(
        "--weights-key",
        metavar="NAME",
        help="State dict of a checkpoint that holds several (default: the averaged one).",
    ),
    click.option("--num-classes", type=click.IntRange(1), metavar="N", help="Classes of a zoo MODEL (default 1000)."),
    click.option("--fp16", is_flag=True, help="Half-precision weights."),
    click.option("--int8", is_flag=True, help="Static INT8, weights and activations."),
    click.option("--hybrid", is_flag=True, help="INT8 weights in memory-bound layers, float elsewhere."),
    click.option(
        "--calib", "calibration", type=_FOLDER, metavar="PATH", help="Calibration images: a folder or an .npz."
    ),
    click.option(
        "--data",
        type=_FOLDER,
        metavar="PATH",
        help="Labelled images for the accuracy gate: a folder per class or an .npz.",
    ),
    click.option(
        "--max-drop",
        type=float,
        default=0.01,
        show_default=True,
        help="Largest allowed top-1 drop, absolute (0.01 is one point).",
    ),
    click.option("--skip-bad", is_flag=True, help="Leave out calibration images that cannot be decoded."),
    click.option(
        "--skip-pass",
        "skip_passes",
        multiple=True,
        metavar="NAME",
        help="Leave out a fold pass; repeatable. `inspect` shows the passes of a bundle.",
    ),
    click.option(
        "--align-channels",
        type=click.Choice(["8", "16", "32"]),
        help="Zero-pad channels to a multiple of this, exactly, so that GPU INT8 kernels take every layer.",
    ),
    *(_of_a_target(option) for row in targets.TARGETS.values() for option in row.options),
    click.option("--image-size", "size", type=_side, metavar="N", help="Input height and width in pixels."),
    click.option(
        "--crop-fraction", type=float, metavar="F", help="Centre crop as a fraction of the resized short side."
    ),
    click.option("--interpolation", type=click.Choice(["bilinear", "bicubic"]), help="Resize filter."),
    click.option("--mean", type=_triple, metavar="R,G,B", help="Per-channel mean on the 0-1 scale."),
    click.option("--std", type=_triple, metavar="R,G,B", help="Per-channel standard deviation on the 0-1 scale."),
    click.option("--labels", type=_FOLDER, metavar="FILE", help="Class names, one per line."),
    click.option(
        "--batch", type=_batch, default="1", show_default=True, metavar="N|dynamic", help="Images per inference."
    ),
    click.option(
        "--input",
        "input_kind",
        type=click.Choice(["float32-nchw", "uint8-nhwc"]),
        default="float32-nchw",
        show_default=True,
        help="uint8-nhwc bakes the normalisation into the graph.",
    ),
    click.option(
        "-o",
        "--out",
        type=_FOLDER,
        default=Path("build"),
        show_default=True,
        metavar="DIR",
        help="Parent folder of the bundles.",
    ),
    click.option("--name", metavar="NAME", help="Name of the bundles (default: the model's)."),
    click.option(
        "--timeout",
        type=float,
        default=900.0,
        show_default=True,
        metavar="SECONDS",
        help="Time limit per converter.",
    ),
    click.option("--dry-run", is_flag=True, help="Print the plan and stop."),
    click.option("--force", is_flag=True, help="Replace existing bundles."),
)


def export_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Adds MODEL and all options, in the order in which `--help` shows them."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command
