"""The request of one export: a frozen record, checked on construction."""

from __future__ import annotations

import os
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import msgspec
import numpy as np

from ghostdeploy import targets
from ghostdeploy.arguments import require_count, require_kind, require_path, require_seconds, require_share
from ghostdeploy.deploy.fold.passes import check_names
from ghostdeploy.deploy.prove.tolerance import MAX_DROP, TOLERANCES, VALUES_SQNR_DB
from ghostdeploy.errors import UsageError, did_you_mean
from ghostdeploy.preprocess import Preprocess
from ghostdeploy.tasks import table as tasks

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from ghostdeploy.targets import Option, Setting, Target

INPUTS = ("float32-nchw", "uint8-nhwc")
DEFAULT_OUT = Path("build")
DEFAULT_TIMEOUT = 900.0

_PATH = (str, os.PathLike)
_MAYBE_PATH = (*_PATH, type(None))
_SEVERAL = (tuple, list)
_KINDS: tuple[tuple[str, tuple[type, ...], str], ...] = (
    ("targets", _SEVERAL, "several names"),
    ("precision", (str,), "fp32, fp16, int8 or hybrid"),
    ("input", (str,), " or ".join(INPUTS)),
    ("calibration", (*_MAYBE_PATH, np.ndarray, dict), "a path, a uint8 array (N, H, W, 3), or arrays by input"),
    ("data", _MAYBE_PATH, "a path of labelled images"),
    ("task", (str, type(None)), "the name of a task"),
    ("decode", (str, type(None)), "a kind of head, such as gfl"),
    ("min_sqnr", (int, float, type(None)), "a number of decibels"),
    ("min_agreement", (int, float, type(None)), "a share, such as 0.98"),
    ("labels", _MAYBE_PATH, "a path of a text file with one class name per line"),
    ("preprocess", (dict,), "a dictionary with fields of Preprocess"),
    ("out", _PATH, "a path"),
    ("align_channels", (int, type(None)), "8, 16 or 32"),
    ("skip_passes", _SEVERAL, "several names"),
)
"""What the fields may be that are not numbers."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportConfig:
    """One export of one model to one or more targets.

    Raises:
        UsageError: A value is outside its range, a name is unknown, or a target does not make the precision.
    """

    targets: tuple[str, ...]
    """Names of rows of the target table."""
    precision: str = "fp32"
    batch: int | None = 1
    """Images per inference the payload is built for; None, or "dynamic", leaves it free."""
    input: Literal["float32-nchw", "uint8-nhwc"] = "float32-nchw"
    """`uint8-nhwc` bakes the normalisation into the graph."""
    calibration: Path | NDArray[Any] | dict[str, NDArray[Any]] | None = None
    """Image set without labels, or ready inputs of what no image can feed: calibration and golden vectors."""
    data: Path | None = None
    """Labelled image set for the accuracy gate."""
    max_drop: float | None = None
    """Largest allowed drop of the task's measure; None is 0.01, absolute, and of landmarks 0.03 of the error."""
    task: str | None = None
    """`NAME` or `NAME:key=value,…`, of the table of tasks; None lets the model decide, see `deploy.intake.task`."""
    decode: str | None = None
    """How boxes come out of a detector's outputs, `KIND[:key=value,…]`, see `tasks.detect.record`."""
    min_sqnr: float | None = None
    """Decibels that every output must keep on real images; None is the table's, 20."""
    min_agreement: float | None = None
    """Share of decisions that must stay, by the lower 95 % bound; None is the table's, 0.95."""
    labels: Path | None = None
    """Text file with one class name per line."""
    preprocess: dict[str, Any] = field(default_factory=dict)
    """Fields of `Preprocess` that replace the model's own."""
    out: Path = DEFAULT_OUT
    """Parent folder of the bundles."""
    replace: bool = False
    """Replace existing bundles."""
    timeout: float = DEFAULT_TIMEOUT
    """Seconds that one converter may take."""
    skip_bad: bool = False
    """Leave out calibration images that cannot be decoded, instead of refusing the set."""
    align_channels: int | None = None
    """Pad channels with zeros to a multiple of this: 8, 16 or 32."""
    skip_passes: tuple[str, ...] = ()
    """Names of passes to leave out, see `deploy.fold.passes`."""
    settings: Mapping[str, Setting] = field(default_factory=dict)
    """Values of options of a single target, see `Target.options`."""

    def __post_init__(self) -> None:
        """Checks all fields; paths given as text become paths."""
        self._check_kinds()
        if not self.targets:
            raise UsageError("no target given", hint=f"add -t with one of {', '.join(targets.TARGETS)}, or -t all")
        if self.precision not in targets.PRECISIONS:
            hint = did_you_mean(self.precision, targets.PRECISIONS, otherwise="fp32, fp16, int8 or hybrid")
            raise UsageError(f"unknown precision {self.precision!r}", hint=hint)
        for row in self.rows:
            targets.require_precision(row, self.precision)
        object.__setattr__(self, "batch", _batch(self.batch))
        object.__setattr__(self, "settings", _check_settings(self.settings, self.rows, self.precision))
        check_names(self.skip_passes)
        self._refuse_free_batch()
        if self.align_channels not in (None, 8, 16, 32):
            raise UsageError(f"align_channels is {self.align_channels}, expected 8, 16 or 32")
        if self.input not in INPUTS:
            raise UsageError(f"unknown input {self.input!r}", hint=f"inputs are {' and '.join(INPUTS)}")
        if self.max_drop is not None:
            object.__setattr__(self, "max_drop", require_share("max drop", self.max_drop))
        if self.task is not None:
            tasks.find(self.task.partition(":")[0])
        self._check_limits()
        object.__setattr__(self, "timeout", require_seconds("timeout", self.timeout))
        for name in ("calibration", "data", "labels", "out"):
            if isinstance(value := getattr(self, name), str):
                object.__setattr__(self, name, require_path(name, value))

    def _check_kinds(self) -> None:
        for name, kinds, expected in _KINDS:
            given = getattr(self, name)
            require_kind(name, given, kinds, expected)
            for one in given if kinds == _SEVERAL else ():
                require_kind(f"one of {name}", one, str, "a name")

    def _check_limits(self) -> None:
        """Limits may be raised: the table's are what a bundle promises."""
        least = TOLERANCES["int8"].agreement_ci95_low or 0.0
        for name, value, low, high in (
            ("min SQNR", self.min_sqnr, VALUES_SQNR_DB, 200.0),
            ("min agreement", self.min_agreement, least, 1.0),
        ):
            if value is not None and not low <= value <= high:
                raise UsageError(f"{name} is {value:g}, expected {low:g} to {high:g}: it can only be raised")

    def _refuse_free_batch(self) -> None:
        fixed = [row.name for row in self.rows if row.fixed_batch]
        if fixed and self.batch is None:
            hint = "omit --batch, or give a number: the runtime splits and pads any batch"
            raise UsageError(f"target {', '.join(fixed)} has a fixed batch, got dynamic", hint=hint)

    def settings_of(self, row: Target) -> dict[str, Setting]:
        """Returns the values of the options of `row`."""
        return {option.name: self.settings[option.name] for option in row.options if option.name in self.settings}

    def folder(self, name: str, row: Target) -> Path:
        """Returns where the bundle of a target goes, the model being called `name`."""
        return self.out / f"{name}-{row.name}-{self.precision}"

    @property
    def top1_drop(self) -> float:
        """Largest allowed drop of top-1, absolute."""
        return MAX_DROP if self.max_drop is None else self.max_drop

    @property
    def rows(self) -> list[Target]:
        """The rows of the target table, each once."""
        return [targets.find(name) for name in dict.fromkeys(self.targets)]


def _batch(given: Any) -> int | None:
    """Returns the number of images; None for a free batch, which the command line calls `dynamic`."""
    if given is None or (isinstance(given, str) and given == "dynamic"):
        return None
    hint = "give a number of images, or dynamic for any batch size"
    batch = require_count("batch", given, hint=hint)
    if batch > 4096:
        raise UsageError(f"batch is {batch}, expected 1 to 4096 or dynamic", hint=hint)
    return batch


def _check_settings(given: Mapping[str, Any], rows: Sequence[Target], precision: str) -> dict[str, Setting]:
    """Returns the settings that differ from their defaults, as the targets spell them.

    Args:
        given: Values by name.
        rows: The targets of the request.
        precision: Of the request.

    Raises:
        UsageError: A value is impossible, or would be without effect, silently.
    """
    found = {}
    for row in targets.TARGETS.values():
        for option in row.options:
            if option.name in given and (value := _checked(option, given[option.name])) != option.default:
                _require_effect(option, row, rows, precision)
                found[option.name] = value
    for row in rows:
        asked = {option.name: found[option.name] for option in row.options if option.name in found}
        if asked and row.check_settings is not None:
            found |= targets.resolve(row.check_settings, requirement=row.export_requirement)(asked)
    return found


def _checked(option: Option, value: Any) -> Setting:
    if option.metavar is not None:
        require_kind(option.name, value, (tuple, list), "several names, such as ('86',)")
        for one in value:
            require_kind(f"one of {option.name}", one, str, "a name")
        return tuple(value)
    if not option.choices:
        require_kind(option.name, value, bool, "True or False")
        return bool(value)
    require_kind(option.name, value, str, " or ".join(option.choices))
    if value not in option.choices:
        hint = did_you_mean(value, option.choices, otherwise=f"it is one of {', '.join(option.choices)}")
        raise UsageError(f"unknown {option.name.replace('_', ' ')} {value!r}", hint=hint)
    return str(value)


def _require_effect(option: Option, row: Target, rows: Sequence[Target], precision: str) -> None:
    if option.precision not in (None, precision):
        raise UsageError(f"{option.flag} has no effect on {precision}", hint=f"add --{option.precision}")
    if row not in rows:
        names = ", ".join(one.name for one in rows)
        raise UsageError(f"{option.flag} has no effect on {names}", hint=f"add -t {row.name}")


def known_options(options: dict[str, Any]) -> dict[str, Any]:
    """Returns the keyword arguments of `gd.export` as fields of `ExportConfig`.

    Raises:
        UsageError: There is no such option.
    """
    own = {option.name for row in targets.TARGETS.values() for option in row.options}
    elsewhere = ("targets", "precision", "out", "settings")
    known = [*(one.name for one in fields(ExportConfig) if one.name not in elsewhere), *sorted(own)]
    for unknown in options.keys() - set(known):
        field_of_spec = unknown.removeprefix("image_")
        hint = did_you_mean(unknown, known, otherwise=f"options are {', '.join(known)}")
        if field_of_spec in Preprocess.__struct_fields__:
            hint = f'did you mean preprocess={{"{field_of_spec}": …}}?'
        raise UsageError(f"unknown option {unknown!r}", hint=hint)
    found = {name: value for name, value in options.items() if name not in own}
    if isinstance(spec := options.get("preprocess"), Preprocess):
        found["preprocess"] = msgspec.structs.asdict(spec)
    return found | {"settings": {name: value for name, value in options.items() if name in own}}
