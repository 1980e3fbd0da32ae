"""What a vendor's converter said, brought down to the sentence that tells what is wrong.

Converters wrap their reason in where it was noticed: files of their sources, the steps they were in, advice for their
own developers. Each exporter knows the wrapping of its vendor and raises `RefusedError` with the reason, the operator
and the PyTorch module; whatever it does not recognise goes on as it came.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

_ATEN = re.compile(r"OpOverload\(op='([\w.]+)'")
_NODE = re.compile(r"translating node %(\w+) :")


class RefusedError(RuntimeError):
    """A vendor's tool refuses the graph; the message is a sentence of ours with the vendor's reason in it."""


def innermost(error: BaseException) -> BaseException:
    """Returns the error that all others of a chain come from."""
    seen = [error]
    while (before := seen[-1].__cause__ or seen[-1].__context__) is not None and before not in seen:
        seen.append(before)
    return seen[-1]


def listed(names: Iterable[str]) -> str:
    """Returns `a, b and 3 more` of any number of names, each once."""
    once = list(dict.fromkeys(names))
    return ", ".join(once[:3]) + (f" and {len(once) - 3} more" if len(once) > 3 else "")


def untranslated(error: BaseException) -> tuple[str, str] | None:
    """Returns the ATen operation and the graph node at which PyTorch's ONNX exporter stopped; None for other errors."""
    chain, found = [error], None
    while (before := chain[-1].__cause__ or chain[-1].__context__) is not None and before not in chain:
        chain.append(before)
    for one in chain:
        operation, node = _ATEN.search(str(one)), _NODE.search(str(one))
        if node is not None and found is None:
            found = node.group(1)
        if operation is not None and found is not None:
            return operation.group(1), found
    return None
