"""The request of the `tune` command: a model, the options shared by all exports, limits, an objective, a budget."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ghostdeploy import targets
from ghostdeploy.deploy.intake.resolve import resolve_model
from ghostdeploy.deploy.plan import preprocessing
from ghostdeploy.deploy.plan.config import ExportConfig
from ghostdeploy.deploy.tune.candidates import OBJECTIVES, Objective, choose_rows
from ghostdeploy.deploy.tune.place import Here, Place
from ghostdeploy.errors import UsageError, did_you_mean

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from ghostdeploy.deploy.intake.protocol import ExportedModel

_UNITS = {"": 1e6, "b": 1.0, "kb": 1e3, "mb": 1e6, "gb": 1e9, "kib": 2.0**10, "mib": 2.0**20, "gib": 2.0**30}
DEFAULT_BUDGET = 600.0


@dataclass(frozen=True, slots=True, kw_only=True)
class TuneConfig:
    """One tune.

    Raises:
        UsageError: A value is outside its range, or a name is unknown.
    """

    export: ExportConfig
    """What all exports have in common; its targets are those to try, its `out` the parent of bundle and state."""
    left_out: dict[str, str]
    """Targets that cannot be exported here or run at the place, and why."""
    precisions: tuple[str, ...] = targets.PRECISIONS
    objective: Objective = "latency"
    max_size: int | None = None
    """Bytes of the payload."""
    max_latency: float | None = None
    """Milliseconds of a call."""
    budget: float = DEFAULT_BUDGET
    """Seconds of the whole request, over all restarts."""
    restart: bool = False
    """Forget what an earlier run left, and replace bundles."""

    def __post_init__(self) -> None:
        """Checks all fields."""
        for name in self.precisions:
            if name not in targets.PRECISIONS:
                known = ", ".join(targets.PRECISIONS)
                hint = did_you_mean(name, targets.PRECISIONS, otherwise=f"precisions are {known}")
                raise UsageError(f"unknown precision {name!r}", hint=hint)
        if self.objective not in OBJECTIVES:
            raise UsageError(f"unknown objective {self.objective!r}", hint=f"objectives are {', '.join(OBJECTIVES)}")
        if self.max_size is not None and self.max_size <= 0:
            raise UsageError(f"max size is {self.max_size} bytes, expected a positive number")
        if self.max_latency is not None and not self.max_latency > 0:
            raise UsageError(f"max latency is {self.max_latency} ms, expected a positive number")
        if not self.budget > 0:
            raise UsageError(f"budget is {self.budget / 60:g} minutes, expected a positive number")


@dataclass(frozen=True, slots=True, kw_only=True)
class TuneRequest:
    """One `tune` command."""

    spec: str | None
    weights: Path | None
    weights_key: str | None
    num_classes: int | None
    name: str | None
    config: TuneConfig
    place: Place = field(default_factory=Here)
    """Where bundles are measured."""

    def resolve(self) -> Callable[[], ExportedModel]:
        """Returns the loader of the model, and checks that its packages are installed."""
        return resolve_model(
            self.spec,
            self.config.export,
            weights=self.weights,
            weights_key=self.weights_key,
            num_classes=self.num_classes,
        )


def from_options(place: Place | None = None, **options: Any) -> TuneRequest:
    """Turns the options of the command line into a request.

    Args:
        place: Where bundles are measured; None is this machine.
        options: By name.

    Raises:
        UsageError: A value is out of range, a name unknown, or a target cannot be made from such a model.
        MissingDependency: A package that a requested target needs is absent.
        UnsupportedHardware: The hardware of a requested target is absent.
    """
    place, preprocess = place or Here(), preprocessing.from_options(options)
    spec, name = options.pop("model"), options.pop("name")
    source = {key: options.pop(key) for key in ("weights", "weights_key", "num_classes")}
    if name is not None and Path(name).name != name:
        raise UsageError(f"--name is {name!r}, expected a plain folder name")
    rows, left_out = choose_rows(options.pop("target_names"), targets.intake_of(spec), place)
    chosen: Sequence[str] = options.pop("precisions")
    own = {key: options.pop(key) for key in ("objective", "max_latency")}
    config = TuneConfig(
        left_out=left_out,
        precisions=tuple(dict.fromkeys(chosen)) or targets.PRECISIONS,
        max_size=None if (size := options.pop("max_size")) is None else parse_size(size),
        budget=60 * options.pop("budget"),
        restart=options.pop("force"),
        export=ExportConfig(
            targets=tuple(row.name for row in rows),
            preprocess=preprocess,
            input=options.pop("input_kind"),
            **options,
        ),
        **own,
    )
    return TuneRequest(spec=spec, name=name, config=config, place=place, **source)


def parse_size(text: str) -> int:
    """Returns the bytes that `1.5`, `1.5MB`, `800 kB`, `2MiB` or `1500000B` name; a bare number is megabytes.

    Raises:
        UsageError: It is no such size.
    """
    found = re.fullmatch(r"\s*(\d+(?:\.\d*)?|\.\d+)\s*([A-Za-z]*)\s*", text)
    unit = _UNITS.get(found[2].lower()) if found else None
    if found is None or unit is None:
        raise UsageError(f"max size is {text!r}, expected a size such as 1.5MB, 800kB, 2MiB or 1500000B")
    return round(float(found[1]) * unit)
