"""The quantizer of ONNX graphs, in its own process like every converter."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import onnx

from ghostdeploy.convert.base import Written
from ghostdeploy.convert.graph import file as onnx_file
from ghostdeploy.convert.graph.index import OnnxGraph
from ghostdeploy.convert.graph.precision import read_precision
from ghostdeploy.deploy.quantize import conditioned, writer
from ghostdeploy.deploy.quantize.activations import Activations, in_groups
from ghostdeploy.deploy.quantize.blocks import roles, units
from ghostdeploy.deploy.quantize.choose import QdqTrial
from ghostdeploy.deploy.quantize.correct_bias import correct_bias
from ghostdeploy.deploy.quantize.float_layers import with_float
from ghostdeploy.deploy.quantize.free_batch import free_batch
from ghostdeploy.deploy.quantize.kept_histograms import KeptHistograms
from ghostdeploy.deploy.quantize.layer_errors import layer_errors
from ghostdeploy.deploy.quantize.pixels import read_batches
from ghostdeploy.deploy.quantize.qdq_lint import Violation, lint, profile_of
from ghostdeploy.deploy.quantize.quantization import BATCH, LayerFacts, Quantization
from ghostdeploy.deploy.quantize.saturation import count_saturable
from ghostdeploy.deploy.quantize.simulate import TOGETHER, GraphRunner
from ghostdeploy.telemetry import silent

with silent():
    import onnxruntime

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from numpy.typing import NDArray

    from ghostdeploy.batches import Batch
    from ghostdeploy.bundle.folder import Arrays
    from ghostdeploy.convert.base import ExportJob, QuantizeSpec
    from ghostdeploy.deploy.quantize.choose import Chosen


class Quantizer:
    """Float `model.onnx` → Q/DQ `model.onnx`, `diagnosis.json`, `quantized.json`, simulated outputs."""

    tools = ("onnxruntime", "onnx")

    def export(self, job: ExportJob) -> Written:
        """See `Exporter.export`."""
        assert job.quantization is not None  # a quantizer's job
        floating = onnx.shape_inference.infer_shapes(onnx.load(job.source), data_prop=True)
        images = next(read_batches(Path(job.quantization.calibration), job.quantization.preprocess, BATCH))
        freed = free_batch(floating, images, together=TOGETHER)
        work = QdqQuantization(freed.model, job.quantization)
        freed.restore(work.quantized)
        path = Path(job.folder) / "model.onnx"
        onnx_file.write(work.quantized, path)
        work.notes += [f"{one.rule} at {one.module or one.node}: {one.message}" for one in work.lint()]
        work.leave_results(job)
        precision = read_precision(path, executed=work.recipe.final)
        return Written(precision=precision, ports=onnx_file.ports(work.quantized))


class QdqQuantization(Quantization):
    """Of an ONNX graph with inferred shapes into a Q/DQ graph."""

    tool = f"ONNX Runtime {onnxruntime.__version__} quantizer"

    def __init__(self, floating: onnx.ModelProto, spec: QuantizeSpec) -> None:
        self.graph = OnnxGraph(floating)
        self.plan = writer.plan(floating, spec.recipe)
        super().__init__(floating, spec)

    def list_layers(self) -> list[LayerFacts]:
        """See `Quantization.list_layers`."""
        role_of, unit_of = roles(self.graph), units(self.graph)
        return [
            LayerFacts(
                name=node.name,
                role=role_of[node.name],
                unit=unit_of[node.name],
                macs=self.graph.macs(node) or 0,
                source=node.input[0],
            )
            for node in self.graph.layers()
        ]

    def runner(self, graph: onnx.ModelProto, *, simulate: bool) -> GraphRunner:
        """See `Quantization.runner`."""
        return GraphRunner(graph, fused=not simulate, together=TOGETHER)

    def candidates(self, images: Sequence[Batch]) -> dict[float, onnx.ModelProto]:
        """See `Quantization.candidates`."""
        assert self.spec.conditioned is not None  # checked by the caller
        found, self.notes = conditioned.read(Path(self.spec.conditioned), self.floating, images)
        return found

    def trial(self, judging: Sequence[Batch], correcting: Sequence[Batch], wanted: Arrays) -> QdqTrial:
        """See `Quantization.trial`."""
        images = f"{self.spec.fingerprint.sha256} {self.spec.preprocess}"
        kept = KeptHistograms(Path(self.spec.calibration).parent, images)
        return QdqTrial(self.recipe, self.plan, judging, correcting, wanted, self.task, kept)

    def activations(
        self, graph: onnx.ModelProto, tensors: Sequence[str], images: Batch
    ) -> Iterable[tuple[str, NDArray[Any]]]:
        """See `Quantization.activations`."""
        for group in in_groups(graph, [name for name in tensors if name not in self.graph.inputs]):
            yield from Activations(graph, group)(images)

    def refine(self, chosen: Chosen, images: Sequence[Batch]) -> Chosen:
        """See `Quantization.refine`: biases are corrected by these errors."""
        graph = writer.write(chosen.floating, self.recipe, self.plan, chosen.ranges)
        return replace(chosen, errors=layer_errors(chosen.floating, graph, images))

    def write(self, float_layers: frozenset[str]) -> onnx.ModelProto:
        """See `Quantization.write`."""
        floating = self.floating
        if self.chosen.choice.correct_bias:  # a layer left in float needs no correction
            errors = {name: error for name, error in self.errors.items() if name not in float_layers}
            floating = correct_bias(floating, errors)
        plan = writer.plan(floating, self.recipe, float_layers=float_layers)
        return writer.write(floating, self.recipe, plan, self.chosen.ranges)

    def sketch(self, float_layers: frozenset[str]) -> onnx.ModelProto:
        """See `Quantization.sketch`."""
        kept = writer.plan(self.floating, self.recipe, float_layers=float_layers).activations
        return with_float(self.quantized, self.floating, float_layers, self.recipe, self.plan.rectified, kept)

    def lint(self) -> tuple[Violation, ...]:
        """Returns the rules of the recipe's kind of processor that the finished graph breaks; none is expected.

        The rules are those of engines that fuse Q/DQ pairs. One that rounds inside its layers takes the scales alone.
        """
        if self.recipe.rounds_in_layers:
            return ()
        return lint(self.quantized, profile=profile_of(self.recipe))

    def float_by_rule(self) -> tuple[str, ...]:
        """See `Quantization.float_by_rule`."""
        return tuple(node.name for node in self.graph.layers() if node.name in self.plan.float_nodes)

    def count_saturable(self) -> int:
        """See `Quantization.count_saturable`."""
        return sum(count_saturable(self.quantized).values()) if self.recipe.saturation_safe else 0
