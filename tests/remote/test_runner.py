"""The static runner on emulated Arm cores gives what ncnn gives in Python, and never dies of damaged files."""

from __future__ import annotations

import dataclasses
import random
import struct

import numpy as np
import pytest

from ghostdeploy.bundle.folder import open_bundle
from ghostdeploy.deploy.prove import preparation
from ghostdeploy.deploy.prove.commands import verify
from ghostdeploy.errors import UnsupportedHardware
from ghostdeploy.remote.runner import containers, replay
from ghostdeploy.remote.runner.recipe import VERSION
from ghostdeploy.runtimes import run_bundle
from ghostdeploy.runtimes.interface import Settings
from tests.conftest import require
from tests.exported import sample_bundle
from tests.further import further
from tests.runners import Runner

FLOATS = 1e-5
"""Of the largest output: sums in another order, in float32 on both sides."""
DAMAGED = (2, 3, 5)


@pytest.fixture(autouse=True)
def installed():
    require("ncnn")


@pytest.fixture
def runner(tmp_path):
    return Runner(tmp_path)


def at_home(path):
    """Returns what our runtime gives for the golden inputs, by name."""
    bundle = open_bundle(path, hold=True)
    _, inputs = preparation.check(bundle, bundle.golden()[0])
    with run_bundle(bundle, Settings(threads=1)) as runtime:
        return runtime.infer(inputs)


def assert_same(found, wanted):
    assert found.keys() == wanted.keys()
    for name, array in wanted.items():
        got = found[name].reshape(array.shape)
        np.testing.assert_allclose(got, array, rtol=0, atol=FLOATS * float(np.abs(array).max()), err_msg=name)


PAIRS = [
    (precision, core) for precision in ("fp32", "fp16", "int8") for core in ("cortex-a53", "cortex-a72", "cortex-a76")
]
USUAL = [("fp32", "cortex-a53"), ("fp16", "cortex-a72"), ("int8", "cortex-a53"), ("int8", "cortex-a76")]


@pytest.mark.parametrize("pair", further(PAIRS, usual=USUAL), ids="-".join)
@pytest.mark.parametrize("model", further(["ghostnet_050", "g_ghost_regnetx_002"], usual=["ghostnet_050"]))
def test_a_trained_model_gives_what_it_gives_at_home(tmp_path, tmp_path_factory, model, pair):
    precision, core = pair
    path = sample_bundle(tmp_path_factory, model, "ncnn", precision=precision)
    here = verify(path)

    there, outputs = Runner(tmp_path, core).verify(path)

    assert_same(containers.unpack(outputs), at_home(path))
    assert there.engine == f"ncnn {VERSION} (static runner)"
    assert (there.verdict, there.preprocessing) == (here.verdict, here.preprocessing)
    assert there.parity.sqnr_db == pytest.approx(here.parity.sqnr_db, abs=0.5)
    if precision == "int8":
        assert there.execution.isa == ("aarch64 NEON dot product" if core == "cortex-a76" else "aarch64 NEON")
        assert there.execution.sqnr_db == pytest.approx(here.execution.sqnr_db, abs=0.5)


@pytest.mark.parametrize(
    "fields", [{"size": 15}, {"size": 17, "side": True}, {"layout": "nhwc"}], ids=["odd", "two", "u8"]
)
def test_inputs_of_every_kind_reach_the_network(runner, tiny_bundle, fields):
    path = tiny_bundle("ncnn", **fields)

    found, outputs = runner.verify(path)

    assert found.verdict == "passed", found.failed_because
    assert_same(containers.unpack(outputs), at_home(path))


@pytest.mark.full
@pytest.mark.parametrize("model", ["ghost_nanodet", "ghost_segment"])
def test_networks_of_other_tasks_give_what_they_give_at_home(runner, tmp_path_factory, model):
    path = sample_bundle(tmp_path_factory, model, "ncnn", precision="fp32")

    found, outputs = runner.verify(path)

    assert found.verdict == verify(path).verdict
    assert_same(containers.unpack(outputs), at_home(path))


def test_a_bundle_of_another_engine_says_what_would_run(tiny_bundle):
    with pytest.raises(
        UnsupportedHardware, match="is a onnx bundle, and a device without Python runs ncnn bundles only"
    ):
        replay.prepare(tiny_bundle("onnx"))


@pytest.mark.parametrize(("core", "part", "dots"), [("cortex-a53", "0xd03", False), ("cortex-a76", "0xd0b", True)])
def test_probe_tells_the_core(tmp_path, core, part, dots):
    code, (found,) = Runner(tmp_path, core)("probe")

    assert code == 0
    assert found["version"] == VERSION
    assert (found["machine"], found["dot product"]) == ("aarch64", dots)
    assert {one["CPU part"] for one in found["cores"]} == {part}
    assert found["memory"] > 1 << 28
    assert found["model"] is None or found["model"]


def test_bench_prints_every_call(runner, tiny_bundle):
    given = replay.prepare(tiny_bundle("ncnn"))
    runner.replay(given)

    files = [runner.folder / name for name in ("graph", "weights", "inputs")]

    code, lines = runner("bench", *files, "--threads", 1, "--batch", 3, "--calls", 5)

    assert code == 0
    assert [line["ns"] > 0 for line in lines[1:-1]] == [True] * 5
    assert lines[0]["first ns"] > 0
    assert lines[-1]["peak bytes"] > 1 << 20
    for line in (lines[0], lines[-1]):
        assert line["memory available"] > 1 << 20
        assert line.keys() >= {"thermal zones", "cores"}


def test_a_network_that_gives_nan_is_not_measured(runner, tiny_bundle):
    given = replay.prepare(tiny_bundle("ncnn"))
    inputs = {name: np.full_like(array, np.nan) for name, array in containers.unpack(given.inputs).items()}
    runner.replay(dataclasses.replace(given, inputs=containers.pack(inputs)))
    files = [runner.folder / name for name in ("graph", "weights", "inputs")]

    code, (said,) = runner("bench", *files, "--threads", 1, "--batch", 1, "--calls", 5)

    assert code == 5
    assert "NaN or infinity in " in said["error"]


def test_rates_rise_as_sets_fit_into_caches(runner):
    code, (said,) = runner("rates", "--threads", 1)

    assert code == 0
    sizes, rates = zip(*said["bandwidths"], strict=True)
    assert said["macs per second"] > 0
    assert list(sizes) == sorted(sizes)
    assert list(rates) == sorted(rates, reverse=True)
    assert rates[-1] > 0


def test_a_runner_knows_that_an_emulator_executes_it(runner):
    assert runner("probe")[1][0]["executed by"] == "qemu-aarch64-static"


WRONG = (
    (),
    ("prove",),
    ("probe", "more"),
    ("replay", "a", "b", "c", "d"),
    ("replay", "a", "b", "c", "d", "--threads"),
    ("replay", "a", "b", "c", "d", "--threads", "0"),
    ("replay", "a", "b", "c", "--threads", "1"),
    ("bench", "a", "b", "c", "--threads", "1", "--batch", "1", "--calls", "-4"),
    ("bench", "a", "b", "c", "--threads", "1", "--calls", "4"),
    ("rates",),
    ("rates", "a", "--threads", "1"),
)


@pytest.mark.parametrize("words", WRONG, ids=" ".join)
def test_wrong_words_are_one_line(runner, words):
    code, (said,) = runner(*words)

    assert code == 2
    assert said.keys() == {"error"}


def test_files_that_are_not_there_are_named(runner):
    code, (said,) = runner("replay", "/no/graph", "/no/weights", "/no/inputs", "/no/outputs", "--threads", 1)

    assert code == 3
    assert said["error"] == "/no/graph cannot be read"


def test_outputs_that_cannot_be_written_are_told(runner, tiny_bundle):
    runner.replay(replay.prepare(tiny_bundle("ncnn")))

    files = [runner.folder / name for name in ("graph", "weights", "inputs")]
    code, (said,) = runner("replay", *files, "/dev/full", "--threads", 1)

    assert code == 4
    assert "/dev/full cannot be written" in said["error"]


def test_damaged_inputs_are_refused(runner, tiny_bundle):
    given = replay.prepare(tiny_bundle("ncnn", side=True))
    whole = given.inputs
    header = 8 + 4 + 2 + len("input") + 2
    huge = whole[:header] + struct.pack("<4I", *[0xFFFFFFFF] * 4) + whole[header + 16 :]
    empty = whole[:header] + bytes(4) + whole[header + 4 :]
    more = b"GDARRAY1" + struct.pack("<I", 0xFFFFFFFF) + whole[12:]
    arrays = containers.unpack(whole)
    others = [
        {"input": arrays["input"]},
        {"input": arrays["input"], "other": arrays["side"]},
        {"input": arrays["input"], "side": arrays["side"][:1]},
        {"input": arrays["input"][:, :, 1:], "side": arrays["side"]},
        {"input": arrays["input"].astype(np.uint8), "side": arrays["side"]},
        {},
    ]
    cuts = [whole[:at] for at in (0, 7, 8, 11, 13, 16, 20, 24, 30, len(whole) // 2, len(whole) - 1)]

    for damaged in [*cuts, whole + b"\0", huge, empty, more, *map(containers.pack, others)]:
        code, (said,), outputs = runner.replay(dataclasses.replace(given, inputs=damaged))
        assert (code, outputs) == (3, None), said
        assert "inputs" in said["error"] or "input " in said["error"]


def test_a_damaged_graph_or_weights_are_refused(runner, tiny_bundle):
    given = replay.prepare(tiny_bundle("ncnn"))
    lines = given.graph.decode().splitlines()
    graphs = [
        b"",
        b"7767517",
        given.graph[: len(given.graph) // 2],
        "\n".join(lines[:-1]).encode(),
        given.graph.replace(b"7767517", b"7767518"),
        "\n".join([*lines, lines[-1]]).encode(),
        b"\xff" + given.graph,
        given.graph.replace(b"input", b"i" * 300),
        given.graph.replace(b"Convolution", b"Convolutiom"),
    ]

    for graph in graphs:
        code, (said,), outputs = runner.replay(dataclasses.replace(given, graph=graph))
        assert code in (3, 5), said
        assert outputs is None
    for weights in (b"", given.weights[:-4], given.weights + bytes(4)):
        code, (said,), outputs = runner.replay(dataclasses.replace(given, weights=weights))
        assert code in (3, 5), said
        assert outputs is None


@pytest.mark.parametrize("seed", range(12))
def test_bytes_that_were_changed_end_in_a_line(tmp_path, tiny_bundle, seed):
    """Of the container every byte may change; in the payload ncnn parses numbers, which manifests protect by hash."""
    runner, given, chance = Runner(tmp_path), replay.prepare(tiny_bundle("ncnn", side=True)), random.Random(seed)
    damaged = bytearray(given.inputs)
    for _ in range(chance.randint(1, 4)):
        damaged[chance.randrange(60)] = chance.randrange(256)

    code, said, _ = runner.replay(dataclasses.replace(given, inputs=bytes(damaged)))

    assert code in (0, *DAMAGED)
    assert len(said) == 1
