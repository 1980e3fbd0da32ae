"""Everything before the first converter of an ONNX model: golden vectors, passes, evidence, the program file."""

from __future__ import annotations

import logging
import math
from dataclasses import replace
from importlib.metadata import version
from typing import TYPE_CHECKING

from onnx import TensorProto

from ghostdeploy.bundle.manifest import ModelInfo
from ghostdeploy.convert.graph.index import OnnxGraph
from ghostdeploy.deploy.fold.half_range import half_ranges
from ghostdeploy.deploy.intake.onnx import interface
from ghostdeploy.deploy.intake.onnx.branches import decide
from ghostdeploy.deploy.intake.onnx.difference import require_same
from ghostdeploy.deploy.intake.onnx.opset import upgrade
from ghostdeploy.deploy.intake.onnx.plain_forms import write_plainly
from ghostdeploy.deploy.intake.onnx.rewrite import rewrite
from ghostdeploy.deploy.intake.onnx.value_ranges import watch_model
from ghostdeploy.deploy.intake.records import Folded
from ghostdeploy.deploy.intake.reference_run import run_reference
from ghostdeploy.deploy.plan.preprocessing import apply_overrides
from ghostdeploy.deploy.plan.steps import program_file
from ghostdeploy.errors import CheckpointError, UsageError
from ghostdeploy.preprocess import pixels_text

if TYPE_CHECKING:
    import onnx

    from ghostdeploy.deploy.intake.onnx.model import OnnxModel
    from ghostdeploy.deploy.plan.config import ExportConfig
    from ghostdeploy.deploy.plan.steps import ExportRun
    from ghostdeploy.preprocess import Preprocess

_STATISTICS = slice(3, 5)
"""Inputs of a BatchNormalization that are not parameters: running mean and variance."""

_log = logging.getLogger("ghostdeploy")


def prepare_onnx(model: OnnxModel, run: ExportRun) -> Folded:
    """Brings an ONNX model to where converters can start.

    Args:
        model: As it was read.
        run: The export.

    Raises:
        UsageError: Image size or batch do not fit what the file fixes.
        CheckpointError: ONNX Runtime cannot run it on the images, or it takes branches by their values.
        GateFailed: A pass changed the outputs.
    """
    batch = run.config.batch
    seen = run_reference(model, model.reference(), run)
    sizes = interface.sizes_of(model.proto, seen.golden)
    model = replace(model, proto=decide(model.proto, model.name, batch, sizes))
    with run.stages.stage("fold"):
        shaped = write_plainly(interface.with_shape(upgrade(model.proto, model.name), batch, sizes))
        require_same(shaped, seen.golden, seen.interface.golden_outputs, batch, model)
        folded, passes = rewrite(shaped, seen.golden[: batch or 1])
    file = program_file(run.intake)
    ranges = half_ranges({file: folded}, seen, run, watch_model)
    with run.stages.stage("save program"):
        takes_pixels = seen.interface.preprocess.takes_pixels
        program = interface.with_pixels(folded, seen.preprocess) if takes_pixels else folded
        (run.work / file).write_bytes(program.SerializeToString(deterministic=True))
    return Folded(
        seen=seen,
        model=describe(model, run.name, len(seen.labels), folded),
        passes={file: passes},
        tools={name: version(name) for name in ("ghostdeploy", "onnx", "onnxruntime")},
        half_ranges=ranges,
    )


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
        CheckpointError: An image cannot feed it.
        UsageError: Size or channels are not those that the file fixes.
    """
    image = model.image
    if isinstance(image, CheckpointError):
        raise image
    spec = apply_overrides(model.preprocess, config.preprocess)
    if image.size is None and "size" not in config.preprocess:
        size = pixels_text(spec.sides)
        _log.warning("%s takes images of any size: exported for %s pixels, see --image-size", model.name, size)
    if not config.preprocess.keys() & {"mean", "std"}:
        used = "ImageNet's mean and std" if spec.channels == 3 else "mean 0 and std 1"
        _log.warning("%s does not record its normalisation: using %s, see --mean and --std", model.name, used)
    if image.size is not None and model.preprocess.sides != spec.sides:
        raise UsageError(
            f"{model.name} takes images of {pixels_text(image.size)} pixels, --image-size says "
            f"{pixels_text(spec.sides)}",
            hint="leave out --image-size, or export the ONNX file with free height and width",
        )
    if image.channels != spec.channels:
        raise UsageError(
            f"{model.name} takes {image.channels} channels, the preprocessing gives {spec.channels}",
            hint="leave out --color and --channels",
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
