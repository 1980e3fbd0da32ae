"""The parts of an ExecuTorch program (`.pte`) that loading it needs: its header, and the names of inputs and outputs.

    bytes 4…8    ET12, the identifier of the flatbuffer
    bytes 8…     eh00, u32 size of this header, u64 size of the flatbuffer, u64 start of the segments, u64 their size

A program has no names of inputs and outputs. PyTorch's specification of its arguments is in it, and names entries of
dictionaries: the exporter gives the network one of inputs, and lets it return one of outputs.
Source: `schema/program.fbs` of ExecuTorch 1.5.
"""

from __future__ import annotations

import json
import struct
from typing import TYPE_CHECKING, Any

from ghostdeploy.runtimes.executorch.flatbuffer import Table

if TYPE_CHECKING:
    from collections.abc import Sequence

METHOD = "forward"
"""The network."""
_IDENTIFIER, _HEADER = b"ET12", b"eh00"
_HEADER_SIZE = 32


def read_names(data: bytes) -> tuple[Sequence[str], Sequence[str]]:
    """Returns the names of inputs and of outputs; none for a program that was made elsewhere.

    Raises:
        ValueError: It is no program, or is damaged.
    """
    check(data)
    try:
        return names_in(plans(Table.root(data))[METHOD])
    except (LookupError, struct.error, TypeError) as error:
        raise ValueError(f"the program is damaged: {error}") from error


def plans(root: Table) -> dict[str, Table]:
    """Returns the methods of a program by name.

    Raises:
        ValueError: The network is not among them.
    """
    found = {plan.text(0): plan for plan in root.tables(1)}
    if METHOD not in found:
        raise ValueError(f"the program has no method {METHOD}")
    return found


def names_in(plan: Table) -> tuple[Sequence[str], Sequence[str]]:
    """Returns the names of inputs and of outputs of a method."""
    specification = plan.table(1)
    texts = ("", "") if specification is None else (specification.text(0), specification.text(1))
    return _keys(texts[0]), _keys(texts[1])


def check(data: bytes) -> int:
    """Checks what ExecuTorch ends the process for, or finds out too late; returns where the segments begin.

    Raises:
        ValueError: It is no program, or has another size than its header says.
    """
    if data[4:8] != _IDENTIFIER or len(data) < 8 + _HEADER_SIZE:
        raise ValueError(f"it is no ExecuTorch program: bytes 4 to 8 are {data[4:8]!r}, expected {_IDENTIFIER!r}")
    if data[8:12] != _HEADER:
        return 0
    program, start, size = struct.unpack_from("<QQQ", data, 16)
    if (whole := max(start + size, program)) > len(data):
        raise ValueError(f"the program has {len(data)} bytes, its header says {whole}")
    return int(start)


def _keys(specification: str) -> Sequence[str]:
    """Returns the keys of the first dictionary in PyTorch's specification of arguments or results."""
    try:
        return _keys_in(json.loads(specification)[1])
    except (ValueError, LookupError, TypeError):
        return []


def _keys_in(spec: Any) -> list[str]:
    if not isinstance(spec, dict):
        return []
    if spec.get("type") == "builtins.dict" and spec.get("children_spec"):
        return [str(key) for key in json.loads(spec["context"])]
    return next((found for child in spec.get("children_spec") or () if (found := _keys_in(child))), [])
