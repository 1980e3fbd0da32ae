"""Damages image files in their structure: lengths and checksums stay right, so decoders see what is inside.

Photographs carry metadata of four kinds (EXIF, ICC, XMP, text), each a format of its own with lengths and offsets.
"""

from __future__ import annotations

import io
import random
import struct
import zlib
from typing import TYPE_CHECKING

from PIL import Image, ImageCms, PngImagePlugin

from tests.fuzzing import TALLY, mutations

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from numpy.typing import NDArray

XMP = b'<?xpacket begin=""?><x:xmpmeta xmlns:x="adobe:ns:meta/"><a>1</a></x:xmpmeta><?xpacket end="w"?>'
SIZES = (0, 1, 2**16 - 1, 20000, 2**31 - 1, 2**32 - 1, 7999)
Part = tuple[bytes, bytes]
"""Kind and content of a chunk or segment."""


def files(pixels: NDArray) -> dict[str, bytes]:
    """Returns an image (H, W, 3) as files with metadata, by the format's name."""
    image, profile = Image.fromarray(pixels), ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    exif = Image.Exif()
    exif[0x0112] = 6
    exif[0x010F] = "Maker"
    exif.get_ifd(0x8769).update({0x9003: "2020:01:01 00:00:00", 0x829A: 0.02})
    exif.get_ifd(0x8825).update({1: "N", 2: (1.0, 2.0, 3.0)})
    text = PngImagePlugin.PngInfo()
    text.add_itxt("XML:com.adobe.xmp", XMP.decode())
    text.add_text("Comment", "word " * 40, zip=True)
    found = {}
    for kind, more in (("JPEG", {"xmp": XMP}), ("PNG", {"pnginfo": text}), ("WEBP", {"xmp": XMP})):
        stream = io.BytesIO()
        image.save(stream, kind, exif=exif.tobytes(), icc_profile=profile, **more)
        found[kind] = stream.getvalue()
    return found


def changed(pixels: NDArray, count: int, seed: int) -> Iterator[bytes]:
    """Yields damaged files, the formats in turn: parts changed inside, repeated, removed, moved, of another size."""
    draw, whole = random.Random(seed), files(pixels)
    for number in range(count):
        TALLY["damaged files"] += 1
        kind = tuple(whole)[number % len(whole)]
        parse, write = FORMATS[kind]
        parts = parse(whole[kind])
        for _ in range(draw.randint(1, 3)):
            _change(parts, draw)
        yield write(parts)


def _change(parts: list[Part], draw: random.Random) -> None:
    place = draw.randrange(len(parts))
    name, body = parts[place]
    kind = draw.randrange(6)
    if kind == 0:
        parts.insert(draw.randrange(len(parts)), parts[place])
    elif kind == 1 and len(parts) > 1:
        del parts[place]
    elif kind == 2:
        parts[place] = (name, _resized(name, body, draw))
    elif kind == 3:
        parts.insert(place, (b"zTXt", b"bomb\0\0" + zlib.compress(bytes(30_000_000))))
    elif body:
        (damaged,) = mutations(body, 1, draw.randrange(2**32))
        parts[place] = (name, damaged)


def _resized(name: bytes, body: bytes, draw: random.Random) -> bytes:
    """Returns the part that says how large the image is with another size; others are emptied."""
    width, height = draw.choice(SIZES), draw.choice(SIZES)
    if name == b"IHDR":
        return struct.pack(">II", width, height) + body[8:]
    if name in (b"\xff\xc0", b"\xff\xc2"):
        return body[:1] + struct.pack(">HH", height & 0xFFFF, width & 0xFFFF) + body[5:]
    if name == b"VP8X":
        return body[:4] + struct.pack("<I", width & 0xFFFFFF)[:3] + struct.pack("<I", height & 0xFFFFFF)[:3]
    return b""


def _png(data: bytes) -> list[Part]:
    parts, place = [], 8
    while place < len(data):
        (length,) = struct.unpack_from(">I", data, place)
        parts.append((data[place + 4 : place + 8], data[place + 8 : place + 8 + length]))
        place += 12 + length
    return parts


def _as_png(parts: list[Part]) -> bytes:
    chunks = (
        struct.pack(">I", len(body)) + name[:4] + body + struct.pack(">I", zlib.crc32(name[:4] + body))
        for name, body in parts
    )
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


def _jpeg(data: bytes) -> list[Part]:
    parts, place = [], 2
    while data[place : place + 2] != b"\xff\xda":
        (length,) = struct.unpack_from(">H", data, place + 2)
        parts.append((data[place : place + 2], data[place + 4 : place + 2 + length]))
        place += 2 + length
    return [*parts, (b"", data[place:])]


def _as_jpeg(parts: list[Part]) -> bytes:
    def segment(name: bytes, body: bytes) -> bytes:
        if not name:
            return body
        marker = name if len(name) == 2 else b"\xff\xe5"
        return marker + struct.pack(">H", min(len(body) + 2, 0xFFFF)) + body[: 0xFFFF - 2]

    return b"\xff\xd8" + b"".join(segment(*part) for part in parts)


def _webp(data: bytes) -> list[Part]:
    parts, place = [], 12
    while place + 8 <= len(data):
        (length,) = struct.unpack_from("<I", data, place + 4)
        parts.append((data[place : place + 4], data[place + 8 : place + 8 + length]))
        place += 8 + length + length % 2
    return parts


def _as_webp(parts: list[Part]) -> bytes:
    body = b"".join(name + struct.pack("<I", len(one)) + one + b"\0" * (len(one) % 2) for name, one in parts)
    return b"RIFF" + struct.pack("<I", len(body) + 4) + b"WEBP" + body


FORMATS: dict[str, tuple[Callable[[bytes], list[Part]], Callable[[list[Part]], bytes]]] = {
    "JPEG": (_jpeg, _as_jpeg),
    "PNG": (_png, _as_png),
    "WEBP": (_webp, _as_webp),
}
"""By name: takes a file apart, and puts it together with right lengths and checksums."""
