"""Wrong inputs are refused before the engine sees them, with what was found and what was expected."""

from __future__ import annotations

import re

import numpy as np
import pytest

from ghostdeploy.errors import InputError
from ghostdeploy.preprocess import ORDERS


@pytest.fixture
def image(tiny):
    return tiny.example(1)["input"]


@pytest.fixture(scope="session")
def placed(tiny):
    """A function: a shape that is written as NCHW → the same in the order that the payload takes."""
    return lambda *shape: tuple(shape[axis] for axis in ORDERS[tiny.layout]) if tiny.layout == "nhwc" else shape


def refused(runtime, batch, *words, hint=None):
    with pytest.raises(InputError) as caught:
        runtime(batch)
    for word in words:
        assert word in caught.value.message
    assert hint is None or hint in (caught.value.hint or "")


@pytest.mark.parametrize("dtype", ["float64", "float16", "int32", "uint8", "bool", ">f4"])
def test_another_dtype_is_refused(runtime, image, dtype):
    refused(runtime, image.astype(dtype), "'input'", str(np.dtype(dtype)), "expected float32")


@pytest.mark.parametrize(
    "shape",
    [(1, 3, 16, 17), (1, 1, 16, 16), (1, 4, 16, 16), (3, 16), (1, 1, 3, 16, 16), (16,), ()],
    ids=str,
)
def test_another_shape_is_refused(runtime, placed, shape):
    given, wanted = placed(*shape) if len(shape) == 4 else shape, placed("any N", 3, 16, 16)

    refused(runtime, np.zeros(given, np.float32), str(given), f"expected {wanted}".replace("'", ""))


def test_the_other_layout_is_told_the_transpose(runtime, tiny):
    ours, theirs = ("nchw", "nhwc") if tiny.layout == "nchw" else ("nhwc", "nchw")
    shapes = {"nchw": (3, 16, 16), "nhwc": (16, 16, 3)}
    got, wanted = f"{(2, *shapes[theirs])} as {theirs.upper()}", f"(any N, {str(shapes[ours])[1:]} as {ours.upper()}"

    refused(
        runtime,
        np.zeros((2, *shapes[theirs]), np.float32),
        f"shape {got}, expected {wanted}",
        hint=f"looks like {theirs.upper()}, the payload takes {ours.upper()}",
    )


def test_nchw_given_to_nhwc_is_told_the_transpose(pixel_runtime):
    refused(
        pixel_runtime,
        np.zeros((2, 3, 16, 16), np.uint8),
        "shape (2, 3, 16, 16) as NCHW, expected (any N, 16, 16, 3) as NHWC",
        hint="like NCHW, the payload takes NHWC",
    )


def test_an_image_without_batch_is_told_to_add_it(runtime, image):
    refused(runtime, image[0], str(image.shape[1:]), hint="array[None]")


def test_floats_given_to_pixels_are_refused(pixel_runtime):
    refused(pixel_runtime, np.zeros((1, 16, 16, 3), np.float32), "float32", "expected uint8", hint="0 to 255")


def test_pixels_given_to_floats_are_pointed_to_the_preprocessing(runtime, image):
    refused(runtime, np.zeros(image.shape, np.uint8), "uint8", hint="preprocess")


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf], ids=str)
@pytest.mark.parametrize("place", [(0, 0, 0, 0), (3, 2, 15, 15)], ids=["first", "last"])
def test_one_value_that_is_not_finite_is_found(runtime, value, place, tiny, placed):
    batch = tiny.example(4)["input"]
    place = placed(*place)
    batch[place] = value

    refused(runtime, batch, "1 NaN or infinite", str(place))


def test_infinities_that_cancel_are_found(runtime, image):
    image[0, 0, 0, :2] = np.inf, -np.inf

    refused(runtime, image, "2 NaN or infinite")


def test_finite_values_whose_sum_overflows_pass_the_check(runtime, image):
    runtime(np.full(image.shape, 1e36, np.float32))


def test_an_empty_batch_is_refused(runtime, image):
    refused(runtime, image[:0], "is empty", "at least 1")


@pytest.mark.parametrize("value", [[[1.0]], None, "cat.jpg", 3.0], ids=repr)
def test_what_is_no_array_is_refused(runtime, value):
    refused(runtime, value, type(value).__name__, "expected a float32 array")


def test_an_array_in_another_memory_order_gives_the_same_answer(runtime, tiny):
    batch = tiny.example(3)["input"]

    assert np.array_equal(runtime(np.asfortranarray(batch)), runtime(batch))
    assert np.array_equal(runtime(batch[::-1]), runtime(batch[::-1].copy()))


def test_a_read_only_array_is_accepted_and_no_input_is_changed(runtime, tiny):
    batch = tiny.example(2)["input"]
    kept = batch.copy()
    batch.flags.writeable = False

    runtime(batch)

    assert np.array_equal(batch, kept)


def test_a_wrong_name_is_told_the_right_one(runtime, image):
    with pytest.raises(InputError, match=r"inptu, expected input") as caught:
        runtime.infer({"inptu": image})

    assert caught.value.hint == "did you mean input?"


@pytest.mark.parametrize("names", [[], ["input"], ["input", "side", "more"]], ids=lambda n: "-".join(n) or "none")
def test_missing_and_additional_names_are_refused(side_runtime, names, side_tiny):
    given = side_tiny.example(1)
    given["more"] = given["side"]

    with pytest.raises(InputError, match=re.escape("expected input, side")):
        side_runtime.infer({name: given[name] for name in names})


def test_inputs_of_different_batch_sizes_are_refused(side_runtime, side_tiny):
    given = side_tiny.example(3)
    given["side"] = given["side"][:2]

    with pytest.raises(InputError, match="input 3, side 2"):
        side_runtime.infer(given)


def test_a_refused_input_leaves_the_runtime_usable(runtime, image):
    before = runtime(image)
    with pytest.raises(InputError):
        runtime(image[:0])

    assert np.array_equal(runtime(image), before)
