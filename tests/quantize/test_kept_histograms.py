"""Histograms that recipes of one export share are those that each would count, and are counted once."""

from __future__ import annotations

import numpy as np
import pytest

from ghostdeploy.deploy.quantize import ranges as rg
from ghostdeploy.deploy.quantize.kept_histograms import KeptHistograms
from tests.quantize.test_float_layers import CHANNELS, MIXED, SIZE, graph_of

TENSORS = ["x", "a.relu", "joined", "c.relu"]


@pytest.fixture
def model():
    return graph_of(MIXED)


@pytest.fixture
def images():
    return np.random.default_rng(0).normal(0, 1, (8, CHANNELS, SIZE, SIZE)).astype(np.float32)


@pytest.fixture
def collect(model, images, tmp_path):
    """Collects as a recipe does; returns the histograms and the tensors that were counted for it."""

    def run(tensors, *, key="pixels", graph=b"graph", batch_count=1):
        counted = []

        def count(missing):
            counted.extend(missing)
            return rg.collect(model, missing, lambda: [images], batch_count=batch_count)

        return KeptHistograms(tmp_path, key).collect(graph, tensors, batch_count, count), counted

    return run


def test_the_second_recipe_counts_what_is_missing_and_gets_the_same(collect, model, images):
    wanted = rg.collect(model, TENSORS, lambda: [images])

    first, counted = collect(TENSORS[:2])
    assert (list(first), counted) == (TENSORS[:2], TENSORS[:2])
    second, counted = collect(TENSORS)
    assert (list(second), counted) == (TENSORS, TENSORS[2:])
    third, counted = collect(TENSORS[::-1])
    assert (list(third), counted) == (TENSORS[::-1], [])

    for found in (first, second, third):
        for name, histogram in found.items():
            assert (histogram.low, histogram.high) == (wanted[name].low, wanted[name].high)
            assert np.array_equal(histogram.counts, wanted[name].counts)


@pytest.mark.parametrize("other", [{"key": "others"}, {"graph": b"weights"}, {"batch_count": None}], ids=str)
def test_other_images_weights_or_numbers_of_them_are_counted_again(collect, other):
    collect(TENSORS)

    assert collect(TENSORS, **other)[1] == TENSORS
