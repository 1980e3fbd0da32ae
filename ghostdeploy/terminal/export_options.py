"""The options of `export`, as one decorator."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ghostdeploy import targets
from ghostdeploy.tasks import table as tasks
from ghostdeploy.terminal.console import GivenPath

if TYPE_CHECKING:
    from collections.abc import Callable

    from ghostdeploy.targets import Option

_FOLDER = GivenPath()


def _per_channel(text: str) -> tuple[float, ...]:
    try:
        values = tuple(float(part) for part in text.split(","))
    except ValueError:
        values = ()
    if len(values) not in (1, 3):
        raise click.BadParameter(f"{text!r} is not three numbers such as 0.485,0.456,0.406, or one for gray")
    return values


def _pad(text: str) -> float | tuple[float, ...]:
    values = _per_channel(text)
    return values[0] if len(values) == 1 else values


def _size(text: str) -> int | tuple[int, int]:
    try:
        height, width = (int(part) for part in (text.split(",") if "," in text else [text, text]))
    except ValueError as error:
        raise click.BadParameter(
            f"{text!r} is neither one number of pixels nor height and width such as 192,320"
        ) from error
    return height if height == width else (height, width)


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


_PREPROCESSING = (
    click.option(
        "--image-size",
        "size",
        type=_size,
        metavar="N|H,W",
        help="Input height and width in pixels; one number for both.",
    ),
    click.option(
        "--crop-fraction", type=float, metavar="F", help="Centre crop as a fraction of the resized short side."
    ),
    click.option("--interpolation", type=click.Choice(["bilinear", "bicubic"]), help="Resize filter."),
    click.option("--mean", type=_per_channel, metavar="R,G,B", help="Per-channel mean on the scale of --unit."),
    click.option(
        "--std", type=_per_channel, metavar="R,G,B", help="Per-channel standard deviation on the scale of --unit."
    ),
    click.option("--unit", type=click.Choice(["0-1", "0-255"]), help="Scale of pixels for --mean and --std."),
    click.option("--color", type=click.Choice(["rgb", "bgr", "gray"]), help="Channels of the input, in their order."),
    click.option("--channels", type=click.Choice(["1", "3"]), help="1 is gray, 3 is colour."),
    click.option(
        "--resize",
        type=click.Choice(["crop", "stretch", "letterbox"]),
        help="Crop the centre, stretch, or fit the whole image and pad.",
    ),
    click.option(
        "--rounding", type=click.Choice(["round", "floor", "ceil"]), help="Of resized sides, to whole pixels."
    ),
    click.option(
        "--sampling",
        type=click.Choice(["half-pixel", "corner"]),
        help="corner resizes as OpenCV's warpPerspective does for NanoDet.",
    ),
    click.option("--anchor", type=click.Choice(["center", "corner"]), help="Place of the image in a letterbox."),
    click.option("--pad", type=_pad, metavar="V|R,G,B", help="Padding of a letterbox."),
    click.option(
        "--pad-space", type=click.Choice(["pixels", "normalized"]), help="Scale of --pad: pixels of 0-255, or inputs."
    ),
    click.option("--upscale/--no-upscale", default=None, help="Whether a letterbox enlarges small images."),
)

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
        help="Largest allowed drop of the task's measure (default: 0.01, one point; landmarks: 0.03 of the error).",
    ),
    click.option(
        "--task",
        metavar="TASK",
        help=f"What the outputs mean: {', '.join(row.name for row in tasks.ROWS)} (default: classify where there are "
        "labels, else raw).",
    ),
    click.option(
        "--decode",
        metavar="KIND[:KEY=VALUE,...]",
        help="With --task detect: how boxes come out of the outputs: boxes, gfl, yolov5, yolov8, ssd or end2end.",
    ),
    click.option("--min-sqnr", type=float, metavar="DB", help="SQNR that every output must keep (raise it above 20)."),
    click.option(
        "--min-agreement",
        type=float,
        metavar="SHARE",
        help="Share of decisions that INT8 must keep, by its lower 95 % bound (raise it above 0.95).",
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
    *_PREPROCESSING,
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
