"""From image file to model input, see `Preprocess` for the order.

The resize is Pillow's, so `crop` is that of torchvision's and timm's `Resize` and `CenterCrop`; `corner` sampling is in
`corner`. Gray is Pillow's `L`, taken before the resize.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from ghostdeploy.decode import MAX_PIXELS, height_and_width, open_upright
from ghostdeploy.errors import InputError
from ghostdeploy.preprocess.corner import resize_from_corner
from ghostdeploy.preprocess.geometry import Placement, place
from ghostdeploy.preprocess.record import ORDERS

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ghostdeploy.decode import Source, Upright
    from ghostdeploy.preprocess.record import Preprocess

_RESAMPLING = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}


def to_pixels(source: Source, spec: Preprocess) -> NDArray[np.uint8]:
    """Returns the image as it fills the model input, uint8 (height, width, channels) in the order of `spec.color`.

    Args:
        source: Anything `open_image` takes.
        spec: The model's record.

    Raises:
        InputError: See `open_image`; or the image is a strip that the resize would make larger than `MAX_PIXELS`; or
            the model takes no image.
    """
    return fill(open_upright(source), spec)


def fill(image: Upright, spec: Preprocess) -> NDArray[np.uint8]:
    """Returns an upright image as `to_pixels` does; the image stays as it is."""
    if spec.ready:
        raise InputError("the model takes ready arrays, no images", hint="give arrays: infer({name: array, …})")
    height, width = height_and_width(image)
    placed = place(spec, height, width)
    if placed.height * placed.width > MAX_PIXELS:  # a strip of 1 × 60 000 pixels would become gigabytes
        raise InputError(
            f"image of {width}×{height} pixels is too long to be resized to {placed.width}×{placed.height}"
        )
    if isinstance(image, np.ndarray) and (spec.color == "gray" or spec.sampling == "half-pixel"):
        image = Image.fromarray(image)
    if spec.color == "gray" and isinstance(image, Image.Image):
        image = image.convert("L")
    pixels = _placed(_resized(image, placed, spec), placed, spec)
    return np.ascontiguousarray(pixels[:, :, ::-1]) if spec.color == "bgr" else pixels


def _resized(image: Upright, placed: Placement, spec: Preprocess) -> Upright:
    if height_and_width(image) == (placed.height, placed.width):
        return image
    if isinstance(image, Image.Image) and spec.sampling == "half-pixel":
        saved = image.height - placed.height
        if saved > 0 and saved > 2 * (image.width - placed.width):  # Pillow 13's order of passes, in every version
            image = image.resize((image.width, placed.height), _RESAMPLING[spec.interpolation])
        return image.resize((placed.width, placed.height), _RESAMPLING[spec.interpolation])
    pixels = np.asarray(image, np.uint8).reshape(*height_and_width(image), -1)
    return resize_from_corner(pixels, placed.height, placed.width)


def _placed(image: Upright, placed: Placement, spec: Preprocess) -> NDArray[np.uint8]:
    """Returns the crop of the image, or the image in its padding, (height, width, channels); `pad` in RGB order."""
    height, width, channels = spec.shape
    if height_and_width(image) == (height, width):
        return np.asarray(image, np.uint8).reshape(height, width, channels)
    if isinstance(image, Image.Image) and not any(spec.pad_pixels):  # Pillow's crop is black outside
        box = (-placed.left, -placed.top, width - placed.left, height - placed.top)
        return np.asarray(image.crop(box), np.uint8).reshape(height, width, channels)
    pad = spec.pad_pixels[::-1] if spec.color == "bgr" else spec.pad_pixels
    out = np.empty((height, width, channels), np.uint8)
    out[:] = pad
    (rows, from_rows), (columns, from_columns) = (
        (slice(max(begin, 0), begin + old), slice(max(-begin, 0), new - begin))
        for begin, old, new in ((placed.top, placed.height, height), (placed.left, placed.width, width))
    )
    whole = np.asarray(image, np.uint8).reshape(placed.height, placed.width, channels)
    out[rows, columns] = whole[from_rows, from_columns]
    return out


def normalise(pixels: NDArray[np.uint8], spec: Preprocess) -> NDArray[np.float32]:
    """Maps uint8 pixels (N, H, W, C) to normalised float32 (N, C, H, W); runtimes refuse what is not finite."""
    count, height, width, channels = pixels.shape
    out = np.empty((count, channels, height, width), np.float32)
    mean, std = np.asarray(spec.mean, np.float32), np.asarray(spec.std, np.float32)
    divisor = np.float32(255 / spec.white)
    with np.errstate(over="ignore"):
        for image, planes in zip(pixels, out, strict=True):  # a plane fits into the cache, a batch does not
            for channel, plane in enumerate(planes):
                np.divide(image[:, :, channel], divisor, out=plane, dtype=np.float32)
                plane -= mean[channel]
                plane /= std[channel]
    return out


def prepare(sources: Iterable[Source], spec: Preprocess) -> NDArray[np.float32] | NDArray[np.uint8]:
    """Maps N images to one model input.

    Args:
        sources: Anything `open_image` takes.
        spec: The model's record.

    Returns:
        float32 or uint8, (N, channels, height, width) for layout `nchw`, (N, height, width, channels) for layout
        `nhwc`.

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
    """Maps prepared uint8 pixels (N, H, W, C) to what the payload takes, see `prepare`."""
    array: Any = pixels if spec.takes_pixels else normalise(pixels, spec)
    have = "nhwc" if spec.takes_pixels else "nchw"
    if spec.layout != have:
        array = np.ascontiguousarray(array.transpose(ORDERS[spec.layout]))
    found: NDArray[np.float32] | NDArray[np.uint8] = array
    return found
