"""An INT8 bundle with one broken block: what a release manager must find on the first screen of a report.

The weight scale of one layer of a sound ONNX bundle is multiplied, as by a quantizer that calibrated wrongly. All that
an export would have measured of that graph is measured of it: parity, agreement and accuracy on the labelled set, and
the noise of the layer, which is known: y' = f·y has an SQNR of −20 log10 |f − 1|.
"""

from __future__ import annotations

import math
import shutil
from typing import TYPE_CHECKING

import msgspec
import numpy as np
import onnx
from onnx import numpy_helper

import ghostdeploy as gd
from ghostdeploy import samples
from ghostdeploy.arrays import read_arrays
from ghostdeploy.bundle import folder as bundles
from ghostdeploy.bundle import writing
from ghostdeploy.bundle.folder import open_bundle
from ghostdeploy.bundle.manifest import encode
from ghostdeploy.bundle.writing import describe_file
from ghostdeploy.deploy.prove import judge, parity
from ghostdeploy.deploy.prove.diagnose import diagnose
from ghostdeploy.deploy.prove.evaluate import Predictions, compare
from ghostdeploy.preprocess import prepare
from ghostdeploy.statistics import wilson

if TYPE_CHECKING:
    from pathlib import Path

MODULE = "blocks.3.0.ghost2.primary_conv.0"
FACTOR = 5.0


def break_block(sound: Path, floating: Path, out: Path, module: str = MODULE, factor: float = FACTOR) -> Path:
    """Writes a copy of an INT8 ONNX bundle of `ghostnet_050` with one broken layer; returns its folder.

    Args:
        sound: The bundle.
        floating: The float bundle of the same network.
        out: The copy.
        module: PyTorch name of the layer.
        factor: Of its weights.
    """
    shutil.copytree(sound, out)
    _scale(out / "model.onnx", module, factor)
    bundle = open_bundle(sound)
    _accuse(out / bundles.DIAGNOSIS, diagnose(sound), module, factor)
    listed = msgspec.structs.replace(bundle.manifest, files=_files(out, bundle.manifest))
    (out / bundles.MANIFEST).write_bytes(encode(listed))
    inputs, golden = bundle.golden()
    images = read_arrays(samples.evaluation_set())
    batch = prepare(list(images["images"]), listed.preprocess)
    with gd.load(out) as wrong, gd.load(floating) as right:
        executed = wrong.infer(inputs)
        logits, wanted = wrong(batch), right(batch)
    writing.write_golden(out, inputs, golden, executed, bundle.recorded_images())
    same = int((logits.argmax(axis=1) == wanted.argmax(axis=1)).sum())
    noise = float(np.square(logits.astype(np.float64) - wanted).sum())
    ours, reference = (Predictions.of(one, images["labels"].astype(np.int64)) for one in (logits, wanted))
    drop = compare(ours, reference, "float")
    agreement = msgspec.structs.replace(
        listed.agreement,
        top1=same / len(batch),
        top1_ci95=wilson(same, len(batch)),
        sqnr_db=10 * math.log10(float(np.square(wanted.astype(np.float64)).sum()) / noise),
        verdict="failed",
    )
    accuracy = msgspec.structs.replace(
        listed.accuracy,
        top1=ours.top1_share,
        top5=ours.top5_share,
        reference_top1=reference.top1_share,
        drop=drop.drop,
        drop_ci95=drop.drop_ci95,
        p_value=drop.p_value,
        verdict=judge.accuracy_verdict(drop.drop, drop.drop_ci95, listed.accuracy.max_drop, 0),
    )
    judged = msgspec.structs.replace(
        listed,
        name="broken",
        parity=parity.again(executed, golden, listed),
        agreement=agreement,
        accuracy=accuracy,
        files=_files(out, listed),
    )
    (out / bundles.MANIFEST).write_bytes(encode(judge.conclude(judged)))
    return out


def _scale(path: Path, module: str, factor: float) -> None:
    model = onnx.load(path)
    name = f"{module.replace('.', '_')}_weight_scale"
    scale = next(one for one in model.graph.initializer if one.name == name)
    scale.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(scale) * np.float32(factor), name))
    onnx.save(model, path)


def _accuse(path: Path, found: object, module: str, factor: float) -> None:
    noise = -20 * math.log10(abs(factor - 1))
    layers = [msgspec.structs.replace(one, sqnr_db=noise) if one.module == module else one for one in found.layers]
    layers.sort(key=lambda one: one.sqnr_db)
    path.write_bytes(msgspec.json.encode(msgspec.structs.replace(found, layers=tuple(layers))))


def _files(folder: Path, manifest: object) -> tuple:
    return tuple(describe_file(folder, one.path) for one in manifest.files)
