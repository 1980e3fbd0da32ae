"""What a pickle may hold beside tensors: options, figures and paths that training runs note. None of it runs code.

`torch.load(weights_only=True)` knows tensors and plain containers; each entry here is a class or function that only
holds or copies values, under the name that a pickle calls it by. NumPy's own are those of its scalars and arrays, under
the names of NumPy 1 and 2.
"""

from __future__ import annotations

import argparse
import codecs
import collections
from pathlib import PurePosixPath, PureWindowsPath
from typing import Any

import numpy as np

_REDUCED: tuple[Any, ...] = (np.float64(0).__reduce__()[0], np.zeros(1).__reduce__()[0])
"""NumPy's private makers of scalars and arrays, `scalar` and `_reconstruct`."""
_HOMES = ("pathlib", "pathlib._local")


def _plain_dictionary(*_: Any) -> dict[Any, Any]:
    return {}


HARMLESS: tuple[Any, ...] = (
    argparse.Namespace,
    collections.Counter,
    (_plain_dictionary, "collections.defaultdict"),  # the unpickler fills no defaultdict
    *(int, float, bool, str, list, dict),  # what one makes
    (codecs.encode, "_codecs.encode"),  # how old pickle protocols spell bytes
    *((PurePosixPath, f"{home}.{name}") for home in _HOMES for name in ("PosixPath", "PurePosixPath")),
    *((PureWindowsPath, f"{home}.{name}") for home in _HOMES for name in ("WindowsPath", "PureWindowsPath")),
    np.ndarray,
    np.dtype,
    *(
        type(np.dtype(kind))
        for kind in ("bool", "f2", "f4", "f8", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "U1")
    ),
    *((made, f"numpy.{core}.multiarray.{made.__name__}") for core in ("core", "_core") for made in _REDUCED),
)
