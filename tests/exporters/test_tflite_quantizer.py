"""The INT8 TFLite graph: what it says is what runs, its copies are copies, and a missed gate gives units back."""

from __future__ import annotations

import copy
import json

import msgspec
import numpy as np
import pytest
import torch
from torch import nn

import ghostdeploy as gd
from ghostdeploy import samples, targets
from ghostdeploy.bundle.folder import DIAGNOSIS, open_bundle
from ghostdeploy.bundle.manifest import Calibration
from ghostdeploy.convert.base import QuantizeSpec
from ghostdeploy.deploy.prove.fidelity import ratio_db
from ghostdeploy.exporters.tflite import file as tf
from ghostdeploy.exporters.tflite.quantize.float_simulation import in_float
from ghostdeploy.exporters.tflite.quantize.graph import TFLiteGraph
from ghostdeploy.exporters.tflite.quantize.runner import TFLiteRunner
from ghostdeploy.exporters.tflite.quantize.worker import TFLiteQuantization
from ghostdeploy.preprocess import as_input, prepare
from ghostdeploy.tasks.base import TaskInfo
from tests import tiny_tflite
from tests.bundles import for_target
from tests.exported import sample_bundle
from tests.further import further

MODELS = ("ghostnet_050", "g_ghost_regnetx_002")
MOVES = ("CONCATENATION", "RESHAPE", "PAD", "MAX_POOL_2D", "STRIDED_SLICE", "SLICE")
IMAGES = 200

slow = pytest.mark.slow


@pytest.fixture(params=further(MODELS, usual=MODELS[:1]))
def name(request):
    return request.param


@pytest.fixture
def int8(name, tmp_path_factory):
    return sample_bundle(tmp_path_factory, name, "tflite", precision="int8")


def images(bundle, path, count):
    """Returns the first images of a shipped set as the payload takes them, one batch."""
    with np.load(path, allow_pickle=False) as archive:
        pixels = archive["images"][:count]
    return prepare(list(pixels), open_bundle(bundle).manifest.preprocess)


def payload(bundle):
    return (bundle / "model.tflite").read_bytes()


@slow
def test_the_float_simulation_is_what_the_processor_computes(int8):
    """The interpreter's own kernels agree less: they round in steps of their own."""
    batch = images(int8, samples.evaluation_set(), IMAGES)
    executed = TFLiteRunner(payload(int8), delegate=True).logits([batch])
    plain = TFLiteRunner(payload(int8), delegate=False).logits([batch])
    simulated = TFLiteRunner(tf.pack(in_float(tf.read(payload(int8)))), delegate=False).logits([batch])

    assert ratio_db(executed, simulated) >= 40
    assert ratio_db(executed, simulated) > ratio_db(executed, plain) + 3
    assert (executed.argmax(axis=1) == simulated.argmax(axis=1)).mean() >= 0.99


@slow
def test_equalized_weights_are_tried_and_none_is_left_out(int8):
    notes = json.loads((int8 / DIAGNOSIS).read_text())["notes"]

    assert [note for note in notes if "left out" in note] == []
    assert {note.split(",")[0] for note in notes} == {f"equalization {s}" for s in ("0", "0.5", "0.75")}


@slow
def test_tensors_that_are_only_moved_share_one_scale_and_nothing_is_quantized_twice(int8):
    model = tf.read(payload(int8))
    kinds = [kind for kind, _ in tf.operators(model)]

    assert kinds.count("QUANTIZE") == len(model.subgraphs[0].inputs)
    assert kinds.count("DEQUANTIZE") == len(model.subgraphs[0].outputs)
    for kind, operator in tf.operators(model):
        if kind in MOVES:
            given = operator.inputs if kind == "CONCATENATION" else operator.inputs[:1]
            records = [tf.tensor(model, i).quantization for i in (*given, *operator.outputs)]
            assert len({(float(one.scale[0]), int(one.zeroPoint[0])) for one in records}) == 1, kind


@slow
def test_weights_are_symmetric_per_channel_and_biases_have_32_bits(int8):
    model = tf.read(payload(int8))
    for _, operator in tf.layers(model):
        weights = tf.tensor(model, operator.inputs[1])
        values = tf.constant(model, operator.inputs[1])
        assert values.dtype == np.int8
        assert not np.any(weights.quantization.zeroPoint)
        assert len(weights.quantization.scale) == values.shape[int(weights.quantization.quantizedDimension)]
        assert tf.TYPES[tf.tensor(model, operator.inputs[2]).type] == "int32"


@slow
@pytest.mark.filterwarnings("ignore:Warning. Enabling:UserWarning")  # its interpreter keeps all tensors
def test_the_quantizers_own_calibration_loses_much_more(tmp_path_factory):
    """Its ranges are moving averages of each image's extremes: they clip what comes late."""
    from ai_edge_quantizer import qtyping, quantizer
    from ai_edge_quantizer.algorithm_manager import AlgorithmName

    from ghostdeploy.exporters.tflite.quantize.writer import _STATIC

    floating = sample_bundle(tmp_path_factory, "ghostnet_050", "tflite", precision="fp32")
    ours = sample_bundle(tmp_path_factory, "ghostnet_050", "tflite", precision="int8")
    work = quantizer.Quantizer(bytearray(payload(floating)))
    work.update_quantization_recipe(".*", qtyping.TFLOperationName.ALL_SUPPORTED, _STATIC)
    for end in (qtyping.TFLOperationName.INPUT, qtyping.TFLOperationName.OUTPUT):
        work.update_quantization_recipe(".*", end, algorithm_key=AlgorithmName.NO_QUANTIZE)
    [signature] = tf.read(payload(floating)).signatureDefs
    name = signature.inputs[0].name.decode()
    batch = images(floating, samples.calibration_set(), 512)
    feeds = {signature.signatureKey.decode(): [{name: image[None]} for image in batch]}
    theirs = bytes(work.quantize(work.calibrate(feeds), enable_progress_report=False).quantized_model)

    test = images(floating, samples.evaluation_set(), IMAGES)
    wanted, default, chosen = (
        TFLiteRunner(data, delegate=True).logits([test]) for data in (payload(floating), theirs, payload(ours))
    )
    assert ratio_db(chosen, wanted) > 30
    assert ratio_db(default, wanted) < ratio_db(chosen, wanted) - 8


@pytest.fixture
def tiny():
    return for_target("tflite")


@pytest.fixture
def graph(tiny):
    """The tiny network as a model object."""
    return tf.read(tiny_tflite.floating(tiny))


def operators(model):
    return {name: op for name, (_, op) in zip(TFLiteGraph(model).outputs(), tf.layers(model), strict=True)}


def test_a_constant_that_others_share_is_not_overwritten(graph):
    layers = operators(graph)
    first, depthwise = layers["first"], layers["depthwise"]
    depthwise.inputs[2] = first.inputs[2]
    before = tf.constant(graph, depthwise.inputs[2]).copy()

    tf.set_constant(graph, first, 2, before + 1)

    again = operators(tf.read(tf.pack(graph)))
    model = tf.read(tf.pack(graph))
    assert np.array_equal(tf.constant(model, again["first"].inputs[2]), before + 1)
    assert np.array_equal(tf.constant(model, again["depthwise"].inputs[2]), before)
    with pytest.raises(ValueError, match="bytes, got"):
        tf.set_constant(graph, first, 2, before[:3])


def test_a_bias_that_the_converter_left_out_is_not_the_last_tensor(graph):
    graph.subgraphs[0].tensors.append(copy.copy(tf.tensor(graph, operators(graph)["first"].inputs[2])))

    assert tf.constant(graph, -1) is None


def test_layers_have_names_roles_and_work(graph):
    found = {layer.name: (layer.role, layer.macs) for layer in TFLiteGraph(graph).layers()}

    assert found == {
        "first": ("convolution", 8 * 8 * 8 * 27),
        "depthwise": ("depthwise", 8 * 8 * 8 * 9),
        "classifier": ("linear", 80),
    }


@pytest.fixture
def job(tiny, tmp_path):
    """A function: float file → what the quantizer is asked to do with it."""

    def make(data, **changes):
        rng = np.random.default_rng(0)
        colour, pattern = rng.uniform(0, 255, (96, 1, 1, 3)), rng.uniform(-60, 60, (96, 4, 4, 3))
        pixels = np.clip(colour + pattern, 0, 255).astype(np.uint8).repeat(4, axis=1).repeat(4, axis=2)
        batch = as_input(pixels, tiny.preprocess)
        np.save(tmp_path / "pixels.npy", pixels)
        np.save(tmp_path / "reference.npy", TFLiteRunner(data, delegate=True).logits([batch]))
        np.save(tmp_path / "golden.npy", batch[:4])
        spec = QuantizeSpec(
            recipe=targets.find("tflite").recipe,
            preprocess=tiny.preprocess,
            conditioned=None,
            calibration=str(tmp_path / "pixels.npy"),
            fingerprint=Calibration(count=96, sha256="0" * 64),
            gate=str(tmp_path / "pixels.npy"),
            task=TaskInfo(),
            reference={"logits": str(tmp_path / "reference.npy")},
            labels=None,
            golden=str(tmp_path / "golden.npy"),
            max_drop=0.01,
            required_agreement=0.5,
            required_db=20.0,
            values_judge=False,
        )
        return msgspec.structs.replace(spec, **changes)

    return make


def test_a_gate_that_holds_leaves_nothing_in_float(graph, job):
    data = tf.pack(graph)
    work = TFLiteQuantization(data, job(data), integer_io=False)

    assert (work.float_units, work.summary().float_layers) == ((), ())
    assert (work.diagnosis().noise, work.diagnosis().sqnr_db > 25) == ("arriving", True)
    assert {layer.module for layer in work.diagnosis().layers} == {"first", "depthwise", "classifier"}


def test_a_missed_gate_returns_the_guilty_unit_to_float(graph, job):
    """A weight that multiplies a channel of zeros leaves the others of its rows no steps: it must be found."""
    layers, dead = operators(graph), 3
    depthwise, classifier = (tf.constant(graph, layers[n].inputs[1]).copy() for n in ("depthwise", "classifier"))
    depthwise[..., dead] = 0
    classifier[:, dead] = 4000 * np.abs(classifier).max()
    tf.set_constant(graph, layers["depthwise"], 1, depthwise)
    tf.set_constant(graph, layers["classifier"], 1, classifier)
    data = tf.pack(graph)

    work = TFLiteQuantization(data, job(data, required_agreement=0.6), integer_io=False)

    assert work.gains[0].unit == "classifier"
    assert work.float_units == work.diagnosis().float_units == ("classifier",)
    assert work.summary().float_layers == ("classifier",)
    assert work.gate.holds(work.gate_outputs)
    kinds = {
        name: tf.TYPES[tf.tensor(m, op.inputs[1]).type]
        for m in [tf.read(work.quantized)]
        for name, op in operators(m).items()
    }
    assert sorted(kinds.values()) == ["float32", "int8", "int8"]


def test_a_gate_that_nothing_reaches_gives_back_no_more_than_half_of_the_work(graph, job):
    data = tf.pack(graph)
    spec = job(data, required_agreement=1.0)
    reference = spec.reference["logits"]
    np.save(reference, np.roll(np.load(reference), 1, axis=1))

    work = TFLiteQuantization(data, spec, integer_io=False)

    assert not work.gate.holds(work.gate_outputs)
    assert work.float_units == ()
    assert {gain.unit for gain in work.gains} == {"first", "depthwise", "classifier"}


class WithConstants(nn.Module):
    """Operators that make one scale of a map and a constant."""

    def __init__(self):
        super().__init__()
        self.map = nn.Parameter(torch.randn(1, 3, 16, 16))
        self.layer = nn.Conv2d(6, 8, 3, stride=2)
        self.head = nn.Linear(8, 3)

    def forward(self, x):
        both = torch.cat([torch.maximum(x, self.map * 0.01), self.map.expand(len(x), -1, -1, -1)], 1)
        pooled = self.layer(nn.functional.pad(both, (0, 1, 0, 1), value=0.7)).relu().mean((2, 3))
        kept = torch.where(pooled > 0.1, pooled, torch.tensor(0.1))
        return self.head(nn.functional.normalize(kept, dim=1))


@slow
def test_constants_that_share_a_scale_with_a_map_stay_float(tmp_path):
    torch.manual_seed(0)
    rng = np.random.default_rng(0)
    np.savez(tmp_path / "set.npz", images=rng.integers(0, 256, (200, 16, 16, 3), np.uint8))

    bundle = gd.export(
        WithConstants().eval(),
        target="tflite",
        precision="int8",
        calibration=tmp_path / "set.npz",
        out=tmp_path,
        preprocess={"size": 16, "crop_fraction": 1.0},
    )

    assert bundle.manifest.parity.verdict == "passed"
    assert bundle.manifest.precision_achieved.int8_layers == 2
