"""The request of the `export` command: a model to load and a configuration, as one record."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ghostdeploy import targets
from ghostdeploy.deploy.intake.resolve import resolve_model
from ghostdeploy.deploy.plan import preprocessing
from ghostdeploy.deploy.plan.config import ExportConfig
from ghostdeploy.errors import MissingDependency, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable

    from ghostdeploy.deploy.export.pipeline import Exported
    from ghostdeploy.deploy.intake.protocol import ExportedModel
    from ghostdeploy.progress import Listener
    from ghostdeploy.targets import Target


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """One `export` command."""

    spec: str | None
    weights: Path | None
    weights_key: str | None
    num_classes: int | None
    name: str | None
    config: ExportConfig

    def resolve(self) -> Callable[[], ExportedModel]:
        """Returns the loader of the model, and checks that its packages are installed."""
        return resolve_model(
            self.spec, self.config, weights=self.weights, weights_key=self.weights_key, num_classes=self.num_classes
        )


def from_options(**options: Any) -> Request:
    """Turns the options of the command line into a request.

    Raises:
        UsageError: Options exclude each other, or a value is out of range.
    """
    precisions = [name for name in ("fp16", "int8", "hybrid") if options.pop(name)]
    if len(precisions) > 1:
        raise UsageError(f"--{' and --'.join(precisions)} are mutually exclusive", hint="one precision per command")
    precision = precisions[0] if precisions else "fp32"
    preprocess = preprocessing.from_options(options)
    spec, name = options.pop("model"), options.pop("name")
    source = {key: options.pop(key) for key in ("weights", "weights_key", "num_classes")}
    if name is not None and Path(name).name != name:
        raise UsageError(f"--name is {name!r}, expected a plain folder name")
    names = _expand(options.pop("target_names"), precision, options["batch"], targets.intake_of(spec))
    align = options.pop("align_channels")
    own = {option.name for row in targets.TARGETS.values() for option in row.options}
    config = ExportConfig(
        settings={name: options.pop(name) for name in own},
        align_channels=None if align is None else int(align),
        targets=names,
        precision=precision,
        preprocess=preprocess,
        input=options.pop("input_kind"),
        replace=options.pop("force"),
        **options,
    )
    return Request(spec=spec, name=name, config=config, **source)


def fulfil(asked: Request, listener: Listener) -> Exported:
    """Loads the model and exports it; the process is taken to be ours, see `return_large_blocks`, for a heavy model.

    Raises:
        GhostDeployError: See the tree in `ghostdeploy.errors`.
    """
    from ghostdeploy.convert.memory import LARGE_WEIGHTS, return_large_blocks
    from ghostdeploy.deploy.export.pipeline import run_export

    given = asked.resolve()

    def load() -> ExportedModel:
        model = given()
        if model.weight_bytes > LARGE_WEIGHTS:
            return_large_blocks()
        return model

    return run_export(load, asked.config, name=asked.name, listener=listener)


def _expand(names: tuple[str, ...], precision: str, batch: int | None, intake: Target | None) -> tuple[str, ...]:
    """Replaces `all` by every target that can be exported here in this precision and with this batch."""
    if "all" not in names:
        return names
    rows = [row for row in targets.TARGETS.values() if precision in row.precisions and targets.takes(row, intake)]
    rows = [row for row in rows if batch is not None or not row.fixed_batch]
    able = tuple(row.name for row in rows if not targets.missing_for_export(row, intake))
    if not able:
        raise MissingDependency("no target can be exported on this machine", hint="ghostdeploy doctor")
    return able
