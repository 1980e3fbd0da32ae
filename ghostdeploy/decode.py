"""From any kind of image source to an upright RGB image in memory.

    path, bytes, file object → Pillow, `FORMATS` only ─┐
    PIL image ─────────────────────────────────────────┼→ at most `MAX_PIXELS` → decoded → RGB, 8 bits → upright
    uint8 array ───────────────────────────────────────┘

Pillow supports some forty formats, detects them by content whatever the file name, and starts programs for a few of
them. Its decoders raise nearly any Python exception on damaged bytes. Here only a few formats are opened, the size is
known before a pixel is decoded, and every problem with an image is an `InputError`.

White is 255 in 8 bits, 65535 in 16 bits (4095 in TIFF of 12 bits), 1 in floats from 0 to 1. Floats that reach from 16
to 255, as Pillow's own conversion makes them, are 8-bit values. 32-bit integers are 8-bit values up to 255, and 16-bit
ones up to 65535. Any other range is refused: guessing would turn the image black.
"""

from __future__ import annotations

import contextlib
import io
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, TypeAlias

import numpy as np
from PIL import Image, ImageFile, UnidentifiedImageError

from ghostdeploy.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

Source: TypeAlias = "str | os.PathLike[str] | bytes | bytearray | memoryview | BinaryIO | Image.Image | NDArray[Any]"
"""What an image may come in."""
Upright: TypeAlias = "Image.Image | NDArray[np.uint8]"
"""An RGB image of 8 bits, or such an array (H, W, 3)."""

MAX_PIXELS = 64_000_000
"""Images above this many pixels are refused before they are decoded (decompression bombs)."""
MAX_BYTES = 1 << 29
"""Most bytes that are taken from a stream that cannot seek."""

FORMATS = ("BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP")
"""Pillow's names of the formats that are opened. GIF, WebP and TIFF of several images give the first one."""
_VARIANTS = frozenset({*FORMATS, "MPO"})
"""With what Pillow calls a JPEG of several pictures."""

_ORIENTATION = 0x0112
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_SIDEWAYS = tuple(_UPRIGHT[code] for code in (5, 6, 7, 8))
_BITS_PER_SAMPLE = 258
_ROWS = 256
"""Rows of a wide image that are scaled at a time."""
_WITHOUT_NAME = re.compile(r"^image (?=of \d+ bytes$|in \w+$)")
"""Begins the name of what came from no file."""
_LEAST_WHITE = 16
"""Smallest maximum of a float image that is taken for 8-bit values: just above 1 it may be either."""


def open_image(source: Source) -> Image.Image:
    """Returns an upright RGB image; the source stays as it is.

    A PIL image that was opened lazily is loaded, as by any use of it. A file object is read from its beginning where
    it can seek, and put back to where it stood; else from where it stands to its end. Neither is closed.

    Args:
        source: A file path, the bytes of a file, a binary file object, a PIL image, or a uint8 array (H, W), (H, W, 1),
            (H, W, 3) or (H, W, 4).

    Raises:
        InputError: The file is missing, unreadable, not an image, damaged, of another format or too large; the array or
            object is not an image; the pixel values have no known range.
    """
    if isinstance(source, np.ndarray):
        return _from_array(source)
    if isinstance(source, Image.Image):
        return _from_pillow(source)
    if isinstance(source, (bytes, bytearray, memoryview)):
        return _decoded(io.BytesIO(source), f"image of {len(source)} bytes")
    if isinstance(source, (str, os.PathLike)):
        return _from_path(source)
    if callable(getattr(source, "read", None)):
        return _from_stream(source)
    kind = type(source).__name__
    raise InputError(
        f"image is {kind}, expected a path, bytes, a binary file object, a PIL image or a uint8 array",
        hint="convert a tensor to a uint8 array (H, W, 3) first" if kind == "Tensor" else None,
    )


def open_upright(source: Source) -> Upright:
    """Returns an image as `open_image` does, or the source itself where it is an RGB array: for reading only.

    Raises:
        InputError: See `open_image`.
    """
    if isinstance(source, np.ndarray) and source.dtype == np.uint8 and source.shape[2:] == (3,) and source.size:
        _check_area(source.shape[1], source.shape[0], "image array")
        return source
    return open_image(source)


def height_and_width(image: Upright) -> tuple[int, int]:
    """Returns the size of an image in pixels."""
    return (image.height, image.width) if isinstance(image, Image.Image) else (image.shape[0], image.shape[1])


def upright_size(path: Path) -> tuple[int, int]:
    """Returns height and width of an image file as `open_image` has it, from its header alone where that tells.

    A PNG whose orientation comes after its pixels is taken for upright.

    Raises:
        InputError: See `open_image`.
    """
    with contextlib.suppress(Exception):  # `open_image` finds the same fault and has the sentence for it
        if path.is_file():
            with Image.open(path, formats=FORMATS) as image:
                _check_area(*image.size, str(path))
                told = image.format != "PNG" or "exif" in image.info  # Pillow decodes a PNG to look for more
                turn = _turn(image) if told else None
                if image.format != "TIFF":  # whose size Pillow has turned already, in some versions
                    return image.size if turn in _SIDEWAYS else image.size[::-1]
    return open_image(path).size[::-1]


def _from_path(source: str | os.PathLike[str]) -> Image.Image:
    name = f"image {os.fsdecode(source)}"
    if not os.fspath(source):
        raise InputError("the image path is empty", hint="is a variable empty?")
    try:
        path = Path(os.fsdecode(source))
        if path.is_dir():
            raise InputError(f"{path} is a folder, expected an image file")
        if path.exists() and not path.is_file():  # a pipe would block until data is written
            raise InputError(f"{path} is not a regular file, expected an image file")
        stream = path.open("rb")
    except FileNotFoundError as error:
        url = re.match(r"[a-z0-9]{2,}:/", os.fsdecode(source), re.IGNORECASE)
        hint = "only local files are read: download it first" if url else None
        raise InputError(f"{name} does not exist", hint=hint) from error
    except PermissionError as error:
        raise InputError(f"{name} is not readable") from error
    except (OSError, ValueError) as error:  # name too long, a zero byte in it
        raise InputError(f"{name} cannot be opened: {_reason(error)}") from error
    with stream:
        return _decoded(stream, name)


def _from_stream(stream: BinaryIO) -> Image.Image:
    name = f"image in {type(stream).__name__}"
    if isinstance(stream, io.TextIOBase):
        raise InputError(f"{name} is text, expected bytes", hint='open the file with mode "rb"')
    try:
        place = stream.tell()
        stream.seek(0)
    except Exception:  # whatever a foreign object raises, it cannot seek
        return _decoded(io.BytesIO(_read_all(stream, name)), name)
    try:
        return _decoded(stream, name)
    finally:
        with contextlib.suppress(Exception):
            stream.seek(place)


def _read_all(stream: BinaryIO, name: str) -> bytes:
    parts: list[bytes] = []
    size = 0
    with _refusing(name, "cannot be read"):
        while block := stream.read(1 << 20):
            if not isinstance(block, bytes):
                with contextlib.suppress(Exception):
                    block.close()  # a coroutine that nobody awaits would warn
                raise InputError(f"{name} returns {type(block).__name__}, expected bytes", hint="pass its bytes")
            parts.append(block)
            size += len(block)
            if size > MAX_BYTES:
                raise InputError(f"{name} has more than {MAX_BYTES >> 20} MiB, expected an image file")
    return b"".join(parts)


def _from_pillow(image: Image.Image) -> Image.Image:
    name = f"PIL image {getattr(image, 'filename', '')}".strip()
    if isinstance(image, ImageFile.ImageFile) and image.format not in _VARIANTS and not _is_loaded(image):
        hint = 'if you trust its source, load it first: image.convert("RGB")'
        raise InputError(f"{name} has format {image.format}, expected {_formats()}", hint=hint)
    found = _upright(image, name)
    return found.copy() if found is image else found


def _is_loaded(image: ImageFile.ImageFile) -> bool:
    try:
        return image.im is not None and not image.tile
    except Exception:  # Pillow's error differs by version
        return False


def _decoded(stream: BinaryIO, name: str) -> Image.Image:
    try:
        image = Image.open(stream, formats=FORMATS)
    except UnidentifiedImageError as error:
        named = _WITHOUT_NAME.sub("data ", name).removeprefix("image ")
        raise InputError(f"{named} is not an image, expected {_formats()}") from error
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        found = re.search(r"\d+", str(error))  # Pillow's own limit is higher than ours, and comes first
        millions = str(int(found[0]) // 1_000_000) if found else "too many"
        raise InputError(
            f"{name} has {millions} million pixels, expected at most {MAX_PIXELS // 1_000_000} million"
        ) from error
    except Exception as error:  # see the head of this file
        raise InputError(f"{name} is damaged: {_reason(error)}") from error
    with image:
        return _upright(image, name)


def _upright(image: Image.Image, name: str) -> Image.Image:
    _check_area(*image.size, name)
    with _refusing(name, "is damaged"):
        image.load()
        turn = _turn(image)
        upright = _to_rgb(image, name)
        return upright if turn is None else upright.transpose(turn)


def _check_area(width: int, height: int, name: str) -> None:
    if width * height > MAX_PIXELS:
        raise InputError(f"{name} has {width}×{height} pixels, expected at most {MAX_PIXELS // 1_000_000} million")
    if width * height == 0:
        raise InputError(f"{name} has {width}×{height} pixels, expected at least 1×1")


@contextlib.contextmanager
def _refusing(name: str, what: str) -> Iterator[None]:
    """Turns everything that Pillow, or a foreign file object, may raise into an `InputError`."""
    try:
        yield
    except InputError:
        raise
    except MemoryError as error:
        raise InputError(f"{name} needs more memory than is free") from error
    except Exception as error:
        raise InputError(f"{name} {what}: {_reason(error)}") from error


def _turn(image: Image.Image) -> Image.Transpose | None:
    """Returns what brings the image upright; None where EXIF is absent or invalid."""
    try:
        return _UPRIGHT.get(image.getexif().get(_ORIENTATION, 1))
    except Exception:  # damaged EXIF is no reason to refuse good pixels
        return None


def _to_rgb(image: Image.Image, name: str) -> Image.Image:
    if image.mode.startswith(("I", "F")):
        return _from_wide_gray(image, name)
    if image.mode == "P" and "transparency" in image.info:
        image = image.convert("RGBA")  # Pillow warns about the direct way
    return image if image.mode == "RGB" else image.convert("RGB")


def _from_wide_gray(image: Image.Image, name: str) -> Image.Image:
    """Scales wide gray to 8 bits; Pillow's own conversion clips at 255."""
    values = np.asarray(image)
    scale = 255.0 / _white(image, values, name)
    gray = np.empty(values.shape, np.uint8)
    for start in range(0, len(values), _ROWS):
        rows = values[start : start + _ROWS].astype(np.float64)
        gray[start : start + _ROWS] = np.clip(rows * scale + 0.5, 0, 255)
    return Image.fromarray(gray).convert("RGB")


def _white(image: Image.Image, values: NDArray[Any], name: str) -> float:
    """Returns the value of white, see the head of this file."""
    with np.errstate(invalid="ignore"):  # some processors signal for a NaN
        low, high = float(values.min()), float(values.max())
    if not (np.isfinite(low) and np.isfinite(high)):
        raise InputError(f"{name} holds NaN or infinite pixel values")
    if image.mode.startswith("I;16"):
        bits = getattr(image, "tag_v2", {}).get(_BITS_PER_SAMPLE)
        return 4095.0 if bits == (12,) else 65535.0
    if image.mode == "I":
        if getattr(image, "format", None) in {"PNG", "PPM"}:  # how Pillow opens their 16 bits
            return 65535.0
        if low >= 0 and high <= 65535:
            return 65535.0 if high > 255 else 255.0
        wanted = "0 to 255 or 0 to 65535"
    else:
        if low >= 0 and (high <= 1 or _LEAST_WHITE <= high <= 255):
            return 1.0 if high <= 1 else 255.0
        wanted = "0 to 1"
    raise InputError(
        f"{name} holds {'integers' if image.mode == 'I' else 'floats'} from {low:.4g} to {high:.4g}, expected {wanted}",
        hint="convert it to 8 bits first: divide by the value of white, clip to 0 … 1, multiply by 255",
    )


def _from_array(array: NDArray[Any]) -> Image.Image:
    if array.dtype != np.uint8:
        hint = None
        if array.dtype.kind in "fu":
            scale = "pixels / 257" if array.dtype.kind == "u" else "pixels * 255 where white is 1"
            hint = f"convert it to 8 bits first: np.clip({scale}, 0, 255).round().astype(np.uint8)"
        raise InputError(f"image array has dtype {array.dtype}, expected uint8", hint=hint)
    if array.ndim == 3 and array.shape[2] == 1:
        array = array[:, :, 0]
    if array.size == 0 or not (array.ndim == 2 or (array.ndim == 3 and array.shape[2] in {3, 4})):
        raise InputError(f"image array has shape {array.shape}, expected (H, W), (H, W, 1), (H, W, 3) or (H, W, 4)")
    _check_area(array.shape[1], array.shape[0], "image array")
    image = Image.fromarray(array)
    return image if image.mode == "RGB" else image.convert("RGB")


def _formats() -> str:
    return f"{', '.join(FORMATS[:-1])} or {FORMATS[-1]}"


def _reason(error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
