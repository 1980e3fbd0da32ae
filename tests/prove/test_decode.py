"""What an image may come in, and everything that may be wrong with it: each fault is an `InputError`."""

from __future__ import annotations

import io
import os
import struct
import tempfile
import zipfile

import numpy as np
import pytest
from PIL import Image

from ghostdeploy.decode import FORMATS, MAX_BYTES, MAX_PIXELS, open_image, upright_size
from ghostdeploy.errors import InputError
from ghostdeploy.preprocess import Preprocess, prepare

NOISE = np.random.default_rng(0).integers(0, 256, (64, 48, 3), np.uint8)


def file(kind="PNG", image=None, **options):
    """The bytes of a file."""
    stream = io.BytesIO()
    (Image.fromarray(NOISE) if image is None else image).save(stream, kind, **options)
    return stream.getvalue()


class Pipe(io.RawIOBase):
    """A stream that cannot seek and gives a few bytes at a time, as sockets do."""

    def __init__(self, data):
        self._data = io.BytesIO(data)

    def readable(self):
        return True

    def read(self, size=-1):
        return self._data.read(min(size, 100))


class Body:
    """What a web framework may hand over: a `read` and nothing else."""

    def __init__(self, data):
        self.read = io.BytesIO(data).read


@pytest.mark.parametrize("wrap", [bytes, bytearray, memoryview, io.BytesIO, Pipe, Body], ids=lambda wrap: wrap.__name__)
def test_a_file_in_memory_is_as_good_as_its_path(tmp_path, wrap):
    (tmp_path / "a.png").write_bytes(file())

    assert np.array_equal(np.asarray(open_image(wrap(file()))), NOISE)
    assert np.array_equal(np.asarray(open_image(tmp_path / "a.png")), NOISE)


def test_an_open_file_and_a_member_of_a_zip_are_read(tmp_path):
    (tmp_path / "a.png").write_bytes(file())
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.write(tmp_path / "a.png", "a.png")

    with (tmp_path / "a.png").open("rb") as stream:
        assert np.array_equal(np.asarray(open_image(stream)), NOISE)
        assert not stream.closed
    with zipfile.ZipFile(tmp_path / "a.zip") as archive, archive.open("a.png") as member:
        assert np.array_equal(np.asarray(open_image(member)), NOISE)
    with tempfile.TemporaryFile() as stream:
        stream.write(file())
        assert np.array_equal(np.asarray(open_image(stream)), NOISE)


@pytest.mark.parametrize("place", [0, 7])
@pytest.mark.parametrize("data", [file(), file()[:200], b"no image"], ids=["good", "cut", "text"])
def test_a_file_object_is_read_from_its_beginning_and_put_back_to_where_it_stood(place, data):
    stream = io.BytesIO(data)
    stream.seek(place)

    try:
        assert np.array_equal(np.asarray(open_image(stream)), NOISE)
    except InputError:
        assert data != file()

    assert stream.tell() == place
    assert not stream.closed


def test_a_stream_without_end_is_refused():
    class Endless:
        def read(self, size):
            return bytes(max(size, MAX_BYTES // 4))

    with pytest.raises(InputError, match="has more than 512 MiB"):
        open_image(Endless())


def closed(image):
    image.close()
    return image


async def coroutine():
    return b""


class Awaited:
    def read(self, size):
        return coroutine()


class Failing:
    def read(self, size):
        raise TimeoutError("the line is dead")


WRONG = {
    "truncated, opened by Pillow": lambda: Image.open(io.BytesIO(file("JPEG")[:700])),
    "truncated bytes": lambda: file("JPEG")[:700],
    "truncated file object": lambda: io.BytesIO(file("JPEG")[:700]),
    "closed PIL image": lambda: closed(Image.open(io.BytesIO(file()))),
    "closed, loaded PIL image": lambda: closed(Image.fromarray(NOISE)),
    "PIL image whose file was closed": lambda: (lambda s: (Image.open(s), s.close())[0])(io.BytesIO(file())),
    "None": lambda: None,
    "number": lambda: 7,
    "list": lambda: NOISE.tolist(),
    "no bytes": lambda: b"",
    "empty file object": io.BytesIO,
    "closed file object": lambda: closed(io.BytesIO(file())),
    "text": lambda: io.StringIO("image"),
    "object array": lambda: np.array([[None]]),
    "structured array": lambda: np.zeros((3, 3), [("r", "u1")]),
    "empty array": lambda: np.zeros((0, 3), np.uint8),
    "a read that must be awaited": Awaited,
    "a read that fails": Failing,
    "path as bytes": lambda: b"/tmp/cat.png",
    "path too long": lambda: "a" * 5000,
    "PIL image without pixels": lambda: Image.new("L", (0, 3)),
    "wide PIL image without pixels": lambda: Image.new("F", (3, 0)),
    "NaN": lambda: Image.fromarray(np.full((3, 3), np.inf, np.float32)),
}


@pytest.mark.parametrize("kind", WRONG)
def test_whatever_is_wrong_with_an_image_is_an_input_error(kind):
    with pytest.raises(InputError):
        open_image(WRONG[kind]())


@pytest.fixture(scope="module")
def model(tiny_bundle):
    import ghostdeploy as gd

    with gd.load(tiny_bundle("onnx")) as opened:
        yield opened


def test_classify_takes_every_kind_and_says_the_same_of_each(model, tmp_path):
    (tmp_path / "a.png").write_bytes(file())

    kinds = [tmp_path / "a.png", str(tmp_path / "a.png"), file(), io.BytesIO(file()), NOISE, Image.fromarray(NOISE)]

    assert len({tuple(model.classify(kind, k=3)) for kind in kinds}) == 1


@pytest.mark.parametrize("kind", WRONG)
def test_classify_answers_whatever_is_wrong_with_an_input_error(model, kind):
    with pytest.raises(InputError):
        model.classify(WRONG[kind]())


SPEC = Preprocess(size=8)


@pytest.mark.parametrize("sources", [[], None, "cat.png", b"cat", 3], ids=repr)
def test_prepare_wants_a_list_of_images(sources):
    with pytest.raises(InputError, match=r"list of images"):
        prepare(sources, SPEC)


LARGE = (9000, 8000)


@pytest.mark.parametrize("kind", ["PNG", "GIF", "TIFF"])
def test_one_limit_on_pixels_holds_for_paths_bytes_file_objects_and_pil_images(tmp_path, monkeypatch, kind):
    assert LARGE[0] * LARGE[1] > MAX_PIXELS
    data = file(kind, Image.new("1" if kind != "GIF" else "P", LARGE))
    (tmp_path / "a.image").write_bytes(data)
    lazy = Image.open(io.BytesIO(data))
    monkeypatch.setattr(Image.Image, "convert", None)  # nothing is decoded
    monkeypatch.setattr(type(lazy), "load", None)

    for source in (tmp_path / "a.image", data, io.BytesIO(data), Pipe(data), lazy):
        with pytest.raises(InputError, match="9000×8000 pixels, expected at most 64 million"):
            open_image(source)


def test_the_limit_holds_for_arrays_that_hold_less_than_they_claim():
    with pytest.raises(InputError, match="expected at most 64 million"):
        open_image(np.broadcast_to(np.zeros((1, 1, 3), np.uint8), (9000, 8000, 3)))


def animation(kind, **options):
    frames = [Image.fromarray(np.full((8, 8, 3), gray, np.uint8)) for gray in (10, 200)]
    return file(kind, frames[0], save_all=True, append_images=frames[1:], **options)


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "TIFF", "PNG"])
def test_of_several_images_the_first_is_taken(kind):
    options = {"lossless": True} if kind == "WEBP" else {}

    assert np.asarray(open_image(animation(kind, **options)))[0, 0].tolist() == [10, 10, 10]


@pytest.mark.parametrize("kind", ["JPEG", "MPO", "PNG", "GIF", "BMP", "TIFF", "WEBP", "PPM"])
def test_every_listed_format_is_opened_by_bytes_and_lazily(kind):
    data = file(kind)

    assert open_image(data).size == (48, 64)
    assert open_image(Image.open(io.BytesIO(data))).size == (48, 64)


OTHERS = ["EPS", "ICO", "PCX", "TGA", "SGI", "SPIDER", "JPEG2000"]


@pytest.mark.parametrize("kind", OTHERS)
@pytest.mark.parametrize("name", ["a.jpg", "a.eps"])
def test_a_format_that_is_not_listed_is_refused_whatever_the_file_is_called(tmp_path, kind, name):
    image = Image.fromarray(NOISE[:, :, 0].astype(np.float32)) if kind == "SPIDER" else None
    (tmp_path / name).write_bytes(file(kind, image))

    for source in (tmp_path / name, (tmp_path / name).read_bytes()):
        with pytest.raises(InputError, match=rf"is not an image, expected {', '.join(FORMATS[:-1])} or"):
            open_image(source)


@pytest.mark.parametrize("kind", ["EPS", "PCX", "TGA"])
def test_a_pil_image_of_another_format_is_taken_once_it_is_loaded(monkeypatch, kind):
    lazy = Image.open(io.BytesIO(file(kind)))
    with monkeypatch.context() as patched:
        patched.setattr(type(lazy), "load", None)  # what would start Ghostscript
        with pytest.raises(InputError, match=f"has format {kind}, expected BMP"):
            open_image(lazy)

    loaded = Image.open(io.BytesIO(file("PCX")))
    loaded.load()
    assert open_image(loaded).size == loaded.size


def jpeg_with_exif(block):
    """A JPEG whose APP1 segment is `block`."""
    data, block = file("JPEG"), b"Exif\0\0" + block
    return data[:2] + b"\xff\xe1" + struct.pack(">H", len(block) + 2) + block + data[2:]


@pytest.mark.parametrize(
    "block",
    [
        b"",
        b"II*\0",
        b"MM\0*" + b"\xff" * 40,
        b"II*\0\x08\0\0\0\x01\0\x12\x01\x02\0\x05\0\0\0\xff\xff\xff\x7f",
        b"II*\0\x08\0\0\0\x01\0\x12\x01\x05\0\x01\0\0\0\x1a\0\0\0\0\0\0\0",
        b"II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0\x63\0\0\0\0\0\0\0",
        b"garbage" * 20,
    ],
    ids=["empty", "head only", "huge offset", "text far away", "fraction", "99", "garbage"],
)
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_damaged_exif_leaves_the_image_as_it_lies(block):
    assert np.array_equal(np.asarray(open_image(jpeg_with_exif(block))), np.asarray(open_image(file("JPEG"))))


def test_the_pil_image_of_the_caller_is_neither_changed_nor_closed():
    exif = Image.Exif()
    exif[0x0112] = 6
    given = Image.open(io.BytesIO(file("JPEG", exif=exif)))

    upright = open_image(given)

    assert (given.size, upright.size) == ((48, 64), (64, 48))
    assert given.getexif()[0x0112] == 6
    assert np.array_equal(np.asarray(open_image(given)), np.asarray(upright))
    assert given.getpixel((0, 0)) is not None


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="pipes with names are POSIX")
def test_a_pipe_with_a_name_is_refused_and_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "a.png")

    with pytest.raises(InputError, match="not a regular file"):
        open_image(tmp_path / "a.png")


@pytest.mark.parametrize(
    ("source", "said"),
    [
        (b"", "data of 0 bytes is not an image"),
        (b"no image", "data of 8 bytes is not an image"),
        (io.BytesIO(b"GIF89a"), "data in BytesIO is not an image"),
    ],
    ids=["empty", "text", "stream"],
)
def test_what_has_no_name_is_told_in_a_whole_sentence(source, said):
    with pytest.raises(InputError, match=f"^{said}, expected"):
        open_image(source)


@pytest.mark.parametrize("orientation", range(10))
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF", "WEBP", "BMP"])
def test_the_size_of_a_file_is_that_of_its_upright_image(kind, orientation, tmp_path):
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = tmp_path / "image"
    path.write_bytes(file(kind, **({} if kind == "BMP" else {"exif": exif})))

    assert upright_size(path) == open_image(path).size[::-1]


def test_a_file_without_a_size_is_refused_as_when_it_is_opened(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "text").write_text("no image")
    for name, said in (("pipe", "not a regular file"), ("text", "is not an image"), ("none", "does not exist")):
        with pytest.raises(InputError, match=said):
            upright_size(tmp_path / name)
