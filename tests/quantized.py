"""The quantized side of tiny bundles: the Q/DQ graph, what it gives in float, and the records that an export would add.

The graph is written by the package's own writer with the recipe of the target. Its ranges are the extremes of some more
examples. Whatever has one input or two is quantized alike.
"""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING

import msgspec
import numpy as np
import onnx
from onnx.reference import ReferenceEvaluator

from ghostdeploy.bundle.manifest import Calibration, Quantization
from ghostdeploy.deploy.prove.diagnose import Diagnosis, LayerNoise

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from ghostdeploy.bundle.manifest import Manifest
    from ghostdeploy.targets import Recipe, Target
    from tests.bundles import Tiny

    Arrays = dict[str, NDArray]

CALIBRATION_IMAGES, GATE_IMAGES = 256, 200


def named(model: onnx.ModelProto) -> onnx.ModelProto:
    """Returns a copy whose layers are called by their weights, as the exporter does it, and other nodes by outputs."""
    model = copy.deepcopy(model)
    constants = {tensor.name for tensor in model.graph.initializer}
    for node in model.graph.node:
        node.name = next((name for name in node.input[1:2] if name in constants), node.output[0])
    return onnx.shape_inference.infer_shapes(model, data_prop=True)


def quantize(model: onnx.ModelProto, tiny: Tiny, recipe: Recipe) -> onnx.ModelProto:
    """Returns the Q/DQ graph of a named model."""
    from ghostdeploy.deploy.quantize import writer

    chosen = writer.plan(model, recipe)
    inside = [value for value in model.graph.value_info if value.name in chosen.activations]
    exposed = copy.deepcopy(model)
    exposed.graph.output.extend(inside)
    arrays = tiny.example(CALIBRATION_IMAGES, seed=3)
    found = ReferenceEvaluator(exposed).run(None, arrays)
    arrays |= dict(zip((value.name for value in exposed.graph.output), found, strict=True))
    ranges = {n: (min(0.0, float(arrays[n].min())), max(0.0, float(arrays[n].max()))) for n in chosen.activations}
    return writer.write(model, recipe, chosen, ranges)


def left_in_float(model: onnx.ModelProto, recipe: Recipe) -> list[str]:
    """Returns the layers of a named model that a recipe leaves in float."""
    from ghostdeploy.deploy.quantize import writer

    floating = writer.plan(model, recipe).float_nodes
    return [name for name in layers_of(model) if name in floating]


def saturable(graph: onnx.ModelProto, recipe: Recipe) -> int:
    """Returns the channels whose sums can overflow, 0 where the recipe does not count them."""
    from ghostdeploy.deploy.quantize.saturation import count_saturable

    return sum(count_saturable(graph).values()) if recipe.saturation_safe else 0


def simulate(model: onnx.ModelProto, inputs: Arrays) -> Arrays:
    """Runs a graph with any number of inputs as it is written; a fixed batch is fed in pieces and filled up."""
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    count = len(next(iter(inputs.values())))
    size = model.graph.input[0].type.tensor_type.shape.dim[0].dim_value or count
    parts = []
    for start in range(0, count, size):
        rows = np.arange(start, start + size).clip(max=count - 1)
        parts.append(session.run(None, {name: array[rows] for name, array in inputs.items()}))
    names = [output.name for output in session.get_outputs()]
    return {name: np.concatenate(one)[:count] for name, one in zip(names, zip(*parts, strict=True), strict=True)}


def describe(tool: str, float_by_rule: Sequence[str] = ()) -> Quantization:
    """Returns the manifest's record."""
    return Quantization(
        scheme="activations between extremes, weights int8 per channel",
        tool=f"{tool}, called by a test",
        calibration=Calibration(count=CALIBRATION_IMAGES, sha256="0" * 64),
        float_by_rule=tuple(float_by_rule),
    )


def layers_of(graph: onnx.ModelProto) -> list[str]:
    """Returns the names of the layers with weights."""
    return [node.name for node in graph.graph.node if node.op_type in ("Conv", "Gemm", "MatMul")]


def write_diagnosis(path: Path, names: Sequence[str], outputs: Arrays, simulated: Arrays) -> None:
    """Writes what the golden vectors say of the whole graph, and one entry per layer."""
    from ghostdeploy.deploy.prove.parity import agreement, sqnr_db

    got, reference = (np.asarray(arrays["logits"], np.float64) for arrays in (simulated, outputs))
    layers = [
        LayerNoise(module=name, role="convolution", unit=name, sqnr_db=None, clipped=0.0, dead=0.0) for name in names
    ]
    found = Diagnosis(
        images=len(got),
        sqnr_db=sqnr_db([(got, reference)]),
        agreement=agreement(got, reference),
        layers=tuple(layers),
    )
    path.write_bytes(msgspec.json.encode(found))


def judge(
    folder: Path,
    manifest: Manifest,
    row: Target,
    model: onnx.ModelProto,
    simulate: Callable[[Arrays], Arrays],
    saturable: int,
    tiny: Tiny,
):
    """Returns the manifest with parity, agreement, execution gap and verdict, by the package's own gates.

    Where the engine cannot run, the simulation stands for it and no gap is recorded.

    Args:
        folder: The bundle, complete but for these records.
        manifest: As it is written there.
        row: Its target.
        model: Float network.
        simulate: Gives what the payload's graph says in float.
        saturable: Channels of it whose sums can overflow.
        tiny: What both were made from.
    """
    from ghostdeploy.bundle.folder import Bundle
    from ghostdeploy.deploy.export.executor import executor
    from ghostdeploy.deploy.export.verdict import agree
    from ghostdeploy.deploy.prove import parity, replay
    from ghostdeploy.deploy.prove.execution import compare_execution
    from ghostdeploy.deploy.prove.judge import conclude
    from ghostdeploy.deploy.prove.tolerance import TOLERANCES
    from ghostdeploy.machine import instruction_set

    gate = tiny.example(GATE_IMAGES, seed=4)
    reference = dict(zip((o.name for o in tiny.outputs), ReferenceEvaluator(model).run(None, gate), strict=True))
    simulated = simulate(gate)
    bundle = Bundle(folder, manifest)
    golden, outputs = bundle.golden()
    stored = bundle.simulated()
    with executor(bundle, row) as engine:
        missing, how = engine.unverified_because, engine.how
        run = engine.infer if missing is None else simulate  # the package's own takes one input
        got, replayed = run(gate), run(golden)
    required = TOLERANCES["int8"].agreement_ci95_low
    agreement = agree(got["logits"], reference["logits"], source="tests", required=required)
    gap = compare_execution(
        got["logits"],
        simulated["logits"],
        isa=instruction_set(row.runtimes[0]),
        saturable_channels=saturable,
    )
    manifest = msgspec.structs.replace(
        manifest,
        parity=msgspec.structs.replace(parity.compare(replayed, outputs, "int8"), how=how),
        agreement=msgspec.structs.replace(agreement, how=how),
        execution=gap if missing is None else None,
        replay=replay.compare_with_simulation(replayed, stored, outputs)
        if stored is not None and missing is None
        else (),
    )
    return conclude(manifest, missing)
