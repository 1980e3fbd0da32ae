"""An INT8 graph gives the same answers on every processor, or the gate says so."""

from __future__ import annotations

import logging

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import numpy_helper

from ghostdeploy import samples
from ghostdeploy.bundle.folder import open_bundle
from ghostdeploy.bundle.manifest import PrecisionAchieved
from ghostdeploy.deploy.prove.execution import compare_execution, execution_of, margins, noise_step
from ghostdeploy.deploy.prove.images import open_images
from ghostdeploy.deploy.prove.judge import fault, int8_fault
from ghostdeploy.deploy.prove.tolerance import EXECUTION_DB, FEW_IMAGES
from ghostdeploy.deploy.quantize.saturation import count_saturable, safe_scales
from ghostdeploy.errors import BundleError
from ghostdeploy.tasks.base import TaskInfo
from ghostdeploy.tasks.table import task_of
from tests.exported import plain_graph
from tests.further import further
from tests.kernels import run_on_avx2, simulate

SAMPLES = ("ghostnet_050", "g_ghost_regnetx_002")
ISA = "x86-64 AVX2"


def logits(count=300, classes=10, seed=0):
    return np.random.default_rng(seed).normal(0, 2, (count, classes)).astype(np.float32)


def shifted(simulated, decibel):
    """Returns logits whose SQNR against the simulated ones is exactly `decibel`, with no class changed."""
    noise = -simulated  # scaling changes no order
    return simulated + noise * 10 ** (-decibel / 20)


def turned(simulated, count, by):
    """Returns logits with the first `count` images' classes turned over where the margin is below `by`."""
    changed = simulated.copy()
    narrow = np.argsort(margins(simulated.astype(np.float64)))[:count]
    for image in narrow:
        first, second = np.argsort(simulated[image])[-1:-3:-1]
        changed[image, second] = simulated[image, first] + by
    return changed


def test_equal_outputs_pass_and_have_no_error():
    found = compare_execution(logits(), logits(), isa=ISA)

    assert (found.verdict, found.agreement, found.sqnr_db, found.count) == ("passed", 1.0, None, 300)
    assert fault(found, "int8") is None
    assert found.isa == ISA


@pytest.mark.parametrize(("decibel", "verdict"), [(EXECUTION_DB + 0.1, "passed"), (EXECUTION_DB - 0.1, "failed")])
def test_the_error_must_stay_below_the_limit(decibel, verdict):
    found = compare_execution(shifted(logits(), decibel), logits(), isa=ISA)

    assert found.verdict == verdict
    assert found.sqnr_db == pytest.approx(decibel, abs=0.01)
    assert found.agreement == 1


def test_one_class_in_two_hundred_may_change_and_not_more():
    simulated = logits(1000)

    assert compare_execution(turned(simulated, 5, 1e-3), simulated, isa=ISA).verdict == "passed"
    failed = compare_execution(turned(simulated, 6, 1e-3), simulated, isa=ISA)
    assert failed.verdict == "failed"
    assert "99.4%" in fault(failed, "int8")
    assert ISA in fault(failed, "int8")


def test_among_few_images_a_narrow_margin_is_forgiven_and_a_wide_one_is_not():
    simulated = logits(16)
    simulated[3] = [0, 1, 0, 0, 0, 0, 5, 5.05, 0, 0]
    step = noise_step(simulated.astype(np.float64))
    narrow, wide = simulated.copy(), simulated.copy()
    narrow[3, 6] += 0.1
    image = int(np.argmax(margins(simulated.astype(np.float64))))
    wide[image] = np.roll(simulated[image], 1)

    found = compare_execution(narrow, simulated, isa=ISA)
    assert step > 0.05
    assert (found.verdict, found.agreement) == ("passed", 15 / 16)
    assert compare_execution(wide, simulated, isa=ISA).verdict == "failed"
    many = np.tile(simulated, (FEW_IMAGES // 16 + 1, 1))
    assert compare_execution(np.tile(narrow, (FEW_IMAGES // 16 + 1, 1)), many, isa=ISA).verdict == "failed"


def test_channels_that_can_overflow_fail_even_where_this_processor_is_exact():
    found = compare_execution(logits(), logits(), isa="x86-64 AVX-512 VNNI", saturable_channels=3)

    assert found.verdict == "failed"
    assert "3 output channels" in fault(found, "int8")


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_outputs_that_are_not_numbers_fail(value):
    broken = logits()
    broken[7, 2] = value

    found = compare_execution(broken, logits(), isa=ISA)
    assert (found.verdict, found.sqnr_db) == ("failed", -999.0)


def test_no_images_prove_nothing():
    assert compare_execution(logits(0), logits(0), isa=ISA).verdict == "failed"


def test_other_shapes_are_refused():
    with pytest.raises(BundleError, match=r"\(300, 10\)"):
        compare_execution(logits(), logits(299), isa=ISA)


@given(st.integers(1, 40), st.integers(1, 12), st.integers(0, 10**6))
def test_the_record_is_finite_for_any_shape(count, classes, seed):
    found = compare_execution(logits(count, classes, seed), logits(count, classes, seed + 1), isa=ISA)

    assert np.isfinite(found.sqnr_db)
    assert found.agreement is None or 0 <= found.agreement <= 1


def achieved(share, float_layers):
    return PrecisionAchieved(int8_layers=50, float_layers=float_layers, how="read", int8_mac_share=share)


def test_four_fifths_of_the_convolution_work_in_int8_are_enough():
    assert int8_fault(achieved(0.8, 7), ()) is None


def test_less_must_be_explained_by_the_layers_left_in_float():
    names = ("a", "b", "c")

    assert int8_fault(achieved(0.6, 3), names) is None
    assert "60.0%" in int8_fault(achieved(0.6, 4), names)
    assert "1 of 4 float layers" in int8_fault(achieved(0.6, 4), names)
    assert int8_fault(achieved(0.0, 60), ()) is not None
    assert "could not be read" in int8_fault(achieved(None, 0), ())


@pytest.fixture(scope="module")
def quantized(tmp_path_factory):
    """A function name → (safe graph, unsafe graph, images) of a sample model, from one calibration."""
    made = {}

    def build(name):
        if name not in made:
            made[name] = graphs(name)
        return made[name]

    def graphs(name):
        source = plain_graph(tmp_path_factory, name)
        spec = open_bundle(source.parent).manifest.preprocess
        calibration = list(open_images(samples.calibration_set()).sample(64).batches(spec, size=16))
        images = np.concatenate(list(open_images(samples.evaluation_set()).sample(512).batches(spec)))
        out = tmp_path_factory.mktemp(name) / "model.onnx"
        safe = quantize(source, out, calibration, weight_overrides(onnx.load(source)))
        return safe, quantize(source, out, calibration, {}), images

    return build


def weight_overrides(model):
    from onnxruntime.quantization import QuantType

    constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    found = {}
    for node in model.graph.node:
        if node.op_type not in ("Conv", "Gemm"):
            continue
        groups = next((a.i for a in node.attribute if a.name == "group"), 1)
        zero = np.array(0, np.int8)
        found[node.input[1]] = [
            {"quant_type": QuantType.QInt8, "axis": 0, "scale": scale, "zero_point": zero}
            for scale in safe_scales(constants[node.input[1]], groups=groups)
        ]
    return found


def quantize(source, out, calibration, overrides):
    """Returns the Q/DQ graph that ONNX Runtime's quantizer writes with its default ranges; its gates stay float."""
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

    class Reader(CalibrationDataReader):
        left = iter(calibration)

        def get_next(self):
            batch = next(self.left, None)
            return None if batch is None else {"input": batch}

    logging.disable(logging.WARNING)
    try:
        quantize_static(
            source,
            out,
            Reader(),
            quant_format=QuantFormat.QDQ,
            per_channel=True,
            weight_type=QuantType.QInt8,
            activation_type=QuantType.QUInt8,
            op_types_to_quantize=["Conv", "Gemm", "Relu", "Add", "Concat"],
            extra_options={"TensorQuantOverrides": dict(overrides)},
        )
    finally:
        logging.disable(logging.NOTSET)
    return without_rounding_before_adds(onnx.load(out))


def without_rounding_before_adds(model):
    """Takes off Q/DQ between a convolution and the add that alone reads it: OpenVINO fuses both and drops it."""
    graph = model.graph
    source = {name: node for node in graph.node for name in node.output}
    readers = {}
    for node in graph.node:
        for name in node.input:
            readers.setdefault(name, []).append(node)
    for add in [node for node in graph.node if node.op_type == "Add"]:
        for place, name in enumerate(add.input):
            chain = [source[name], source[source[name].input[0]]]
            layer = source.get(chain[1].input[0])
            single = all(len(readers[node.output[0]]) == 1 for node in (*chain, layer) if node is not None)
            if layer is not None and layer.op_type == "Conv" and single:
                add.input[place] = layer.output[0]
                for node in chain:
                    graph.node.remove(node)
                break
    return model


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*:DeprecationWarning")
@pytest.mark.parametrize("name", further(SAMPLES, usual=SAMPLES[:1]))
def test_safe_weights_execute_as_simulated_on_avx2_and_free_ones_are_caught(name, quantized, tmp_path):
    safe, unsafe, images = quantized(name)
    jobs = {"safe": (safe, images), "unsafe": (unsafe, images)}

    outputs = run_on_avx2("openvino", jobs, tmp_path)

    found = {key: compare_execution(outputs[key], simulate(model, images), isa=ISA) for key, (model, _) in jobs.items()}
    assert count_saturable(safe) == {}
    assert sum(count_saturable(unsafe).values()) > 1000
    assert found["safe"].verdict == "passed"
    assert found["safe"].agreement >= 0.995
    assert found["unsafe"].verdict == "failed"


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*:DeprecationWarning")
@pytest.mark.parametrize("name", further(SAMPLES, usual=SAMPLES[:1]))
def test_sixteen_images_tell_safe_from_free_weights_in_onnx_runtime(name, quantized, tmp_path):
    safe, unsafe, images = quantized(name)
    jobs = {"safe": (safe, images[:16]), "unsafe": (unsafe, images[:16])}

    outputs = run_on_avx2("onnxruntime", jobs, tmp_path)

    verdicts = {key: compare_execution(outputs[key], simulate(*job), isa=ISA).verdict for key, job in jobs.items()}
    assert verdicts == {"safe": "passed", "unsafe": "failed"}


def of_values(decibel, own):
    """The verdict on an executed output `decibel` from its simulation, which is `own` from the float model."""
    rng = np.random.default_rng(0)
    simulated, noises = rng.normal(size=(50, 40)), rng.normal(size=(2, 50, 40))

    def off(level, noise):
        return simulated + noise / np.sqrt(np.square(noise).mean()) * 10 ** (-level / 20)

    task = task_of(TaskInfo(name="raw"), (32, 32))
    executed, floating = off(decibel, noises[0]), off(own, noises[1])
    return execution_of(task, {"y": executed}, {"y": simulated}, {"y": floating}, isa=ISA)


@pytest.mark.parametrize(
    ("decibel", "own", "required", "verdict"),
    [
        (29, 40, 28.0, "passed"),
        (27, 40, 28.0, "failed"),
        (24.8, 22.4, 22.4, "passed"),
        (22, 22.4, 22.4, "failed"),
        (19, 10, 20.0, "failed"),
        (21, 10, 20.0, "passed"),
    ],
)
def test_values_may_be_as_far_from_their_simulation_as_that_is_from_the_float_model(decibel, own, required, verdict):
    found = of_values(decibel, own)

    assert found.verdict == verdict
    assert found.sqnr_db == pytest.approx(decibel, abs=0.2)
    assert found.required_db == pytest.approx(required, abs=0.2)


def test_the_output_that_is_nearest_to_its_own_limit_is_recorded():
    rng = np.random.default_rng(0)
    wanted = {"noisy": rng.normal(size=(50, 40)), "clean": rng.normal(size=(50, 40))}

    def off(levels):
        return {
            name: array + rng.normal(size=array.shape) * 10 ** (-levels[name] / 20) for name, array in wanted.items()
        }

    simulated = off({"noisy": 22, "clean": 45})
    gaps = {"noisy": 24, "clean": 26}
    executed = {name: one + rng.normal(size=one.shape) * 10 ** (-gaps[name] / 20) for name, one in simulated.items()}
    task = task_of(TaskInfo(name="raw"), (32, 32))

    found = execution_of(task, executed, simulated, wanted, isa=ISA)

    assert (found.verdict, found.required_db) == ("failed", 28.0)
    assert found.sqnr_db == pytest.approx(26, abs=0.3)


@pytest.mark.parametrize(("own_rounding", "verdict"), [(False, "failed"), (True, "passed")])
def test_a_simulator_is_judged_by_its_values_and_its_agreement_is_told(own_rounding, verdict):
    simulated = logits()
    executed = turned(simulated, 6, 1e-3)
    task = task_of(TaskInfo(), (32, 32))

    found = execution_of(
        task, {"y": executed}, {"y": simulated}, {"y": simulated}, isa="a simulator", own_rounding=own_rounding
    )

    assert found.verdict == verdict
    assert found.agreement == pytest.approx(0.98)
    assert found.required_db == (28.0 if own_rounding else None)


def test_a_simulator_far_from_its_graph_fails_and_its_limit_is_named():
    simulated = logits()
    task = task_of(TaskInfo(), (32, 32))
    found = execution_of(
        task, {"y": shifted(simulated, 15)}, {"y": simulated}, {"y": simulated}, isa="a simulator", own_rounding=True
    )

    assert found.verdict == "failed"
    assert fault(found, "int8").endswith("expected 28 dB")
