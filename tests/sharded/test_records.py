"""Shards, records and what is kept of a killed run: put together they are one run, and nothing foreign gets in."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from ghostdeploy.deploy.prove.sharded.pieces import pieces_of, spans
from tests.commands import assert_one_sentence, run

COUNT = 130


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    path = tmp_path_factory.mktemp("set") / "set.npz"
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (COUNT, 20, 24, 3), np.uint8)
    np.savez(path, images=images, labels=np.arange(COUNT) % 10)
    return path


@pytest.fixture
def bundles(tiny_bundle):
    return tiny_bundle("onnx"), tiny_bundle("openvino")


@pytest.fixture
def serial(bundles, data, capsys):
    return run(capsys, "eval", bundles[0], "--data", data, "--reference", bundles[1], "--json").document


@pytest.fixture
def shards(bundles, data, tmp_path, capsys):
    """Three records of one evaluation."""
    paths = [tmp_path / f"{number}.jsonl" for number in (1, 2, 3)]
    for number, path in enumerate(paths, 1):
        words = ("--data", data, "--reference", bundles[1], "--shard", f"{number}/3", "--record", path)
        answer = run(capsys, "eval", bundles[0], *words, "--json")
        assert answer.code == 0, answer.err
        assert answer.document["shard"] == f"{number}/3"
    return paths


def test_a_recorded_run_says_what_a_plain_one_says(bundles, data, serial, tmp_path, capsys):
    record = tmp_path / "all.jsonl"

    words = ("--data", data, "--reference", bundles[1], "--json")
    assert run(capsys, "eval", bundles[0], *words, "--record", record).document == serial
    assert run(capsys, "eval", "--merge", record, "--json").document == serial
    assert [path.name for path in tmp_path.iterdir()] == ["all.jsonl"]


def test_merged_shards_are_one_run_in_any_order(shards, serial, capsys):
    for order in ([0, 1, 2], [2, 0, 1]):
        answer = run(capsys, "eval", "--merge", *(shards[number] for number in order), "--json")

        assert answer.code == 0, answer.err
        assert answer.document == serial


def test_a_limit_is_judged_when_shards_are_merged(shards, capsys):
    answer = run(capsys, "eval", "--merge", *shards, "--max-drop", "0.5", "--json")

    assert answer.document[0]["comparison"]["max_drop"] == 0.5


def test_missing_shards_are_named(shards, capsys):
    assert_one_sentence(run(capsys, "eval", "--merge", shards[1]), 3, "shards 1/3, 3/3")


def test_an_image_counts_once(shards, capsys):
    assert_one_sentence(run(capsys, "eval", "--merge", *shards, shards[2]), 3, "image 88 is in", "different shards")


def test_records_of_several_bundles_do_not_mix(shards, tiny_bundle, data, tmp_path, capsys):
    other = tmp_path / "other.jsonl"
    run(capsys, "eval", tiny_bundle("tflite"), "--data", data, "--shard", "1/3", "--record", other)

    assert_one_sentence(run(capsys, "eval", "--merge", other, *shards[1:]), 3, "are of different bundles")


def test_another_set_does_not_mix(shards, data, tmp_path, capsys):
    arrays = dict(np.load(data))
    arrays["labels"][3] = 9
    np.savez(tmp_path / "other.npz", **arrays)

    answer = run(capsys, "eval", "--merge", *shards, "--data", tmp_path / "other.npz")

    assert_one_sentence(answer, 3, "another set than that of the records")


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda data: data[:-30], "is torn"),
        (lambda data: b"\n".join(data.split(b"\n")[:-4]) + b"\n", "it was cut"),
        (lambda data: b"\n".join(data.split(b"\n")[:-2]) + b"\n", "expected an end"),
        (lambda data: data + data, "comes after its end"),
        (lambda data: data.replace(b'{"image":50,', b'{"image":"x",'), "line 8 of"),
        (lambda data: data.replace(b'"schema":1', b'"schema":2'), "has schema 2"),
        (lambda data: b"{}\n", "is not a record of eval"),
        (lambda data: b"\xff\xfe\n", "is not a record of eval"),
        (lambda data: b"", "is not a record of eval"),
        (lambda data: data.replace(b'"got":[', b'"got":[900,', 1), "what the images of"),
    ],
)
def test_damaged_records_are_told(damage, words, shards, capsys):
    shards[1].write_bytes(damage(shards[1].read_bytes()))

    assert_one_sentence(run(capsys, "eval", "--merge", *shards), 3, words)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("--shard 1/3", "has no figures of its own"),
        ("--shard 0/3 --record x", "expected I/N"),
        ("--shard 4/3 --record x", "expected I/N"),
        ("--shard 1/900 --record x --data DATA", "shards at most"),
        ("--merge --record x", "no effect"),
        ("--worker-count 2", "needs --workers"),
        ("--workers dask", "expected ray"),
        ("--workers ray:", "expected ray"),
        ("--workers ray:4", "is no address"),
        ("--workers ray --on ssh://x", "not with --on"),
        ("--shard 1/2 --record x --data DATA --max-drop 0.1", "judges the whole set"),
        ("--shard 1/2 --record x --data DATA --junit y", "no figures for --junit"),
    ],
)
def test_options_without_sense_are_refused(words, said, bundles, data, capsys):
    words = words.replace("DATA", str(data)).split()

    assert_one_sentence(run(capsys, "eval", bundles[0], *words), 2, said)


def test_a_record_is_of_one_bundle(bundles, data, capsys, tmp_path):
    answer = run(capsys, "eval", *bundles, "--data", data, "--record", tmp_path / "x.jsonl")

    assert_one_sentence(answer, 2, "--record takes one bundle, got 2")


SLOW = """
import sys, time
from ghostdeploy.deploy.prove.sharded import job
from ghostdeploy.cli import main

begin = job.Evaluator.partials
def slowly(self, piece, advance=lambda done: None):
    time.sleep(0.2)
    return begin(self, piece, advance)
job.Evaluator.partials = slowly
main(sys.argv[1:])
"""


def killed(bundle, data, state):
    """Starts an evaluation and kills it when some pieces are done."""
    command = [sys.executable, "-c", SLOW, "eval", str(bundle), "--data", str(data), "--state", str(state)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    until = time.monotonic() + 120
    while len(list(state.glob("*.piece"))) < 4 and time.monotonic() < until:
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    return sorted(state.glob("*.piece"))


def test_a_killed_run_goes_on_and_ends_as_one_run(bundles, data, tmp_path, capsys, monkeypatch):
    from ghostdeploy.deploy.prove.sharded.job import Evaluator

    state, done, kept = tmp_path / "state", [], killed(bundles[0], data, tmp_path / "state")
    assert 4 <= len(kept) < len(pieces_of(COUNT))
    kept[0].write_bytes(kept[0].read_bytes()[:-3])  # and one of them is damaged
    evaluate = Evaluator.partials
    monkeypatch.setattr(Evaluator, "partials", lambda self, piece, advance: done.append(piece) or evaluate(self, piece))

    answer = run(capsys, "eval", bundles[0], "--data", data, "--state", state, "--json")

    assert answer.document == run(capsys, "eval", bundles[0], "--data", data, "--json").document
    assert len(done) == len(pieces_of(COUNT)) - len(kept) + 1
    assert "is damaged: its images are evaluated again" in answer.err
    assert not state.exists()


def test_pieces_of_another_bundle_or_set_are_not_taken(bundles, data, tmp_path, capsys):
    state = tmp_path / "state"
    kept = {path.name for path in killed(bundles[0], data, state)}
    arrays = dict(np.load(data))
    arrays["images"][0, 0, 0] ^= 255
    np.savez(tmp_path / "other.npz", **arrays)

    for bundle, images in ((bundles[1], data), (bundles[0], tmp_path / "other.npz")):
        plain = run(capsys, "eval", bundle, "--data", images, "--json").document
        assert run(capsys, "eval", bundle, "--data", images, "--state", state, "--json").document == plain
    assert {path.name for path in state.iterdir()} == kept  # they wait for their own run


def test_a_folder_of_others_is_left_as_it_is(bundles, data, tmp_path, capsys):
    (tmp_path / "notes.txt").write_text("mine")

    assert run(capsys, "eval", bundles[0], "--data", data, "--state", tmp_path).code == 0
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


def test_image_numbers_in_words():
    assert spans([3, 5, 6, 7, 9]) == "3, 5 to 7, 9"
    assert spans(list(range(0, 20, 2))) == "0, 2, 4, 6, 8 and 5 more"


def test_a_line_is_plain_json(shards):
    header, first, *_, last = (json.loads(line) for line in shards[0].read_text().splitlines())

    assert header["subject"]["digest"]
    assert header["data"]["count"] == COUNT
    assert set(first) == {"image", "got", "reference"}
    assert last == {"images": 44}
