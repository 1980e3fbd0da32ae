"""What the `export` command asks for: a model to load and a configuration, as one record."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ghostdeploy import targets
from ghostdeploy.bundle import staging
from ghostdeploy.bundle.manifest import Record
from ghostdeploy.deploy.intake.resolve import ResolvedModel, resolve_model
from ghostdeploy.deploy.plan.config import ExportConfig, apply_overrides
from ghostdeploy.errors import MissingDependency, UsageError
from ghostdeploy.preprocess import Preprocess  # noqa: TC001 - msgspec resolves annotations at run time

if TYPE_CHECKING:
    from ghostdeploy.deploy.export.pipeline import Exported
    from ghostdeploy.progress import Listener
    from ghostdeploy.targets import Target

_PREPROCESS = ("size", "crop_fraction", "interpolation", "mean", "std")


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """One `export` command."""

    spec: str | None
    weights: Path | None
    weights_key: str | None
    num_classes: int | None
    name: str | None
    config: ExportConfig

    def resolve(self) -> ResolvedModel:
        """Tells where the model comes from, and checks that what it needs is here."""
        return resolve_model(
            self.spec, self.config, weights=self.weights, weights_key=self.weights_key, num_classes=self.num_classes
        )


class Plan(Record, frozen=True, kw_only=True):
    """What an export would do."""

    model: str
    family: str
    source: str
    targets: tuple[str, ...]
    """The chain of each target, such as `onnx → openvino`."""
    precision: str
    batch: str
    input: str
    preprocess: Preprocess
    data: str | None
    """Evaluation set of the accuracy gate."""
    max_drop: float
    bundles: tuple[str, ...]
    """Folders it would write."""


def from_options(**options: Any) -> Request:
    """Turns the options of the command line into a request.

    Raises:
        UsageError: Options exclude each other, or a value is out of range.
    """
    precisions = [name for name in ("fp16", "int8", "hybrid") if options.pop(name)]
    if len(precisions) > 1:
        raise UsageError(f"--{' and --'.join(precisions)} exclude each other", hint="one precision per command")
    precision = precisions[0] if precisions else "fp32"
    preprocess = {key: value for key in _PREPROCESS if (value := options.pop(key)) is not None}
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


def plan(asked: Request) -> Plan:
    """Returns what `fulfil` would do; loads the model and runs it, converts nothing, writes nothing.

    Raises:
        GhostDeployError: What `fulfil` would raise before its first conversion.
    """
    config = asked.config
    model = asked.resolve().load()
    name = asked.name or model.name
    folders = [config.out / f"{name}-{row.name}-{config.precision}" for row in config.rows]
    for folder in folders:
        staging.refuse_existing(folder, force=config.replace)
    from ghostdeploy.deploy.export.rehearsal import rehearse
    from ghostdeploy.deploy.intake.inputs import Inputs

    inputs = Inputs.choose(model, config)
    rehearse(model, inputs, config)
    data = inputs.data
    return Plan(
        model=name,
        family=model.family,
        source=model.source,
        targets=tuple(" → ".join(link.name for link in targets.chain(row)) for row in config.rows),
        precision=config.precision,
        batch="dynamic" if config.batch is None else str(config.batch),
        input=config.input,
        preprocess=apply_overrides(model.preprocess, config.preprocess),
        data=None if data is None else f"{data.source} ({len(data)} images)",
        max_drop=config.max_drop,
        bundles=tuple(str(folder) for folder in folders),
    )


def fulfil(asked: Request, listener: Listener) -> Exported:
    """Loads the model and exports it; the process is taken to be ours, see `return_large_blocks`.

    Raises:
        GhostDeployError: See the tree in `ghostdeploy.errors`.
    """
    from ghostdeploy.convert.memory import return_large_blocks
    from ghostdeploy.deploy.export.pipeline import run_export

    return_large_blocks()
    resolved = asked.resolve()
    return run_export(resolved.load, asked.config, name=asked.name, listener=listener, intake=resolved.intake)


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
