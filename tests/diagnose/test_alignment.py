"""Tensors of two rewritings of one network are aligned by the module that reads them."""

from __future__ import annotations

import numpy as np
import pytest

from ghostdeploy.deploy.prove.layerwise.align import align, read_by_layers
from ghostdeploy.deploy.prove.layerwise.introduced import decibel, limits, narrowed
from ghostdeploy.deploy.prove.layerwise.records import Block, Finding
from ghostdeploy.deploy.quantize.channel_factors import channel_factors
from ghostdeploy.runtimes.probe import Probe, Step


class Listed(Probe):
    """A payload that is only a list of steps."""

    engine = "none"

    def run(self, given, wanted):
        """Runs nothing."""
        raise NotImplementedError


def layer(name, reads, writes):
    return Step(name=name, reads=(reads,), writes=(writes,), layer=True)


WHOLE = np.arange(2 * 6 * 3 * 3, dtype=np.float32).reshape(2, 6, 3, 3) + 1


@pytest.mark.parametrize(
    ("parts", "wanted"),
    [
        ({"a": WHOLE[:, :2], "b": WHOLE[:, 2:]}, [WHOLE[:, :2], WHOLE[:, 2:]]),
        ({"a": np.concatenate([WHOLE, WHOLE], axis=1)}, [np.concatenate([WHOLE, WHOLE], axis=1)]),
        ({"a": WHOLE, "b": WHOLE}, [WHOLE, WHOLE]),
    ],
    ids=["parts", "copies", "calls"],
)
def test_what_one_module_reads_is_cut_as_the_payload_has_it(parts, wanted):
    reading = [layer("m" if not i else f"m#{i + 1}", name, f"y{i}") for i, name in enumerate(parts)]
    probe = Listed([*(layer(f"before.{n}", "x", n) for n in parts), *reading], ["x"], {})

    taps, left_out = align(probe, parts | {"x": WHOLE}, {"m": [WHOLE]}, {})

    assert left_out == []
    assert [tap.tensor for tap in taps] == list(parts)
    for tap, right in zip(taps, wanted, strict=True):
        np.testing.assert_array_equal(tap.wanted, right)


def test_what_does_not_fit_is_left_out_and_named():
    probe = Listed([layer("before", "x", "a"), layer("m", "a", "y")], ["x"], {})

    taps, left_out = align(probe, {"x": WHOLE, "a": WHOLE[:, :4]}, {"m": [WHOLE]}, {})

    assert (taps, left_out) == ([], ["m"])


def test_a_vector_may_lack_its_sizes_of_one():
    probe = Listed([layer("before", "x", "a"), layer("m", "a", "y")], ["x"], {})
    vector = WHOLE[:, :, :1, :1]

    (tap,), _ = align(probe, {"x": WHOLE, "a": vector[:, :, 0, 0]}, {"m": [vector]}, {})

    assert tap.wanted.shape == (2, 6)


def test_factors_of_equalization_are_put_on_and_taken_off():
    probe = Listed([layer("before", "x", "a"), layer("m", "a", "y")], ["x"], {})
    factors = {"m": [2.0, 1.0, 0.5, 4.0, 1.0, 8.0]}

    (tap,), _ = align(probe, {"x": WHOLE, "a": WHOLE}, {"m": [WHOLE]}, factors)
    back = read_by_layers(probe, {"x": WHOLE, "a": tap.wanted}, factors)

    np.testing.assert_allclose(tap.wanted[:, 5], 8 * WHOLE[:, 5])
    np.testing.assert_allclose(back["m"][0], WHOLE)


def test_factors_are_read_from_two_float_graphs():
    changed = WHOLE * np.array([2, 1, 0.5, 4, 1, 8], np.float32).reshape(1, -1, 1, 1)
    dead = np.zeros_like(WHOLE)

    found = channel_factors(
        {"m": "a", "n": "b"}, [("a", WHOLE), ("b", dead)], [("a", changed), ("b", dead)], lambda _: 1
    )

    assert found == {"m": (2.0, 1.0, 0.5, 4.0, 1.0, 8.0)}


def test_a_tensor_is_cut_from_its_nearest_known_ones():
    steps = [layer("a", "x", "1"), layer("b", "1", "2"), Step(name="sum", reads=("1", "2"), writes=("3",))]
    probe = Listed(steps, ["x"], {})

    found = probe.between({"x", "1", "3"}, "3")

    assert found.sources == ("1",)
    assert [step.name for step in found.steps] == ["b", "sum"]


def finding(*layers, db=3.0):
    return Finding(layers=layers, readers=("r", *layers), introduced_db=db, allowed_db=20.0, share=0.4)


def block(*layers, db=40.0):
    return Block(layers=layers, readers=("s", *layers), arriving_db=db, introduced_db=db)


def test_a_layer_alone_in_a_sound_block_is_exonerated():
    (found,) = narrowed([finding("a", "b")], [block("a")])

    assert found.layers == ("b",)


def test_one_layer_that_explains_two_wrong_blocks_is_named_alone():
    (found,) = narrowed([finding("a", "b"), finding("a", db=5.0)], [])

    assert found.layers == ("a",)
    assert found.share == pytest.approx(0.8)
    assert found.introduced_db == 3.0


def test_equal_tensors_have_no_error_and_broken_ones_the_worst():
    assert decibel(WHOLE, WHOLE) is None
    assert decibel(WHOLE, WHOLE * np.float32(1.1)) == pytest.approx(20, abs=0.01)
    assert decibel(WHOLE, np.full_like(WHOLE, np.nan)) == -999


@pytest.mark.parametrize(
    ("precisions", "same_bundle", "allowed", "surely"),
    [
        (("int8", "fp32"), False, 20.0, 12.0),
        (("fp32", "fp32"), False, 70.0, 70.0),
        (("int8", "int8"), True, 40.0, 40.0),
        (("hybrid", "hybrid"), True, 40.0, 40.0),
        (("fp32", "fp32"), True, 70.0, 70.0),
    ],
)
def test_one_bundle_on_two_machines_must_be_nearer_than_two_bundles(precisions, same_bundle, allowed, surely):
    assert limits(precisions, same_bundle=same_bundle) == (allowed, surely)
