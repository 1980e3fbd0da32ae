"""Faults planted in outputs: no precision lets one pass, in the first output or in one beside it."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest

from ghostdeploy.bundle import folder as bundles
from ghostdeploy.bundle import writing
from ghostdeploy.bundle.folder import open_bundle
from ghostdeploy.bundle.manifest import encode
from ghostdeploy.deploy.prove import commands as prove
from ghostdeploy.deploy.prove import judge, parity, replay
from ghostdeploy.deploy.prove.tolerance import TOLERANCES, norm_bound
from tests.bundles import Tiny, make_bundle

IMAGES, CLASSES = 16, 10
STEPS = {"fp32": 1e-7, "fp16": 3e-4, "hybrid": 1e-3, "int8": 0.02}
"""Error of a sound execution over the spread of an output."""


def _golden(*scales):
    """Returns one array (16, 10) per scale, each with a class of its own in every image."""
    rng = np.random.default_rng(5)
    sure = 6 * np.eye(CLASSES)[np.arange(IMAGES) % CLASSES]
    arrays = (scale * (rng.normal(size=(IMAGES, CLASSES)) + sure) for scale in scales)
    return {f"output_{index}": array.astype(np.float32) for index, array in enumerate(arrays)}


def _executed(golden, precision, seed):
    """Returns what a sound engine gives."""
    rng = np.random.default_rng(seed)
    return {
        n: (a + STEPS[precision] * a.std() * rng.normal(size=a.shape)).astype(np.float32) for n, a in golden.items()
    }


def _one_image(array):
    changed = array.copy()
    changed[11] = np.random.default_rng(1).permutation(-3 * array[11])
    return changed


def _not_a_number(array):
    changed = array.copy()
    changed[3, 2] = np.nan
    return changed


FAULTS = {
    "negated": np.negative,
    "seven times": lambda a: 7 * a,
    "a tenth larger": lambda a: np.float32(1.1) * a,
    "half": lambda a: a / 2,
    "permuted images": lambda a: np.roll(a, 1, axis=0),
    "shuffled numbers": lambda a: a[:, ::-1].copy(),
    "off by one class": lambda a: np.roll(a, 1, axis=1),
    "zeros": np.zeros_like,
    "constant": lambda a: np.broadcast_to(a.mean(axis=0), a.shape).copy(),
    "the first image always": lambda a: np.broadcast_to(a[0], a.shape).copy(),
    "one image": _one_image,
    "one number": _not_a_number,
    "infinite": lambda a: np.full_like(a, np.inf),
}


def _verdict(executed, golden, precision, simulated=None):
    """Judges as `verify` does; an INT8 bundle without simulation by its record."""
    found = parity.compare(executed, golden, precision)
    if precision != "int8" or found.verdict == "failed":
        return found.verdict
    if simulated is not None:
        replays = replay.compare_with_simulation(executed, simulated, golden)
    else:
        replays = replay.against_record(executed, golden, parity.compare(_executed(golden, "int8", 1), golden, "int8"))
    verdicts = {one.verdict for one in replays}
    return "failed" if "failed" in verdicts else ("unverified" if "unverified" in verdicts else "passed")


@pytest.fixture(params=["fp32", "fp16", "hybrid", "int8", "int8 by record"])
def judged(request):
    """A function: executed, golden → verdict; and its precision."""
    precision = request.param.split()[0]

    def verdict(executed, golden):
        simulated = _executed(golden, "int8", 1) if request.param == "int8" else None
        return _verdict(executed, golden, precision, simulated)

    return verdict, precision


@pytest.mark.parametrize("scales", [(1.0,), (1.0, 1000.0), (1000.0, 1.0)])
def test_sound_outputs_pass(judged, scales):
    verdict, precision = judged
    golden = _golden(*scales)

    assert verdict(_executed(golden, precision, 2), golden) == "passed"


@pytest.mark.parametrize("scales", [(1.0,), (1.0, 1000.0), (1000.0, 1.0)])
@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_in_any_output_fails(judged, fault, scales):
    verdict, precision = judged
    golden = _golden(*scales)
    for name in golden:
        executed = _executed(golden, precision, 2)
        executed[name] = FAULTS[fault](executed[name])

        assert verdict(executed, golden) == "failed", name


def test_swapped_outputs_of_one_shape_fail(judged):
    verdict, precision = judged
    golden = _golden(1.0, 1.0)
    first, second = _executed(golden, precision, 2).values()

    assert verdict(dict(zip(golden, (second, first), strict=True)), golden) == "failed"


def test_two_percent_on_logits_do_not_hide_beside_an_output_of_a_thousand():
    golden = _golden(1.0, 1000.0)
    executed = golden | {"output_0": golden["output_0"] * np.float32(1.02)}

    found = parity.compare(executed, golden, "fp32")

    assert found.verdict == "failed"
    assert found.max_abs / found.reference_max_abs == pytest.approx(0.02, rel=1e-3)
    assert [one.name for one in found.outputs if one.max_abs > 0] == ["output_0"]
    assert "output_0 by max error 0.02" in judge.fault(found, "fp32")


@pytest.mark.parametrize("precision", ["fp32", "fp16", "hybrid"])
def test_magnitude_may_err_as_far_as_direction(precision):
    row = TOLERANCES[precision]
    assert row.norm_error == norm_bound(row.cosine) == pytest.approx(np.sqrt(2 * (1 - row.cosine)))
    for share, passes in ((0.9, True), (1.1, False)):
        golden = _golden(1.0)
        executed = {"output_0": golden["output_0"] * (1 + share * row.norm_error)}
        measured = parity.compare(executed, golden, precision).outputs[0]

        assert (measured.norm_error <= row.norm_error) is passes
        assert measured.cosine == pytest.approx(1.0)


def test_an_image_whose_output_is_about_zero_has_no_magnitude_of_its_own():
    golden = {"output_0": np.array([[3.0], [1e-6], [-2.0]])}
    executed = {"output_0": golden["output_0"] + 1e-6}

    assert parity.compare(executed, golden, "fp16").verdict == "passed"


def test_a_record_that_tells_nothing_leaves_a_bundle_unverified():
    golden = _golden(1.0, 1.0)
    executed = _executed(golden, "int8", 2)
    record = parity.compare(executed, golden, "int8")
    early = msgspec.structs.replace(record, outputs=())

    assert {one.verdict for one in replay.against_record(executed, golden, record)} == {"passed"}
    for nothing in (None, early):  # one ratio over two outputs says nothing of the smaller one
        found = replay.against_record(executed, golden, nothing)
        assert {one.verdict for one in found} == {"unverified"}
        assert "recorded nothing" in judge.doubt(found[0])
    one = {"output_0": golden["output_0"]}
    assert replay.against_record(executed, one, early)[0].verdict == "passed"


@pytest.fixture(scope="module")
def int8_bundles(tmp_path_factory):
    """Folders of INT8 bundles with two outputs: with the stored simulation, with records alone, with neither."""
    found = {}
    for kind in ("simulation", "record", "nothing"):
        path = make_bundle(tmp_path_factory.mktemp(kind), "onnx", precision="int8", tiny=Tiny(side=True))
        found[kind] = path
        if kind == "simulation":
            continue
        bundle = open_bundle(path)
        writing.write_golden(path, *bundle.golden())
        files = tuple(writing.describe_file(path, record.path) for record in bundle.manifest.files)
        manifest = msgspec.structs.replace(bundle.manifest, files=files)
        if kind == "nothing":
            manifest = msgspec.structs.replace(manifest, parity=msgspec.structs.replace(manifest.parity, outputs=()))
        (path / bundles.MANIFEST).write_bytes(encode(manifest))
    return found


class _Faulty:
    """A runtime whose outputs are changed."""

    def __init__(self, runtime, changed):
        self._runtime, self._changed = runtime, changed

    def __enter__(self):
        self._runtime.__enter__()
        return self

    def __exit__(self, *error):
        self._runtime.__exit__(*error)

    def infer(self, inputs):
        return self._changed(self._runtime.infer(inputs))

    def info(self):
        return self._runtime.info()


@pytest.mark.parametrize(
    ("kind", "verdict"), [("simulation", "passed"), ("record", "passed"), ("nothing", "unverified")]
)
def test_verify_of_an_int8_bundle_says_what_it_can_know(int8_bundles, kind, verdict):
    found = prove.verify(int8_bundles[kind])

    assert (found.verdict, found.failed_because) == (verdict, None)
    assert (found.unverified_because is None) is (verdict == "passed")
    assert [one.output for one in found.replay] == ["logits", "features"]


@pytest.mark.parametrize("kind", ["simulation", "record"])
@pytest.mark.parametrize("output", ["logits", "features"])
@pytest.mark.parametrize("fault", ["negated", "seven times", "zeros", "no number"])
def test_verify_refuses_an_int8_engine_that_gives_something_else(int8_bundles, kind, output, fault, monkeypatch):
    def changed(outputs):
        array = outputs[output]
        return outputs | {output: np.full_like(array, np.nan) if fault == "no number" else FAULTS[fault](array)}

    real = prove.run_bundle
    monkeypatch.setattr(prove, "run_bundle", lambda *given: _Faulty(real(*given), changed))

    found = prove.verify(int8_bundles[kind])

    assert found.verdict == "failed"
    assert output in found.failed_because or "NaN" in found.failed_because


def test_the_manifest_records_every_output(int8_bundles):
    manifest = open_bundle(int8_bundles["simulation"]).manifest

    assert [one.name for one in manifest.parity.outputs] == ["logits", "features"]
    assert [(one.output, one.verdict) for one in manifest.replay] == [("logits", "passed"), ("features", "passed")]


def _head():
    """Returns boxes in pixels beside scores from 0 to 1, (16, 10, 64)."""
    rng = np.random.default_rng(6)
    return {"head": np.concatenate([3200 * rng.random((16, 4, 64)), rng.random((16, 6, 64))], 1).astype(np.float32)}


PARTS = {
    "no scores": lambda a: np.concatenate([a[:, :4], 0 * a[:, 4:]], 1),
    "scores of other classes": lambda a: np.concatenate([a[:, :4], np.roll(a[:, 4:], 1, axis=1)], 1),
    "scores of other places": lambda a: np.concatenate([a[:, :4], np.roll(a[:, 4:], 1, axis=2)], 1),
    "negated scores": lambda a: np.concatenate([a[:, :4], -a[:, 4:]], 1),
}


@pytest.mark.parametrize("last", [False, True])
@pytest.mark.parametrize("precision", ["fp32", "fp16", "hybrid"])
def test_a_small_part_of_an_output_is_held_to_what_the_export_recorded(precision, last):
    golden = {name: array.swapaxes(1, 2) if last else array for name, array in _head().items()}

    def engine(seed, fault=lambda a: a):
        rng = np.random.default_rng(seed)
        plain = {n: fault(a.swapaxes(1, 2) if last else a) for n, a in golden.items()}
        noisy = {n: a * (1 + STEPS[precision] * rng.normal(size=a.shape)).astype(np.float32) for n, a in plain.items()}
        return {n: a.swapaxes(1, 2) if last else a for n, a in noisy.items()}

    recorded = parity.compare(engine(0), golden, precision)

    assert recorded.verdict == "passed"
    assert {one.verdict for one in replay.against_parts(engine(1), golden, recorded)} == {"passed"}
    for fault in PARTS.values():
        found = replay.against_parts(engine(1, fault), golden, recorded)
        assert [one.verdict for one in found] == ["failed"]
        assert "expected 10.0 dB" in judge.fault(found[0], precision)
        assert found[0].output.startswith("head[..., " if last else "head[:, ")


def test_a_part_that_the_export_itself_missed_is_held_to_nothing_more():
    golden, zeros = _head(), {"head": np.concatenate([_head()["head"][:, :4], np.zeros((16, 6, 64), np.float32)], 1)}
    recorded = parity.compare(zeros, golden, "fp16")

    assert {one.verdict for one in replay.against_parts(zeros, golden, recorded)} == {"passed"}
    assert replay.against_parts(zeros, golden, None) == ()


def test_a_part_without_any_value_is_exact_or_far_off():
    golden = np.zeros((2, 3, 4), np.float32)

    assert parity.worst_part(golden, golden) == ("[:, 0]", 999.0)
    assert parity.worst_part(golden + 1e-9, golden)[1] < -100
    assert parity.worst_part(golden[0], golden[0]) is None
