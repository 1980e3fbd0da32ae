"""The `Preprocess` record and the one function that executes it, from image file to model input.

    decode → EXIF orientation → RGB → resize (short side = round(size / crop_fraction)) → centre crop size × size
    → x / 255 → (x − mean) / std → NCHW float32

Calibration, golden vectors, evaluation and apps all call this module, so they cannot disagree; `decode` does what comes
before the resize. The geometry is that of torchvision's `Resize` (Pillow, antialiased) and `CenterCrop`. Needs NumPy
and Pillow only.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Literal

import msgspec
import numpy as np
from PIL import Image

from ghostdeploy.decode import MAX_PIXELS, open_image
from ghostdeploy.errors import InputError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ghostdeploy.decode import Source

_NAMES = ("bmp", "dib", "gif", "jfif", "jpe", "jpeg", "jpg", "pbm", "pgm", "png", "pnm", "ppm", "tif", "tiff", "webp")
IMAGE_SUFFIXES = frozenset(f".{name}" for name in _NAMES)
"""Names of files that a folder of images is searched for; what they hold is up to `open_image`."""

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)

ORDERS = {"nhwc": (0, 2, 3, 1), "nchw": (0, 3, 1, 2)}
"""Axes that bring an image batch of the other layout into this one."""

_RESAMPLING = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}


class Preprocess(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How an image becomes a model input; written into every manifest."""

    size: int = 224
    """Height and width of the model input in pixels."""
    crop_fraction: float = 0.875
    """Side of the centre crop as a fraction of the resized short side."""
    interpolation: Literal["bilinear", "bicubic"] = "bicubic"
    mean: tuple[float, float, float] = IMAGENET_MEAN
    """Per-channel mean, on the 0–1 scale."""
    std: tuple[float, float, float] = IMAGENET_STD
    """Per-channel standard deviation, on the 0–1 scale."""
    color: Literal["rgb"] = "rgb"
    layout: Literal["nchw", "nhwc"] = "nchw"
    """Order of the payload input's dimensions."""
    dtype: Literal["float32", "uint8"] | None = None
    """Payload input: normalised `float32`, or `uint8` pixels (normalisation baked in). None is `float32` for `nchw` and
    `uint8` for `nhwc`."""

    def __post_init__(self) -> None:
        """Refuses values no image could be prepared with.

        Raises:
            ValueError: Names the field, the value and what is expected.
        """
        for field in msgspec.structs.fields(self):
            value = getattr(self, field.name)
            try:
                msgspec.convert(value, field.type)
            except msgspec.ValidationError as error:
                raise ValueError(f"{field.name} is {value!r}, e{str(error)[1:].replace('`', '')}") from error
        if not 1 <= self.size <= 8192:
            raise ValueError(f"size is {self.size}, expected 1 to 8192 pixels")
        if not 0.1 <= self.crop_fraction <= 1.0:
            raise ValueError(f"crop_fraction is {self.crop_fraction}, expected 0.1 to 1.0")
        if not all(0 < value < math.inf for value in self.std):
            raise ValueError(f"std is {self.std}, expected three positive numbers")
        if not all(map(math.isfinite, self.mean)):
            raise ValueError(f"mean is {self.mean}, expected three finite numbers")

    @property
    def takes_pixels(self) -> bool:
        """The payload normalises by itself."""
        return (self.dtype or ("float32" if self.layout == "nchw" else "uint8")) == "uint8"

    @property
    def resize(self) -> int:
        """Short side in pixels after the resize."""
        return round(self.size / self.crop_fraction)


def to_pixels(source: Source, spec: Preprocess) -> NDArray[np.uint8]:
    """Returns the resized and cropped image as uint8 (size, size, 3), RGB.

    Args:
        source: Anything `open_image` takes.
        spec: The model's record.

    Raises:
        InputError: See `open_image`; or the image is a strip that the resize would make larger than `MAX_PIXELS`.
    """
    image = open_image(source)
    width, height = image.size
    short = min(width, height)
    if short != spec.resize:
        # torchvision truncates the long side: int(resize * long / short).
        new = tuple(spec.resize if side == short else int(spec.resize * side / short) for side in (width, height))
        if new[0] * new[1] > MAX_PIXELS:  # a strip of 1 × 60 000 pixels would become gigabytes
            raise InputError(
                f"image of {width}×{height} pixels is too long to be resized to a short side of {spec.resize}"
            )
        image = image.resize((new[0], new[1]), _RESAMPLING[spec.interpolation])
    left = round((image.width - spec.size) / 2.0)
    top = round((image.height - spec.size) / 2.0)
    image = image.crop((left, top, left + spec.size, top + spec.size))
    return np.asarray(image, np.uint8)


def normalise(pixels: NDArray[np.uint8], spec: Preprocess) -> NDArray[np.float32]:
    """Maps uint8 pixels (N, H, W, 3) to normalised float32 (N, 3, H, W); runtimes refuse what is not finite."""
    count, height, width, _ = pixels.shape
    out = np.empty((count, 3, height, width), np.float32)
    mean, std = np.asarray(spec.mean, np.float32), np.asarray(spec.std, np.float32)
    with np.errstate(over="ignore"):
        for image, planes in zip(pixels, out, strict=True):  # a plane fits into the cache, a batch does not
            for channel, plane in enumerate(planes):
                np.divide(image[:, :, channel], np.float32(255), out=plane, dtype=np.float32)
                plane -= mean[channel]
                plane /= std[channel]
    return out


def prepare(sources: Iterable[Source], spec: Preprocess) -> NDArray[np.float32] | NDArray[np.uint8]:
    """Maps N images to one model input.

    Args:
        sources: Anything `open_image` takes.
        spec: The model's record.

    Returns:
        float32 or uint8, (N, 3, size, size) for layout `nchw`, (N, size, size, 3) for layout `nhwc`.

    Raises:
        InputError: See `open_image`; or no image was given.
    """
    if isinstance(sources, (str, bytes, bytearray)) or not isinstance(sources, Iterable):
        raise InputError(f"images are {type(sources).__name__}, expected a list of images")
    pixels = [to_pixels(source, spec) for source in sources]
    if not pixels:
        raise InputError("the list of images is empty, expected at least one")
    return as_input(np.stack(pixels), spec)


def as_input(pixels: NDArray[np.uint8], spec: Preprocess) -> NDArray[np.float32] | NDArray[np.uint8]:
    """Maps cropped uint8 pixels (N, H, W, 3) to what the payload takes, see `prepare`."""
    array: Any = pixels if spec.takes_pixels else normalise(pixels, spec)
    have = "nhwc" if spec.takes_pixels else "nchw"
    if spec.layout != have:
        array = np.ascontiguousarray(array.transpose(ORDERS[spec.layout]))
    found: NDArray[np.float32] | NDArray[np.uint8] = array
    return found
