"""What `tune` tries, read from the target table, and what its options mean."""

from __future__ import annotations

import msgspec
import pytest

from ghostdeploy import targets
from ghostdeploy.bundle.folder import open_bundle
from ghostdeploy.bundle.manifest import PassRecord
from ghostdeploy.deploy.fold.passes import REWRITES
from ghostdeploy.deploy.tune import candidates as ca
from ghostdeploy.deploy.tune.exporting import groups
from ghostdeploy.deploy.tune.place import Here
from ghostdeploy.deploy.tune.request import parse_size
from ghostdeploy.errors import MissingDependency, UnsupportedHardware, UsageError
from ghostdeploy.nvidia.driver import gpus

ROWS = [row for row in targets.TARGETS.values() if row.device is None]
VNNI = frozenset({"avx2", "avx512_vnni"})


def test_every_precision_of_every_row_is_a_candidate_once():
    found = ca.enumerate_candidates(ROWS, targets.PRECISIONS, VNNI)

    assert sorted((one.target, one.precision) for one in found) == sorted(
        (r.name, p) for r in ROWS for p in r.precisions
    )
    assert all(one.without is None for one in found)


def test_what_the_processor_is_fast_at_is_exported_first():
    def order(flags):
        return list(dict.fromkeys(one.precision for one in ca.enumerate_candidates(ROWS, targets.PRECISIONS, flags)))

    assert order(VNNI) == ["fp32", "int8", "hybrid", "fp16"]
    assert order(frozenset({"avx2"})) == ["fp32", "hybrid", "int8", "fp16"]


def test_only_what_was_asked_for_is_tried():
    found = ca.enumerate_candidates([targets.find("openvino")], ["fp16", "fp32"], VNNI)

    assert [one.name for one in found] == ["openvino fp32", "openvino fp16"]


def test_a_precision_that_no_target_makes_is_a_usage_error():
    with pytest.raises(UsageError, match="no target makes fp16") as caught:
        ca.enumerate_candidates([targets.find("onnx")], ["fp16"], VNNI)

    assert "onnx makes fp32" in caught.value.hint


def test_targets_of_one_precision_are_exported_together():
    found = groups(ca.enumerate_candidates(ROWS, ("fp32", "int8"), VNNI))

    assert [{one.precision for one in group} for group in found] == [{"fp32"}, {"int8"}]
    assert [one.target for one in found[0]] == [row.name for row in ROWS]


@pytest.mark.parametrize(("cores", "threads"), [(1, [1]), (2, [1, 2]), (6, [1, 2, 4, 6]), (8, [1, 2, 4, 8])])
def test_threads_are_powers_of_two_and_all_cores(cores, threads):
    assert [one.threads for one in ca.settings(cores, "latency")] == threads
    assert {one.profile for one in ca.settings(cores, "size")} == {"latency"}
    assert [one.threads for one in ca.settings(cores, "throughput") if one.profile == "throughput"] == threads


def test_keys_of_entries_differ():
    found = [
        ca.Entry(ca.Candidate("onnx", "fp32", without), how).key
        for without in (None, "SplitConcat")
        for how in ca.settings(4, "throughput")
    ]

    assert len(set(found)) == len(found) == 12
    assert found[0] == "onnx fp32, 1 thread"
    assert found[-1] == "onnx fp32 without SplitConcat, 4 threads for throughput"


def test_passes_that_changed_something_are_left_out_one_at_a_time(tiny_bundle):
    manifest = open_bundle(tiny_bundle("onnx")).manifest
    records = tuple(PassRecord(name=name, sites=place, max_relative_error=0.0) for place, name in enumerate(REWRITES))

    found = ca.without_single_passes(ca.Candidate("onnx", "fp32"), msgspec.structs.replace(manifest, passes=records))

    assert [one.without for one in found] == list(REWRITES[1:])
    assert len({one.folder for one in found} | {ca.Candidate("onnx", "fp32").folder}) == len(found) + 1


def test_rows_that_cannot_run_here_are_left_out_with_the_reason():
    rows, left_out = ca.choose_rows((), None, Here())

    assert {row.name for row in rows}.isdisjoint(left_out)
    assert {row.name for row in rows} | set(left_out) == set(targets.TARGETS)
    assert ca.choose_rows(("all",), None, Here()) == (rows, left_out)


@pytest.mark.skipif(bool(gpus()), reason="there is a GPU here")
def test_a_target_whose_hardware_is_absent_cannot_be_asked_for():
    with pytest.raises((UnsupportedHardware, MissingDependency), match=r"(target|export to) tensorrt"):
        ca.choose_rows(("tensorrt",), None, Here())


def test_a_target_that_is_not_made_from_an_onnx_file_is_refused():
    with pytest.raises(UsageError, match="tflite is made from the PyTorch model"):
        ca.choose_rows(("tflite",), targets.find("onnx"), Here())


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("1.5", 1_500_000),
        ("2MB", 2_000_000),
        ("800 kB", 800_000),
        ("1MiB", 1 << 20),
        ("900000B", 900_000),
        (".5", 500_000),
    ],
)
def test_sizes_are_megabytes_unless_a_unit_says_otherwise(text, count):
    assert parse_size(text) == count


@pytest.mark.parametrize("text", ["", "big", "-1", "1 parsec", "1e3"])
def test_what_is_no_size_is_a_usage_error(text):
    with pytest.raises(UsageError, match="expected a size such as"):
        parse_size(text)
