"""Loading, closing, and every refusal between."""

from __future__ import annotations

import json
import shutil
from concurrent.futures import ThreadPoolExecutor

import pytest

import ghostdeploy as gd
from ghostdeploy import targets
from ghostdeploy.errors import BundleError, InputError, UsageError
from tests.conformance.cases import parsed
from tests.signing import sealed, sign_again

USES = {
    "call": lambda r, tiny: r(tiny.example(1)["input"]),
    "infer": lambda r, tiny: r.infer(tiny.example(1)),
    "submit": lambda r, tiny: r.submit(tiny.example(1)["input"]),
    "classify": lambda r, tiny: r.classify(tiny.images(1)[0]),
    "warmup": lambda r, tiny: r.warmup(),
}


def test_close_twice_is_fine_also_from_many_threads(path):
    opened = gd.load(path, threads=1)
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda _: opened.close(), range(16)))
    opened.close()


@pytest.mark.parametrize("use", USES)
def test_use_after_close_is_a_usage_error(path, tiny, use):
    opened = gd.load(path, threads=1)
    opened.close()

    with pytest.raises(UsageError, match="was closed") as caught:
        USES[use](opened, tiny)

    assert "load again" in caught.value.hint


def test_info_can_be_read_after_close(path):
    opened = gd.load(path, threads=1)
    before = opened.info()
    opened.close()

    assert opened.info() == before


def test_leaving_the_context_by_an_error_closes_and_keeps_the_error(path, tiny):
    with pytest.raises(InputError, match="is empty"), gd.load(path, threads=1) as opened:
        opened(tiny.example(1)["input"][:0])

    with pytest.raises(UsageError, match="was closed"):
        opened(tiny.example(1)["input"])


def test_the_context_gives_the_runtime_itself(path):
    opened = gd.load(path, threads=1)
    with opened as same:
        assert same is opened


def test_an_unknown_profile_is_told_the_near_one(path):
    with pytest.raises(UsageError, match="latencyy") as caught:
        gd.load(path, profile="latencyy")

    assert caught.value.hint == "did you mean latency?"


@pytest.mark.parametrize("name", ["threads", "queue"])
@pytest.mark.parametrize("count", [0, -1, 1.5])
def test_threads_and_queue_below_one_are_a_usage_error(path, name, count):
    with pytest.raises(UsageError, match=f"{name} is {count}, expected a whole number from 1"):
        gd.load(path, **{name: count})


def test_threads_by_the_thousand_are_refused_before_an_engine_starts_them(path):
    with pytest.raises(UsageError, match=r"threads is 2000000, expected at most \d+ on this machine"):
        gd.load(path, threads=2_000_000)


@pytest.mark.parametrize("kind", ["garbage", "empty", "half", "text"])
def test_a_payload_that_the_engine_refuses_is_a_bundle_error_with_its_reason(path, case, kind, tmp_path):
    copy = shutil.copytree(path, tmp_path / "copy")
    payload = parsed(copy)
    data = payload.read_bytes()
    payload.write_bytes(
        {"garbage": b"\x00\xff" * 99, "empty": b"", "half": data[: len(data) // 2], "text": b"hi"}[kind]
    )
    sign_again(copy)

    with pytest.raises(BundleError, match="refuses") as caught:
        gd.load(copy, threads=1)

    said = caught.value.message.partition(": ")[2]
    assert said
    assert "\n" not in said
    if targets.find(case.target).device is None:  # others give their reason to a logger
        assert caught.value.__cause__ is not None


@pytest.mark.parametrize("what", ["name", "shape", "dtype", "output", "more inputs"])
def test_a_manifest_that_disagrees_with_the_payload_is_refused(path, case, what, tmp_path):
    copy = shutil.copytree(path, tmp_path / "copy")
    manifest = json.loads((copy / "manifest.json").read_text())
    entry = manifest["inputs"][0]
    if what == "name":
        entry["name"] = "image"
    elif what == "shape":
        entry["shape"] = [32 if size == 16 else size for size in entry["shape"]]
    elif what == "dtype":
        entry["dtype"] = "uint8"
    elif what == "output":
        manifest["outputs"][0]["name"] = "scores"
    else:
        manifest["inputs"].append({**entry, "name": "second"})
    (copy / "manifest.json").write_text(sealed(manifest))

    with pytest.raises(BundleError, match=r"expected .* by its manifest"):
        gd.load(copy, threads=1)


def test_labels_of_another_count_are_refused(path, tmp_path):
    copy = shutil.copytree(path, tmp_path / "copy")
    (copy / "labels.txt").write_text("cat\ndog\n")
    sign_again(copy)

    with pytest.raises(BundleError, match=r"labels\.txt has 2 lines, expected 10"):
        gd.load(copy, threads=1)
