"""The options of `tune`: those of `export` that every candidate shares, and its own."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from ghostdeploy.terminal.export_options import export_options

if TYPE_CHECKING:
    from collections.abc import Callable

_SHARED = (
    "model",
    "target_names",
    "weights",
    "weights_key",
    "num_classes",
    "calibration",
    "data",
    "max_drop",
    "skip_bad",
    "size",
    "crop_fraction",
    "interpolation",
    "mean",
    "std",
    "unit",
    "color",
    "channels",
    "resize",
    "rounding",
    "sampling",
    "anchor",
    "pad",
    "pad_space",
    "upscale",
    "labels",
    "input_kind",
    "out",
    "name",
    "timeout",
)
_OWN = (
    click.option(
        "--precision",
        "precisions",
        multiple=True,
        metavar="NAME",
        help="fp32, fp16, int8 or hybrid; repeatable (default: all).",
    ),
    click.option(
        "--objective",
        type=click.Choice(["latency", "throughput", "size"]),
        default="latency",
        show_default=True,
        help="What to optimise.",
    ),
    click.option("--max-size", metavar="SIZE", help="Largest payload: 1.5 (MB), 800kB, 2MiB."),
    click.option("--max-latency", type=float, metavar="MS", help="Largest median latency, in milliseconds."),
    click.option("--batch", type=click.IntRange(1, 4096), default=1, show_default=True, help="Images per call."),
    click.option(
        "--budget",
        type=float,
        default=10.0,
        show_default=True,
        metavar="MINUTES",
        help="Time limit of the search, over all restarts.",
    ),
    click.option("--on", "where", metavar="WHERE", help="Measure on a device: ssh://[user@]host[:port]."),
    click.option(
        "--device-python", default="python3", show_default=True, metavar="PATH", help="With --on: Python of the device."
    ),
    click.option("--force", is_flag=True, help="Discard an earlier run, and replace an existing bundle."),
)


def tune_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Adds MODEL and all options, in the order in which `--help` shows them."""
    for option in reversed(_OWN):
        command = option(command)
    return command


def shared_parameters() -> list[click.Parameter]:
    """Returns MODEL and the options of `export` that every candidate shares."""

    @click.command()
    @export_options
    def export(**_: Any) -> None:
        """Only its parameters are wanted."""

    by_name = {parameter.name: parameter for parameter in export.params}
    return [by_name[name] for name in _SHARED]
