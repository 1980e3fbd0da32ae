"""One quantization, whatever the graph's format: choose by measurement, check the gate, fall back.

In order: equalization strength, range estimator and bias correction are chosen on calibration images; the simulation of
the quantized graph is checked against the gate; where the gate is missed, units go back to float, the worst first.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import msgspec
import numpy as np

from ghostdeploy.deploy.prove import measuring
from ghostdeploy.deploy.prove.diagnose import Diagnosis, LayerNoise, UnitGain
from ghostdeploy.deploy.prove.fidelity import agreement, worst_db
from ghostdeploy.deploy.quantize import ranges as rg
from ghostdeploy.deploy.quantize.channel_factors import channel_factors
from ghostdeploy.deploy.quantize.choose import CORRECTING, JUDGING, Chosen, Trial, choose, split
from ghostdeploy.deploy.quantize.fallback import MOST_IN_FLOAT, Gate, affordable, rank, shortest_prefix
from ghostdeploy.deploy.quantize.pixels import read_batches
from ghostdeploy.deploy.quantize.recipe import Quantized, scheme
from ghostdeploy.deploy.quantize.stored import open_stored
from ghostdeploy.tasks.table import task_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from numpy.typing import NDArray

    from ghostdeploy.batches import Batch
    from ghostdeploy.bundle.folder import Arrays
    from ghostdeploy.convert.base import ExportJob, QuantizeSpec
    from ghostdeploy.deploy.quantize.runner import Runner
    from ghostdeploy.tasks.measure import Measure

BATCH = 16
MARGIN_DB = 0.1
"""SQNR beyond what is required: the engine's integers are not quite the simulation's."""
RANKING_IMAGES = 16
"""Images that each unit is ranked on."""
AIM_DB = 25.0
"""What outputs whose values judge shall keep, beyond what is required, where `AIM_IN_FLOAT` of the work buys it."""
AIM_IN_FLOAT = 0.15


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerFacts:
    """One layer with weights."""

    name: str
    """PyTorch module."""
    role: str
    """Its place in a Ghost network, see `blocks`."""
    unit: str
    """Layers that go back to float together share it."""
    macs: int
    source: str
    """Tensor that its weights are multiplied with."""


class Quantization(ABC):
    """The state of one quantization; the three hooks and two facts below are the format's.

    Args:
        floating: Float graph, layers named by their PyTorch modules.
        spec: What to do.
    """

    tool: ClassVar[str]
    """Name of the vendor's quantizer, for manifests."""
    noise: ClassVar[Literal["alone", "arriving"]] = "alone"
    """What `errors` hold, see `Diagnosis.noise`."""

    def __init__(self, floating: Any, spec: QuantizeSpec) -> None:
        self.spec = spec
        self.recipe = spec.recipe
        self.floating = floating
        self.layers = self.list_layers()
        self.unit_of = {layer.name: layer.unit for layer in self.layers}
        self.task = task_of(spec.task, spec.preprocess.sides)
        self.reference = {name: np.load(path, allow_pickle=False) for name, path in spec.reference.items()}
        self.gate_count = len(next(iter(self.reference.values())))
        labels = None if spec.labels is None else np.load(spec.labels, allow_pickle=False)
        self.gate = Gate(
            self.task,
            self.reference,
            labels,
            required_agreement=spec.required_agreement,
            required_db=spec.required_db + MARGIN_DB,
            values_judge=spec.values_judge,
            max_drop=spec.max_drop,
            drop=self._measured_drop(),
        )
        self.notes: list[str] = []
        self.chosen = self._choose()
        self.factors = self._read_factors()
        self.floating, self.errors = self.chosen.floating, self.chosen.errors
        self.gains: tuple[UnitGain, ...] = ()
        self.float_units: tuple[str, ...] = ()
        self._accept(frozenset())
        aim = replace(self.gate, required_db=max(self.gate.required_db, AIM_DB))
        if not aim.holds(self.gate_outputs):
            self._fall_back(aim)

    @abstractmethod
    def list_layers(self) -> list[LayerFacts]:
        """Returns the layers of the float graph, in order."""

    @abstractmethod
    def runner(self, graph: Any, *, simulate: bool) -> Runner:
        """Returns what runs a graph: exactly as written to simulate it, else in the fastest way, nearly the same."""

    @abstractmethod
    def candidates(self, images: Sequence[Batch]) -> dict[float, Any]:
        """Returns the float graphs by equalization strength; images are for the proof."""

    @abstractmethod
    def trial(self, judging: Sequence[Batch], correcting: Sequence[Batch], wanted: Arrays) -> Trial:
        """Returns what tries choices; the arguments are those of `Trial`."""

    @abstractmethod
    def write(self, float_layers: frozenset[str]) -> Any:
        """Returns the quantized graph of the chosen try with the named layers in float."""

    @abstractmethod
    def activations(self, graph: Any, tensors: Sequence[str], images: Batch) -> Iterable[tuple[str, NDArray[Any]]]:
        """Yields tensors of a float graph, by name, in pieces."""

    def channels(self, values: NDArray[Any]) -> int:
        """Returns the axis of a tensor's channels."""
        return 1

    def refine(self, chosen: Chosen, images: Sequence[Batch]) -> Chosen:
        """Returns the chosen try with errors measured on more images than were worth it for every try."""
        return chosen

    def sketch(self, float_layers: frozenset[str]) -> Any:
        """Returns what `write` gives, or something like it that is made faster, to rank layers by."""
        return self.write(float_layers)

    @abstractmethod
    def float_by_rule(self) -> tuple[str, ...]:
        """Returns the layers that the recipe leaves in float."""

    def count_saturable(self) -> int:
        """Returns the output channels whose sums can overflow on some processor."""
        return 0

    def _measured_drop(self) -> Callable[[Arrays], float] | None:
        """Returns what outputs for the gate images lose of the task's measure; None where nothing is measured."""
        if self.spec.labelled is None:
            return None
        data = measuring.read(self.task.info.name, Path(self.spec.labelled))

        def measure(outputs: Arrays) -> Measure:
            return measuring.of_outputs(outputs, self.task, data, self.spec.preprocess, self.spec.class_names)

        wanted = measure(self.reference)
        return lambda outputs: measure(outputs).drop(wanted).value

    def _choose(self) -> Chosen:
        count = self.spec.fingerprint.count
        counts = min(JUDGING, count // 2), min(CORRECTING, count // 2)
        judging, correcting = split(self._calibration(), counts, BATCH)
        candidates = {0.0: self.floating} if self.spec.conditioned is None else self.candidates(judging[:2])
        if self.spec.conditioned is None:
            self.notes.append("no equalization: it needs the PyTorch model")
        wanted = self.runner(self.floating, simulate=False).collect(judging, self.reference)
        chosen, notes = choose(
            self.trial(judging, correcting, wanted),
            candidates,
            self._calibration,
            [*judging, *correcting],
            batch_count=-(-count // BATCH),
            on_progress=say,
        )
        self.notes += notes
        return self.refine(chosen, [*judging, *correcting])

    def _read_factors(self) -> dict[str, tuple[float, ...]]:
        """Returns what equalization did to the channels that layers read."""
        if not self.chosen.choice.strength:
            return {}
        images = next(iter(self._calibration()))
        sources = {layer.name: layer.source for layer in self.layers}
        tensors = list(dict.fromkeys(sources.values()))
        plain = self.activations(self.floating, tensors, images)
        equalized = self.activations(self.chosen.floating, tensors, images)
        return channel_factors(sources, plain, equalized, self.channels)

    def _accept(self, float_units: frozenset[str]) -> None:
        self.quantized = self.write(self._layers_of(float_units))
        self.simulation = self.runner(self.quantized, simulate=True)
        self.gate_outputs = self.simulation.collect(self._judging(), self.reference)

    def _fall_back(self, aim: Gate) -> None:
        """Returns units to float until the aim is reached at a low price, or else what is required at any."""
        work: Counter[str] = Counter()
        for layer in self.layers:
            work[layer.unit] += layer.macs
        self.gains = self._rank(work)
        searches = [(aim, AIM_IN_FLOAT)] if self.gate.values_judge else []
        for gate, most in (*searches, (self.gate, MOST_IN_FLOAT)):
            ranked = affordable([gain.unit for gain in self.gains], work, most)
            if self._return_to_float(ranked, gate) or self.gate.holds(self.gate_outputs):
                return

    def _rank(self, work: Mapping[str, int]) -> tuple[UnitGain, ...]:
        count = min(RANKING_IMAGES, self.gate_count)
        images = _first(self._judging(), count)
        reference = {name: array[:count] for name, array in self.reference.items()}

        def outputs(float_units: frozenset[str]) -> dict[str, NDArray[Any]]:
            return self.runner(self.sketch(self._layers_of(float_units)), simulate=False).collect(images, reference)

        units = dict.fromkeys(self.unit_of[name] for name in self.errors)
        return rank({unit: work[unit] for unit in units}, outputs, reference, self.task, on_progress=say)

    def _return_to_float(self, ranked: Sequence[str], gate: Gate) -> bool:
        """Returns the fewest leading units to float that a gate asks for; False where all of them are not enough."""

        def holds(float_units: frozenset[str]) -> bool:
            quick = self.runner(self.write(self._layers_of(float_units)), simulate=False)
            return gate.holds(quick.collect(self._judging(), self.reference))

        found = shortest_prefix(ranked, holds)
        if found is None:
            return False
        self.float_units = found
        self._accept(frozenset(self.float_units))
        while not gate.holds(self.gate_outputs) and len(self.float_units) < len(ranked):
            self.float_units = tuple(ranked[: len(self.float_units) + 1])  # the quick run was a hair's breadth off
            self._accept(frozenset(self.float_units))
        return gate.holds(self.gate_outputs)

    def _layers_of(self, units: frozenset[str]) -> frozenset[str]:
        return frozenset(name for name, unit in self.unit_of.items() if unit in units)

    def _judging(self) -> Iterable[Batch]:
        return read_batches(Path(self.spec.gate), self.spec.preprocess, BATCH)

    def _calibration(self) -> Iterable[Batch]:
        return read_batches(Path(self.spec.calibration), self.spec.preprocess, BATCH)

    def leave_results(self, job: ExportJob) -> None:
        """Writes what the pipeline reads beside the graph: simulated outputs, diagnosis, summary."""
        folder = Path(job.folder)
        np.savez(folder / "gate.npz", **self.gate_outputs)  # type: ignore[arg-type]  # numpy's stub has no **arrays
        golden = open_stored(Path(self.spec.golden))
        outputs = dict(zip(self.simulation.outputs, self.simulation(golden), strict=True))
        np.savez(folder / "golden.npz", **outputs)  # type: ignore[arg-type]  # numpy's stub has no **arrays
        (folder / "diagnosis.json").write_bytes(msgspec.json.encode(self.diagnosis()))
        (folder / "quantized.json").write_bytes(msgspec.json.encode(self.summary()))

    def diagnosis(self) -> Diagnosis:
        """Returns where the error comes from."""
        layers = [self._noise(layer) for layer in self.layers if layer.name in self.errors]
        return Diagnosis(
            images=self.gate_count,
            sqnr_db=worst_db(self.task, self.gate_outputs, self.reference),
            agreement=agreement(self.task, self.gate_outputs, self.reference)
            if self.task.decides(self.reference)
            else None,
            layers=tuple(sorted(layers, key=lambda layer: (layer.sqnr_db is None, layer.sqnr_db))),
            noise=self.noise,
            gains=self.gains,
            float_units=self.float_units,
            notes=tuple(self.notes),
            factors=self.factors,
        )

    def _noise(self, layer: LayerFacts) -> LayerNoise:
        error = self.errors[layer.name]
        low, high = self.chosen.ranges[layer.source]
        histogram = self.chosen.histograms[layer.source]
        return LayerNoise(
            module=layer.name,
            role=layer.role,
            unit=layer.unit,
            sqnr_db=None if error.error == 0 else 10 * float(np.log10(error.signal / error.error)),
            clipped=rg.clipped_share(histogram, low, high),
            dead=rg.dead_share(histogram, low, high, steps=254 if self.recipe.symmetric else 255),
            input_range=(float(low), float(high)),
        )

    def summary(self) -> Quantized:
        """Returns the record for the manifest."""
        float_modules = [n for n, unit in self.unit_of.items() if unit in self.float_units]
        order = {unit: place for place, unit in enumerate(self.float_units)}
        return Quantized(
            scheme=scheme(self.recipe, self.chosen.choice),
            tool=self.tool,
            strength=self.chosen.choice.strength,
            float_layers=tuple(sorted(float_modules, key=lambda name: order[self.unit_of[name]])),
            rule_float=self.float_by_rule(),
            saturable_channels=self.count_saturable(),
        )


def _first(batches: Iterable[Batch], count: int) -> list[Batch]:
    """Returns the batches of the first `count` images."""
    found: list[Batch] = []
    for batch in batches:
        left = count - sum(len(one) for one in found)
        if left <= 0:
            break
        found.append(batch[:left])
    return found


def say(done: int, total: int) -> None:
    """Writes progress to standard output; the parent process reads it from the log."""
    print(f"progress: {done}/{total}", flush=True)
