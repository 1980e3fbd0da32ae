"""Archives that claim more than they hold are refused before memory is taken for them."""

from __future__ import annotations

import io
import zipfile

import numpy as np
import pytest

from ghostdeploy.arrays import ALLOWANCE, parse_arrays
from tests.commands import assert_one_sentence, run

resource = pytest.importorskip("resource", reason="memory is measured as POSIX systems do")


def header(shape, dtype="|u1"):
    stream = io.BytesIO()
    np.lib.format.write_array_header_1_0(stream, {"descr": dtype, "fortran_order": False, "shape": shape})
    return stream.getvalue()


def archive(**members):
    return packed(zipfile.ZIP_STORED, **members)


def packed(packing, **members):
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", packing) as made:
        for name, data in members.items():
            made.writestr(f"{name}.npy", data)
    return stream.getvalue()


def twice():
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as made:
        made.writestr("images.npy", header((1,)) + b"x")
        with pytest.warns(UserWarning, match="Duplicate name"):
            made.writestr("images.npy", header((1,)) + b"x")
    return stream.getvalue()


def objects():
    stream = io.BytesIO()
    np.savez(stream, images=np.array([print], dtype=object))
    return stream.getvalue()


BOMBS = {
    "a giant shape": (
        lambda: archive(images=header((10**12,)) + b"x"),
        r"declares uint8 \(1000000000000,\), 1000000 MB",
    ),
    "an overflowing shape": (lambda: archive(images=header((2**62, 2**62)) + b"x"), "and holds 1 bytes"),
    "a zip bomb": (
        lambda: packed(zipfile.ZIP_DEFLATED, images=header((ALLOWANCE * 2,)) + bytes(ALLOWANCE * 2)),
        "its header declares 537 MB in a file of",
    ),
    "a packing that unpacks without end": (
        lambda: packed(zipfile.ZIP_BZIP2, images=header((9,)) + bytes(9)),
        "uses an unsupported compression",
    ),
    "elements of no size": (lambda: archive(images=header((10**15,), "|V0")), "expected numbers or text"),
    "a negative size": (lambda: archive(images=header((-1, -1)) + b"x"), "expected numbers or text"),
    "objects": (objects, "Python objects"),
    "one name twice": (twice, "has two arrays of one name"),
    "a header without end": (lambda: archive(images=header((1,)).replace(b"(1,)", b"(((((") + b"x"), "."),
    "no archive": (lambda: b"text", "not a zip file"),
    "nothing": (lambda: b"", "not a zip file"),
}


@pytest.mark.parametrize("kind", BOMBS)
def test_what_an_archive_cannot_hold_is_refused_before_it_takes_memory(kind):
    make, words = BOMBS[kind]
    data = make()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

    with pytest.raises(ValueError, match=words):
        parse_arrays(data)

    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100 << 10


def test_a_smaller_limit_of_the_caller_counts():
    data = archive(images=header((5000,)) + bytes(5000))

    assert parse_arrays(data)["images"].shape == (5000,)
    with pytest.raises(ValueError, match="expected at most 1000 bytes"):
        parse_arrays(data, most=1000)


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_what_numpy_writes_is_read_as_it_is(save):
    arrays = {
        "fortran": np.asfortranarray(np.arange(12.0).reshape(3, 4)),
        "scalar": np.array(3, np.int64),
        "empty": np.zeros((0, 3), np.uint8),
        "zeros": np.zeros((1 << 22,), np.uint8),
        "text": np.array(["ä", "b"]),
        "big endian": np.arange(4, dtype=">i2"),
        "file": np.ones(2, bool),
    }
    stream = io.BytesIO()
    del arrays["file"]
    save(stream, **arrays)

    found = parse_arrays(stream.getvalue())

    assert found.keys() == arrays.keys()
    for name, array in arrays.items():
        np.testing.assert_array_equal(found[name], array)
        assert found[name].dtype == array.dtype


@pytest.mark.parametrize("option", ["--data", "--calib"])
@pytest.mark.parametrize("kind", ["a giant shape", "a zip bomb", "objects"])
def test_image_sets_say_it_in_one_sentence(option, kind, tmp_path, capsys):
    (tmp_path / "set.npz").write_bytes(BOMBS[kind][0]())

    answer = run(
        capsys, "export", "-t", "onnx", "--int8", "--calib", tmp_path / "set.npz", option, tmp_path / "set.npz",
        "--dry-run", "-o", tmp_path,
    )  # fmt: skip

    assert_one_sentence(answer, 3, "set.npz is not a readable .npz file")
