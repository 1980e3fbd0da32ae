"""The quantizer, in a process of its own like every converter: ranges, Q/DQ graph, bias correction, gate, fallback.

In order: equalization strength, range estimator and bias correction are chosen by measurement; the simulation of the
Q/DQ graph is held against the gate; where the gate is missed, units go back to float.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
import onnx
import onnxruntime

from ghostdeploy.deploy.quantize import conditioned, writer
from ghostdeploy.deploy.quantize import ranges as rg
from ghostdeploy.deploy.quantize.blocks import roles, units
from ghostdeploy.deploy.quantize.calibration import read_batches
from ghostdeploy.deploy.quantize.choose import IMAGES, Chosen, Trial, choose, halves
from ghostdeploy.deploy.quantize.correct_bias import correct_bias
from ghostdeploy.deploy.quantize.fallback import Gate, affordable, agreement, rank, shortest_prefix, sqnr
from ghostdeploy.deploy.quantize.graph import OnnxGraph
from ghostdeploy.deploy.quantize.recipe import RECIPES
from ghostdeploy.deploy.quantize.simulate import GraphRunner
from ghostdeploy.deploy.quantize.spec import Diagnosis, LayerNoise, Quantized, QuantizeSpec, UnitGain
from ghostdeploy.deploy.saturation import count_saturable
from ghostdeploy.exporters.base import Written
from ghostdeploy.exporters.graph_precision import read_precision

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import NDArray

    from ghostdeploy.exporters.base import ExportJob

BATCH = 16
RANKING_IMAGES = 64
"""Images that each unit is ranked on."""


class Quantizer:
    """Float `model.onnx` → Q/DQ `model.onnx`, `diagnosis.json`, `quantized.json`, simulated outputs."""

    tools = ("onnxruntime", "onnx")

    def export(self, job: ExportJob) -> Written:
        """See `Exporter.export`; `job.options["spec"]` names the file with the `QuantizeSpec`."""
        spec = msgspec.json.decode(Path(job.options["spec"]).read_bytes(), type=QuantizeSpec)
        folder = Path(job.folder)
        work = Quantization(onnx.shape_inference.infer_shapes(onnx.load(job.source), data_prop=True), spec)
        path = folder / "model.onnx"
        path.write_bytes(work.quantized.SerializeToString(deterministic=True))
        np.save(folder / "gate.npy", work.gate_logits, allow_pickle=False)
        golden = np.load(spec.golden, allow_pickle=False)
        outputs = dict(zip(work.runner.outputs, work.runner(golden), strict=True))
        np.savez(folder / "golden.npz", **outputs)
        (folder / "diagnosis.json").write_bytes(msgspec.json.encode(work.diagnosis()))
        (folder / "quantized.json").write_bytes(msgspec.json.encode(work.summary()))
        return Written(precision=read_precision(path, executed=work.recipe.final))


class Quantization:
    """The state of one quantization.

    Args:
        floating: Float graph with inferred shapes, layers named by their PyTorch modules.
        spec: What to do.
    """

    def __init__(self, floating: onnx.ModelProto, spec: QuantizeSpec) -> None:
        self.spec = spec
        self.recipe = RECIPES[spec.recipe]
        self.floating = floating
        self.graph = OnnxGraph(floating)
        self.plan = writer.plan(floating, self.recipe)
        self.unit_of = units(self.graph)
        self.reference: NDArray[Any] = np.load(spec.reference, allow_pickle=False)
        labels = None if spec.labels is None else np.load(spec.labels, allow_pickle=False)
        self.gate = Gate(self.reference, labels, spec.required_agreement, spec.max_drop)
        self.notes: list[str] = []
        self.chosen = self._choose()
        self.floating, self.errors = self.chosen.floating, self.chosen.errors
        self.gains: tuple[UnitGain, ...] = ()
        self.float_units: tuple[str, ...] = ()
        self._accept(frozenset())
        if not self.gate.holds(self.gate_logits):
            self._fall_back()

    def _choose(self) -> Chosen:
        count = self.spec.fingerprint.count
        judging, correcting = halves(self._calibration(), min(IMAGES, count // 2), BATCH)
        candidates = {0.0: self.floating}
        if self.spec.conditioned is not None:
            candidates, self.notes = conditioned.read(Path(self.spec.conditioned), self.floating, judging[:2])
        wanted = GraphRunner(self.floating, fused=True).logits(judging)
        chosen, notes = choose(
            Trial(self.recipe, self.plan, judging, correcting, wanted),
            candidates,
            self._calibration,
            [*judging, *correcting],
            batch_count=-(-count // BATCH),
            on_progress=_say,
        )
        self.notes += notes
        return chosen

    def _accept(self, float_units: frozenset[str]) -> None:
        self.quantized = self._write(float_units)
        self.runner = GraphRunner(self.quantized)
        self.gate_logits = self.runner.logits(read_batches(Path(self.spec.gate), self.spec.preprocess, BATCH))

    def _fall_back(self) -> None:
        count = min(RANKING_IMAGES, len(self.reference))
        images = _first(read_batches(Path(self.spec.gate), self.spec.preprocess, BATCH), count)
        reference = self.reference[:count]

        def simulate(float_units: frozenset[str]) -> NDArray[Any]:
            return GraphRunner(self._write(float_units)).logits(images)

        def holds(float_units: frozenset[str]) -> bool:
            self._accept(float_units)
            return self.gate.holds(self.gate_logits)

        candidates = list(dict.fromkeys(self.unit_of[name] for name in self.errors))
        self.gains = rank(candidates, simulate, reference, on_progress=_say)
        work: Counter[str] = Counter()
        for node in self.graph.layers():
            work[self.unit_of[node.name]] += self.graph.macs(node)
        self.float_units = shortest_prefix(affordable([gain.unit for gain in self.gains], work), holds) or ()
        self._accept(frozenset(self.float_units))

    def _write(self, float_units: frozenset[str]) -> onnx.ModelProto:
        layers = frozenset(name for name, unit in self.unit_of.items() if unit in float_units)
        floating = self.floating
        if self.chosen.choice.correct_bias:  # what a layer left in float would get is no correction
            floating = correct_bias(floating, {name: e for name, e in self.errors.items() if name not in layers})
        plan = writer.plan(floating, self.recipe, float_layers=layers)
        return writer.write(floating, self.recipe, plan, self.chosen.ranges)

    def _calibration(self) -> Iterable[NDArray[Any]]:
        return read_batches(Path(self.spec.calibration), self.spec.preprocess, BATCH)

    def diagnosis(self) -> Diagnosis:
        """Returns where the error comes from."""
        role_of = roles(self.graph)
        layers = [self._noise(node, role_of[node.name]) for node in self.graph.layers() if node.name in self.errors]
        return Diagnosis(
            images=len(self.reference),
            sqnr_db=sqnr(self.gate_logits, self.reference),
            agreement=agreement(self.gate_logits, self.reference),
            layers=tuple(sorted(layers, key=lambda layer: (layer.sqnr_db is None, layer.sqnr_db))),
            gains=self.gains,
            float_units=self.float_units,
            notes=tuple(self.notes),
        )

    def _noise(self, node: onnx.NodeProto, role: str) -> LayerNoise:
        error = self.errors[node.name]
        low, high = self.chosen.ranges[node.input[0]]
        histogram = self.chosen.histograms[node.input[0]]
        return LayerNoise(
            module=node.name,
            role=role,
            unit=self.unit_of[node.name],
            sqnr_db=None if error.error == 0 else 10 * float(np.log10(error.signal / error.error)),
            clipped=rg.clipped_share(histogram, low, high),
            dead=rg.dead_share(histogram, low, high, steps=254 if self.recipe.symmetric else 255),
        )

    def summary(self) -> Quantized:
        """Returns what the manifest says."""
        float_modules = [n for n, unit in self.unit_of.items() if unit in self.float_units]
        order = {unit: place for place, unit in enumerate(self.float_units)}
        return Quantized(
            scheme=self.recipe.scheme(self.chosen.choice),
            tool=f"ONNX Runtime {onnxruntime.__version__} quantizer",
            strength=self.chosen.choice.strength,
            float_layers=tuple(sorted(float_modules, key=lambda name: order[self.unit_of[name]])),
            rule_float=tuple(node.name for node in self.graph.layers() if node.name in self.plan.float_nodes),
            saturable_channels=sum(count_saturable(self.quantized).values()) if self.recipe.saturation_safe else 0,
        )


def _first(batches: Iterable[NDArray[Any]], count: int) -> list[NDArray[Any]]:
    """Returns the batches of the first `count` images."""
    found: list[NDArray[Any]] = []
    for batch in batches:
        left = count - sum(len(one) for one in found)
        if left <= 0:
            break
        found.append(batch[:left])
    return found


def _say(done: int, total: int) -> None:
    """Writes progress to standard output; the parent process reads it from the log."""
    print(f"progress: {done}/{total}", flush=True)
