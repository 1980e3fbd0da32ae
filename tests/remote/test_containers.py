"""Containers of arrays: what is packed comes back to the bit, what is damaged is refused."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from ghostdeploy.remote.runner.containers import MAGIC, pack, unpack

ARRAYS = st.dictionaries(
    st.text(max_size=12),
    hnp.arrays(st.sampled_from([np.dtype("float32"), np.dtype("uint8")]), hnp.array_shapes(max_dims=5, max_side=4)),
    max_size=4,
)


@given(ARRAYS)
def test_arrays_come_back_to_the_bit(arrays):
    found = unpack(pack(arrays))

    assert found.keys() == arrays.keys()
    for name, array in arrays.items():
        assert found[name].dtype == array.dtype
        assert found[name].shape == array.shape
        assert found[name].tobytes() == array.tobytes()


@given(ARRAYS.filter(bool), st.data())
def test_a_part_or_more_than_all_is_refused(arrays, data):
    whole = pack(arrays)
    cut = data.draw(st.integers(0, len(whole) - 1))

    for damaged in (whole[:cut], whole + b"\0"):
        with pytest.raises(ValueError, match=r"middle|no container|behind"):
            unpack(damaged)


@given(st.binary(max_size=80))
def test_other_bytes_are_read_strictly(data):
    try:
        found = unpack(MAGIC + data)
    except ValueError:
        return
    assert pack(found) == MAGIC + data


def test_the_order_in_memory_does_not_matter():
    array = np.arange(24, dtype=np.float32).reshape(2, 3, 4)

    assert pack({"x": np.asfortranarray(array)}) == pack({"x": array})


@pytest.mark.parametrize(
    "array", [np.zeros(2, np.float64), np.zeros(2, np.int8), np.float32(1), np.zeros((1,) * 6, "u1")]
)
def test_what_a_runner_cannot_take_is_refused(array):
    with pytest.raises(ValueError, match="expected float32 or uint8 of 1 to 5"):
        pack({"x": np.asarray(array)})
