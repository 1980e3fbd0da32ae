"""All that comes before the first converter of an ONNX model: golden vectors, passes, evidence, the program file."""

from __future__ import annotations

import logging
import math
from dataclasses import replace
from typing import TYPE_CHECKING

from onnx import TensorProto

from ghostdeploy import targets
from ghostdeploy.bundle.manifest import ModelInfo
from ghostdeploy.convert.graph.index import OnnxGraph
from ghostdeploy.deploy.fold.half_range import half_ranges
from ghostdeploy.deploy.intake.onnx import interface
from ghostdeploy.deploy.intake.onnx.branches import decide
from ghostdeploy.deploy.intake.onnx.difference import require_same
from ghostdeploy.deploy.intake.onnx.opset import upgrade
from ghostdeploy.deploy.intake.onnx.reference import OnnxReference
from ghostdeploy.deploy.intake.onnx.rewrite import rewrite
from ghostdeploy.deploy.intake.onnx.value_ranges import watch_model
from ghostdeploy.deploy.intake.reference_run import run_reference
from ghostdeploy.deploy.plan.config import apply_overrides
from ghostdeploy.deploy.plan.steps import program_file
from ghostdeploy.errors import UsageError

if TYPE_CHECKING:
    from pathlib import Path

    import onnx

    from ghostdeploy.deploy.intake.facts import Facts
    from ghostdeploy.deploy.intake.onnx.model import OnnxModel
    from ghostdeploy.deploy.plan.config import ExportConfig
    from ghostdeploy.preprocess import Preprocess
    from ghostdeploy.progress import Stages

_STATISTICS = slice(3, 5)
"""Inputs of a BatchNormalization that are no parameters: running mean and variance."""

_log = logging.getLogger("ghostdeploy")


def prepare_onnx(model: OnnxModel, name: str, config: ExportConfig, work: Path, stages: Stages) -> Facts:
    """Brings an ONNX model to where converters can start.

    Args:
        model: As it was read.
        name: Name of the bundles.
        config: The request.
        work: Folder that receives the program file and, for quantized precisions, the evidence.
        stages: Receives the progress.

    Raises:
        UsageError: Image size or batch do not fit what the file fixes.
        CheckpointError: ONNX Runtime cannot run it on the images, or it takes branches by their values.
        GateFailed: A pass changed the outputs.
    """
    preprocess = preprocess_of(model, config)
    reference = OnnxReference(model)
    model = replace(model, proto=decide(model.proto, model.name, config.batch, preprocess.size))
    seen = run_reference(model, preprocess, reference, config, work, stages)
    golden = seen.golden
    with stages.stage("fold"):
        shaped = interface.with_shape(upgrade(model.proto, model.name), config.batch, preprocess.size)
        require_same(shaped, golden, seen.outputs, config.batch, model)
        folded, passes = rewrite(shaped, golden[: config.batch or 1])
    file = program_file(targets.chain(config.rows[0])[0])
    ranges = half_ranges({file: folded}, seen, config, stages, watch_model)
    with stages.stage("save program"):
        program = folded
        if seen.payload.takes_pixels:
            program, golden = interface.with_pixels(folded, preprocess), seen.inputs.golden(seen.payload)
        (work / file).write_bytes(program.SerializeToString(deterministic=True))
    info = describe(model, name, seen.num_classes, folded)
    tools = ("ghostdeploy", "onnx", "onnxruntime")
    return seen.facts(info, golden, {file: passes}, config, tools=tools, half_ranges=ranges)


def describe(model: OnnxModel, name: str, num_classes: int, folded: onnx.ModelProto) -> ModelInfo:
    """Returns the manifest's record of the model; MACs are counted after the passes, parameters before."""
    return ModelInfo(
        name=name,
        family=model.family,
        source=model.source,
        weights_sha256=model.weights_sha256,
        num_classes=num_classes,
        params=count_parameters(model.proto),
        macs=count_macs(folded),
    )


def preprocess_of(model: OnnxModel, config: ExportConfig) -> Preprocess:
    """Returns how an image becomes the model's input.

    Raises:
        UsageError: `--image-size` is another size than the one that the file fixes.
    """
    spec = apply_overrides(model.preprocess, config.preprocess)
    if model.image.size is None and "size" not in config.preprocess:
        _log.warning("%s takes images of any size: exported for %d pixels, see --image-size", model.name, spec.size)
    if not config.preprocess.keys() & {"mean", "std"}:
        _log.warning("%s does not say how it was normalised: ImageNet's mean and std, see --mean and --std", model.name)
    if model.image.size not in (None, spec.size):
        raise UsageError(
            f"{model.name} takes images of {model.image.size} pixels, --image-size says {spec.size}",
            hint="leave out --image-size, or export the ONNX file with free height and width",
        )
    return spec


def count_parameters(model: onnx.ModelProto) -> int:
    """Returns the number of trained values: floating-point constants, running statistics left out."""
    statistics = {
        n for node in model.graph.node if node.op_type == "BatchNormalization" for n in node.input[_STATISTICS]
    }
    floats = (TensorProto.FLOAT, TensorProto.DOUBLE, TensorProto.FLOAT16)
    weights = [t for t in model.graph.initializer if t.data_type in floats and t.dims and t.name not in statistics]
    return sum(math.prod(tensor.dims) for tensor in weights)


def count_macs(model: onnx.ModelProto) -> int:
    """Returns the multiply-accumulates of layers for one image; shapes have been inferred."""
    graph = OnnxGraph(model)
    return sum(graph.macs(node) or 0 for node in graph.layers())
