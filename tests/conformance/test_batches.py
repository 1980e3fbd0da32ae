"""Any batch size is accepted, split or filled up to what the payload was built for; outputs belong to the caller."""

from __future__ import annotations

import numpy as np
import pytest

import ghostdeploy as gd
from tests.bundles import CLASSES
from tests.conformance.cases import alike


@pytest.mark.parametrize("count", [1, 2, 3, 4, 6, 7])
def test_a_batch_gives_what_its_images_give_one_by_one(runtime, case, count, tiny):
    batch = tiny.example(count)["input"]

    whole = runtime(batch)

    assert whole.shape == (count, CLASSES)
    one_by_one = np.concatenate([runtime(batch[i : i + 1]) for i in range(count)])
    assert alike(case, whole, one_by_one, arithmetic=runtime.info()["engine_precision"])


def test_two_inputs_are_split_alike(side_runtime, case, side_tiny):
    given = side_tiny.example(5)

    whole = side_runtime.infer(given)

    alone = [side_runtime.infer({name: array[i : i + 1] for name, array in given.items()}) for i in range(5)]
    for name, array in whole.items():
        one_by_one = np.concatenate([outputs[name] for outputs in alone])
        assert alike(case, array, one_by_one, arithmetic=side_runtime.info()["engine_precision"])


def test_the_order_of_the_names_does_not_matter(side_runtime, side_tiny):
    given = side_tiny.example(2)
    turned = dict(reversed(given.items()))

    assert np.array_equal(side_runtime.infer(given)["logits"], side_runtime.infer(turned)["logits"])


def test_the_same_input_gives_the_same_bits(runtime, path, tiny):
    batch = tiny.example(7)["input"]
    first = runtime(batch)

    assert all(np.array_equal(runtime(batch), first) for _ in range(20))
    with gd.load(path, threads=1) as again:
        assert np.array_equal(again(batch), first)


@pytest.mark.parametrize("count", [1, 3, 4])
def test_no_later_call_writes_into_earlier_outputs(runtime, count, tiny):
    first, second = tiny.example(count, seed=1)["input"], tiny.example(count, seed=2)["input"]
    output = runtime(first)
    kept = output.copy()

    other = runtime(second)

    assert np.array_equal(output, kept)
    assert not np.array_equal(output, other)


@pytest.mark.parametrize("count", [1, 3, 4])
def test_outputs_may_be_written_to_and_outlive_the_runtime(path, count, tiny):
    batch = tiny.example(count)["input"]
    with gd.load(path, threads=1) as opened:
        output = opened(batch)
        kept = output.copy()
    output += 1

    assert np.array_equal(output, kept + 1)
