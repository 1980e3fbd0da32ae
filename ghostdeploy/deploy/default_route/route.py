"""Default-route bundles of one model: exported, run, compared with the module's own outputs.

The module is taken as it was loaded. A network in training form (GhostNetV3, RepGhost with its parallel branches) stays
in training form: our exporters merge the branches, no vendor's does.
"""

from __future__ import annotations

import datetime
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import torch

from ghostdeploy import samples, targets
from ghostdeploy.bundle import folder as bundles
from ghostdeploy.bundle import staging, writing
from ghostdeploy.bundle.manifest import SCHEMA, Manifest, ModelInfo, Precision, encode
from ghostdeploy.convert.base import ExportJob
from ghostdeploy.convert.process import Converter
from ghostdeploy.deploy.default_route.model import Named, Source
from ghostdeploy.deploy.export.failures import converter_to_blame, keep_log
from ghostdeploy.deploy.intake.inputs import read_labels
from ghostdeploy.deploy.intake.pytorch.reference import Reference
from ghostdeploy.deploy.plan.requirements import require_export
from ghostdeploy.deploy.prove import judge, parity
from ghostdeploy.errors import BundleError, UsageError
from ghostdeploy.models.count import count_macs, count_params
from ghostdeploy.preprocess import prepare
from ghostdeploy.runtimes import load
from ghostdeploy.tasks.classify import classes_of

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ghostdeploy.bundle.folder import Arrays, Bundle
    from ghostdeploy.convert.base import ExportResult, Ports
    from ghostdeploy.models.source import LoadedModel
    from ghostdeploy.preprocess import Preprocess
    from ghostdeploy.targets import Target

TIMEOUT = 900.0
_WORKER = "ghostdeploy.deploy.default_route.model:DefaultRouteWorker"
_PHOTOS = 4


@dataclass(frozen=True, slots=True)
class _Worker:
    """The converter of a row's default route."""

    name: str
    exporter: str
    export_requirement: str


class DefaultRoute:
    """One model, ready for its default exports.

    Args:
        named: The model.
        preprocess: How it takes an image, layout `nchw`; None takes the model's own.
        images: Golden inputs, float32 (N, C, H, W); None takes some of the shipped photographs.

    Attributes:
        model: What was loaded.
        outputs: What the module gives for the golden inputs, by name.

    Raises:
        GhostDeployError: See `load_model` and `Reference.outputs`.
    """

    def __init__(
        self, named: Named, *, preprocess: Preprocess | None = None, images: NDArray[Any] | None = None
    ) -> None:
        self.model: LoadedModel = named.load()
        self._named = named
        self._preprocess = preprocess or self.model.preprocess
        self._reference = Reference(self.model.module)
        self._images = prepare(samples.photos()[:_PHOTOS], self._preprocess) if images is None else images
        self.outputs: Arrays = self.run(self._images)

    def run(self, images: NDArray[Any]) -> Arrays:
        """Returns the module's outputs for float32 (N, C, H, W), by name."""
        return self._reference.outputs(images)

    @property
    def _shape(self) -> tuple[int, int, int]:
        """Channels, height and width of an input."""
        height, width, channels = self._preprocess.shape
        return channels, height, width

    def export(
        self,
        target: str,
        out: Path,
        *,
        name: str | None = None,
        batch: int = 1,
        timeout: float = TIMEOUT,
        logs: Path | None = None,
    ) -> Bundle:
        """Writes a bundle like any other.

        Args:
            target: Row of the target table.
            out: Parent folder.
            name: Name of the bundle; None is `<model>-<target>-default`.
            batch: Images per call of the engine.
            timeout: Seconds that the converter may take.
            logs: Folder that receives the log of a converter that fails; None is `out`.

        Raises:
            UsageError: The row has no default route, or the bundle exists.
            MissingDependency: A package is absent.
            ExportFailed: The vendor's converter failed, crashed or timed out, or its engine refuses the artefact.
            BundleError: The outputs of its artefact differ from the module's.
        """
        row = targets.find(target)
        if row.default_route is None:
            known = ", ".join(name for name, one in targets.TARGETS.items() if one.default_route)
            raise UsageError(f"target {row.name} has no default route", hint=f"there is one for {known}")
        require_export([row])
        name = name or f"{self.model.name}-{row.name}-default"
        with staging.workspace(out, f"{name}-work") as work, staging.staging(out, name) as folder:
            with keep_log(logs or out, self.model.name):
                result = self._convert(row, row.default_route, work, batch, timeout)
            for file in row.files:
                shutil.copyfile(work / "payload" / file, folder / file)
            self._complete(row, name, result, folder)
        return bundles.open_bundle(out / name)

    def _convert(self, row: Target, reference: str, work: Path, batch: int, timeout: float) -> ExportResult:
        payload, source, state = work / "payload", work / "source.json", work / "state.pt"
        payload.mkdir()
        torch.save(self._reference.module.state_dict(), state)
        asked = Source(
            model=self._named,
            state=str(state),
            batch=batch,
            shape=self._shape,
            converter=reference,
            requirement=row.export_requirement,
        )
        source.write_bytes(msgspec.json.encode(asked))
        job = ExportJob(
            source=str(source),
            folder=str(payload),
            result=str(work / "result.json"),
            precision="fp32",
            input_names=(),
            output_names=(),
            dynamic_batch=False,
        )
        worker = _Worker(f"default {row.name}", _WORKER, row.export_requirement)
        with Converter(worker, work / f"default-{row.name}.log") as converter:
            return converter.convert(job, seconds=timeout)

    def _complete(self, row: Target, name: str, result: ExportResult, folder: Path) -> None:
        """Writes golden vectors, labels and manifest, runs the payload, and judges it by the tolerance table."""
        assert result.written is not None  # a result with status "done" has it
        assert result.written.ports is not None  # see `DefaultConverter`
        found, stored = result.written.ports, result.written.stored or "fp32"
        if len(found.inputs) != 1 or len(found.outputs) != len(self.outputs):
            counts = f"{len(found.inputs)} inputs and {len(found.outputs)} outputs"
            raise BundleError(f"{name} has {counts}, the model has 1 and {len(self.outputs)}")
        golden = {spec.name: array for spec, array in zip(found.outputs, self.outputs.values(), strict=True)}
        writing.write_golden(folder, {found.inputs[0].name: self._images}, golden)
        writing.write_labels(folder, read_labels(None, self.model.labels, classes_of(self.outputs)))
        manifest = self._manifest(row, name, found, stored, result, folder)
        (folder / bundles.MANIFEST).write_bytes(encode(manifest))
        with converter_to_blame(row.name, folder, Path(name)), load(folder) as runtime:
            executed = runtime.infer({found.inputs[0].name: self._images})
        seen = parity.compare(executed, golden, stored)
        manifest = judge.conclude(msgspec.structs.replace(manifest, parity=seen))
        if manifest.verdict == "failed":
            off = f"max error {seen.max_abs:.2g} of {seen.reference_max_abs:.2g}, cosine {seen.cosine:.6f}"
            raise BundleError(f"{name} does not compute what the model computes: {off}")
        (folder / bundles.MANIFEST).write_bytes(encode(manifest))

    def _manifest(
        self, row: Target, name: str, found: Ports, stored: str, result: ExportResult, folder: Path
    ) -> Manifest:
        assert result.written is not None  # a result with status "done" has it
        model = self.model
        info = ModelInfo(
            name=model.name,
            family=model.family,
            source=model.source,
            weights_sha256=model.weights_sha256,
            num_classes=classes_of(self.outputs) or 0,
            params=count_params(self._reference.module),
            macs=count_macs(self._reference.module, (1, *self._shape)),
        )
        image = msgspec.structs.replace(found.inputs[0], layout="nchw")
        return Manifest(
            schema=SCHEMA,
            name=name,
            created=datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
            tools=result.tools,
            model=info,
            target=row.name,
            precision=msgspec.convert(stored, type=Precision),
            payload=row.payload,
            runtimes=row.runtimes,
            inputs=(image,),
            outputs=found.outputs,
            preprocess=self._preprocess,
            passes=(),
            quantization=None,
            precision_achieved=result.written.precision,
            parity=None,
            accuracy=None,
            verdict="unverified",
            unverified_because="not judged yet",
            files=tuple(writing.describe_file(folder, file) for file in (*row.files, bundles.GOLDEN, bundles.LABELS)),
        )
