"""What a labelled set is, whatever it is called and wherever it lies.

    fingerprint = SHA-256 over the SHA-256 of each image as stored, in order, and over all labels

A part of an evaluation belongs to a set by it: an image or a label that was changed, added, taken away or moved gives
another one. Names, folders and times do not count.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence, Set
from concurrent.futures import ThreadPoolExecutor
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ghostdeploy.encoded import EncodedImage, content_digest
from ghostdeploy.errors import DataError
from ghostdeploy.machine import usable_cores

if TYPE_CHECKING:
    from ghostdeploy.deploy.prove.images import ImageSet
    from ghostdeploy.tasks.measure import Labelled

_ELSEWHERE = ("source", "images", "left_out", "class_order", "whole")
"""Fields that say where a set is, or are hashed by themselves."""


def fingerprint(data: ImageSet | Labelled) -> str:
    """Returns the fingerprint of a set, hexadecimal.

    Raises:
        DataError: An image is not readable.
    """
    digest = hashlib.sha256()
    try:
        with ThreadPoolExecutor(usable_cores(), "ghostdeploy-fingerprint") as pool:
            for found in pool.map(content_digest, data.images):
                digest.update(found)
            for name in sorted(_fields(data) - set(_ELSEWHERE)):
                digest.update(name.encode() + b"\0")
                _feed(digest, getattr(data, name))
    except OSError as error:
        raise DataError(f"{error.filename or data.source} is not readable: {error.strerror or error}") from error
    return digest.hexdigest()


def _fields(data: Any) -> set[str]:
    return {field.name for field in fields(data)} if is_dataclass(data) else set(vars(data))


def _feed(digest: Any, value: Any) -> None:
    """Hashes labels of any form; each value with its kind, so that no two run together."""
    digest.update(f"{type(value).__name__} ".encode())
    if isinstance(value, np.ndarray):
        digest.update(f"{value.dtype.str}{value.shape}".encode())
        digest.update(np.ascontiguousarray(value).tobytes())
    elif isinstance(value, Path | EncodedImage):
        digest.update(content_digest(value))
    elif isinstance(value, Mapping):
        _feed(digest, sorted(value.items()))
    elif isinstance(value, Set):
        _feed(digest, sorted(value))
    elif isinstance(value, Sequence) and not isinstance(value, str | bytes):
        digest.update(f"{len(value)} ".encode())
        for one in value:
            _feed(digest, one)
    else:
        text = repr(value).encode()
        digest.update(f"{len(text)} ".encode() + text)
