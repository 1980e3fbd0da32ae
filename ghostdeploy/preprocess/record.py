"""The `Preprocess` record: how an image becomes a model input.

    crop        short side = rounding(size / crop_fraction), long side in proportion; then the centre
    stretch     both sides to `size`, whatever the proportions
    letterbox   as large as fits into `size`, in proportion; the rest is `pad`

    float32 input, per channel   (u − mean) / std,   u = pixel / 255 with unit 0-1, the pixel itself with unit 0-255

Fields that came later are left out of JSON where they have their default, so that records written before are equal to
the byte.
"""

import math
from typing import Any, Literal, TypeVar

import msgspec

_NAMES = ("bmp", "dib", "gif", "jfif", "jpe", "jpeg", "jpg", "pbm", "pgm", "png", "pnm", "ppm", "tif", "tiff", "webp")
IMAGE_SUFFIXES = frozenset(f".{name}" for name in _NAMES)
"""Names of files that a folder of images is searched for; what they hold is up to `open_image`."""

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
MAX_SIDE = 8192
"""Pixels of the largest input."""

ORDERS = {"nhwc": (0, 2, 3, 1), "nchw": (0, 3, 1, 2)}
"""Axes that bring an image batch of the other layout into this one."""

Value = TypeVar("Value")


def _written(default: Value) -> Value:
    """Returns a default that JSON holds as well: `omit_defaults` leaves out only those that are no factory."""
    field: Any = msgspec.field(default_factory=lambda: default)
    found: Value = field
    return found


class Preprocess(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """How an image becomes a model input; written into every manifest."""

    size: int | tuple[int, int] = _written(224)
    """Height and width of the model input in pixels; one number where they are equal."""
    crop_fraction: float = _written(0.875)
    """Of `crop`: side of the centre crop as a fraction of the resized image; else 1."""
    interpolation: Literal["bilinear", "bicubic"] = _written("bicubic")
    mean: tuple[float, ...] = _written(IMAGENET_MEAN)
    """One per channel, in the order of `color` and the unit of `unit`."""
    std: tuple[float, ...] = _written(IMAGENET_STD)
    """Standard deviation, likewise."""
    color: Literal["rgb", "bgr", "gray"] = _written("rgb")
    """Order of the channels that the payload takes, pixels or not; `gray` is the luma of ITU-R 601."""
    layout: Literal["nchw", "nhwc"] = _written("nchw")
    """Order of the payload input's dimensions."""
    dtype: Literal["float32", "uint8"] | None = _written(None)
    """Payload input: normalised `float32`, or `uint8` pixels (normalisation baked in). None is `float32` for `nchw` and
    `uint8` for `nhwc`."""
    resize: Literal["crop", "stretch", "letterbox"] = "crop"
    rounding: Literal["round", "floor", "ceil"] = "round"
    """Of the resized sides where they are no whole pixels; `round` takes halves to the even number."""
    anchor: Literal["center", "corner"] = "center"
    """Of a letterbox: the image in the middle, an odd pixel of padding behind it; or at the top left."""
    pad: float | tuple[float, ...] = 0.0
    """Of a letterbox: value of the padding, or one per channel."""
    pad_space: Literal["pixels", "normalized"] = "pixels"
    """Whether `pad` is a pixel from 0 to 255, or what the network sees: the nearest pixel is taken."""
    upscale: bool = True
    """Of a letterbox: small images are enlarged, not only padded."""
    sampling: Literal["half-pixel", "corner"] = "half-pixel"
    """`half-pixel`: antialiased, as Pillow does. `corner`: output pixel i is the source at i / scale, bilinear, without
    antialiasing, as OpenCV's `warpPerspective` does for NanoDet."""
    channels: Literal[1, 3] = 3
    """1 for `gray`, else 3."""
    unit: Literal["0-1", "0-255"] = "0-1"
    """Scale of the pixels that `mean` and `std` are for."""
    ready: bool = False
    """The payload takes arrays as they are, no image: of the other fields only `size` and `layout` say something."""

    def __post_init__(self) -> None:
        """Refuses values no image could be prepared with, and such as would silently be without effect.

        Raises:
            ValueError: Names the field, the value and what is expected.
        """
        for field in msgspec.structs.fields(self):
            value = getattr(self, field.name)
            try:
                msgspec.convert(value, field.type)
            except msgspec.ValidationError as error:
                raise ValueError(f"{field.name} is {value!r}, e{str(error)[1:].replace('`', '')}") from error
        if not all(1 <= side <= MAX_SIDE for side in self.sides):
            raise ValueError(f"size is {self.size}, expected 1 to {MAX_SIDE} pixels")
        if not 0.1 <= self.crop_fraction <= 1.0:
            raise ValueError(f"crop_fraction is {self.crop_fraction}, expected 0.1 to 1.0")
        self._check_channels()
        self._check_effects()
        self._check_pad()

    def _check_channels(self) -> None:
        if (self.color == "gray") != (self.channels == 1):
            expected = 1 if self.color == "gray" else 3
            raise ValueError(f"channels is {self.channels}, expected {expected} with color {self.color}")
        for name, values in (("mean", self.mean), ("std", self.std)):
            if len(values) != self.channels:
                raise ValueError(f"{name} is {values}, expected array of length {self.channels}, one per channel")
        amount = {1: "one", 3: "three"}[self.channels]
        plural = "s" * (self.channels > 1)
        if not all(0 < value < math.inf for value in self.std):
            raise ValueError(f"std is {self.std}, expected {amount} positive number{plural}")
        if not all(map(math.isfinite, self.mean)):
            raise ValueError(f"mean is {self.mean}, expected {amount} finite number{plural}")

    def _check_effects(self) -> None:
        idle = [name for name in _LETTERBOX if getattr(self, name) != _LETTERBOX[name]]
        if self.resize != "letterbox" and idle:
            raise ValueError(f"{idle[0]} is {getattr(self, idle[0])!r}, without effect on resize {self.resize}")
        if self.resize != "crop" and self.crop_fraction != 1:
            raise ValueError(f"crop_fraction is {self.crop_fraction}, expected 1 with resize {self.resize}")
        if self.resize == "stretch" and self.rounding != "round":
            raise ValueError(f"rounding is {self.rounding!r}, without effect on resize stretch")
        if self.sampling == "corner" and self.interpolation != "bilinear":
            raise ValueError(f"interpolation is {self.interpolation}, expected bilinear with sampling corner")

    def _check_pad(self) -> None:
        if len(self._pads) != self.channels:
            raise ValueError(f"pad is {self.pad}, expected one number or {self.channels}, one per channel")
        whole = self.pad_space == "normalized" or all(float(one).is_integer() for one in self._pads)
        if not (whole and all(-0.5 <= one < 255.5 for one in self._padding)):
            space = "values of pixels, normalised" if self.pad_space == "normalized" else "whole numbers"
            raise ValueError(f"pad is {self.pad}, expected {space} from 0 to 255")

    @property
    def sides(self) -> tuple[int, int]:
        """Height and width of the model input in pixels."""
        return (self.size, self.size) if isinstance(self.size, int) else (self.size[0], self.size[1])

    @property
    def shape(self) -> tuple[int, int, int]:
        """Of a prepared image: (height, width, channels)."""
        return (*self.sides, self.channels)

    @property
    def takes_pixels(self) -> bool:
        """The payload normalises by itself."""
        return (self.dtype or ("float32" if self.layout == "nchw" else "uint8")) == "uint8"

    @property
    def white(self) -> float:
        """Value of the brightest pixel in the unit of `mean` and `std`."""
        return 1.0 if self.unit == "0-1" else 255.0

    @property
    def _pads(self) -> tuple[float, ...]:
        return (self.pad,) * self.channels if isinstance(self.pad, (int, float)) else tuple(self.pad)

    @property
    def _padding(self) -> list[float]:
        """What `pad` is on the scale of pixels."""
        if self.pad_space == "pixels":
            return list(self._pads)
        scale = 255 / self.white
        return [(p * s + m) * scale for p, s, m in zip(self._pads, self.std, self.mean, strict=True)]

    @property
    def pad_pixels(self) -> tuple[int, ...]:
        """Pixel values of the padding, one per channel."""
        return tuple(map(round, self._padding))

    def rounded(self, length: float) -> int:
        """Returns a length in whole pixels, see `rounding`."""
        if self.rounding == "floor":
            return math.floor(length)
        return math.ceil(length - _EPSILON) if self.rounding == "ceil" else round(length)


_EPSILON = 1e-9
"""What is no more than this above a whole number is that number: 150 · (416 / 300) is 208.00000000000003."""
_LETTERBOX = {
    field.name: field.default
    for field in msgspec.structs.fields(Preprocess)
    if field.name in {"anchor", "pad", "pad_space", "upscale"}
}
"""Fields that only a letterbox has, with their defaults."""


def changed(spec: Preprocess, fields: dict[str, Any]) -> Preprocess:
    """Returns a record with fields replaced; what the new ones imply of the others follows.

    Another `resize` brings its own defaults, `sampling` corner is bilinear, and `color` and `channels` follow each
    other.

    Args:
        spec: Left as it is.
        fields: New values by name, as JSON has them.

    Raises:
        msgspec.ValidationError: A field is unknown or has an impossible value.
    """
    implied: dict[str, Any] = {}
    if fields.get("resize", spec.resize) != spec.resize:
        implied |= _LETTERBOX | {"rounding": "round"}
        if fields["resize"] != "crop":
            implied["crop_fraction"] = 1.0
    if fields.get("sampling", spec.sampling) == "corner":
        implied["interpolation"] = "bilinear"
    if "color" in fields:
        implied["channels"] = 1 if fields["color"] == "gray" else 3
    elif fields.get("channels", spec.channels) != spec.channels:
        implied["color"] = "gray" if fields["channels"] == 1 else "rgb"
    return msgspec.convert(msgspec.to_builtins(spec) | implied | fields, type=Preprocess)


def pixels_text(size: int | tuple[int, ...]) -> str:
    """Returns a height and width as `224`, or as `192×320` where they differ."""
    sides = (size,) if isinstance(size, int) else dict.fromkeys(size)
    return "×".join(map(str, sides))


def described(spec: Preprocess) -> str:
    """Returns a record in one line, for people."""
    if spec.ready:
        return "none: the inputs are ready arrays"
    how = f"crop {spec.crop_fraction:g}" if spec.resize == "crop" else spec.resize
    parts = [f"{pixels_text(spec.sides)} px", how, spec.interpolation, f"mean {spec.mean}", f"std {spec.std}"]
    usual = msgspec.to_builtins(Preprocess())
    rest = {name: value for name, value in msgspec.to_builtins(spec).items() if name not in usual and name != "resize"}
    rest |= {} if spec.color == "rgb" else {"color": spec.color}
    return ", ".join([*parts, *(f"{name.replace('_', ' ')} {value}" for name, value in rest.items())])
