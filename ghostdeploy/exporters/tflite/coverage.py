"""Which operations of a network TFLite's builtin operators cover.

An operation that the converter has no builtin operator for would need the Flex delegate, a TensorFlow on the device.
The converter stops at the first one; the report names all of them, each with the PyTorch module it came from. The
written file must have no custom ones; `payload` checks what LiteRT does with the others.
"""

from __future__ import annotations

import re
from collections import Counter
from typing import TYPE_CHECKING, Any

import torch
from torch.utils import _pytree as pytree

from ghostdeploy.convert.base import listed
from ghostdeploy.convert.module_names import recorded_in
from ghostdeploy.exporters.tflite import file as tf
from ghostdeploy.exporters.tflite.payload import NotCoveredError
from ghostdeploy.telemetry import silent

with silent():
    from litert_torch.backend import lowerings
    from litert_torch.fx_infra import decomp

if TYPE_CHECKING:
    from collections.abc import Iterator


_ILLEGAL = re.compile(r"failed to legalize operation '([\w.]+)'")
_RESULT = re.compile(r"-> tensor<([0-9x]+)x[a-z]\w*>")

_WRITES = {
    "sort": ("topk", "sort", "argsort", "kthvalue", "median", "msort", "unique"),
    "scatter": ("scatter", "col2im", "index_put", "_index_put_impl", "index_add", "index_copy", "index_fill"),
    "gather": ("gather", "index", "im2col", "embedding", "take_along_dim"),
    "dot_general": ("matmul", "bmm", "linear", "einsum", "addmm", "mm"),
    "window": ("max_pool2d", "avg_pool2d", "cumsum", "cumprod", "adaptive_avg_pool2d", "adaptive_max_pool2d"),
}
"""ATen operations that become an operator of another name, by the end of that name."""


def report(program: torch.export.ExportedProgram) -> str | None:
    """Returns the sentence that names every operation without a builtin operator; None when all have one."""
    found: dict[str, dict[str, None]] = {}
    for operation, module in uncovered(program):
        found.setdefault(operation, {}).setdefault(module)
    if not found:
        return None
    listed = "; ".join(f"{operation} in {', '.join(modules)}" for operation, modules in found.items())
    return f"no builtin TFLite operator, these would need Flex: {listed}"


def uncovered(program: torch.export.ExportedProgram) -> Iterator[tuple[str, str]]:
    """Yields every operation without a builtin operator, and the PyTorch module it came from."""
    plain = program.run_decompositions(decomp.pre_convert_decomp()).run_decompositions(decomp.pre_lower_decomp())
    for node in plain.graph.nodes:
        if not node.users:  # an assertion, which the converter drops
            continue
        if isinstance(node.target, torch._ops.OpOverload) and lowerings.lookup(node.target) is None:
            yield str(node.target).removesuffix(".default"), recorded_in(node)


def unlegalized(error: Exception, program: torch.export.ExportedProgram) -> str | None:
    """Returns the sentence for what the converter could not write in TFLite's operators, None for other errors.

    It names the operation of its own dialect (`mhlo.convolution`, `tfl.pow`) and the shape of its result, transposed as
    it likes; the PyTorch modules are those of the nodes whose name has the same stem and whose result has those sizes.

    Args:
        error: What the converter raised.
        program: What it was to convert.
    """
    said = str(error)
    if (operation := _ILLEGAL.search(said)) is None:
        return None
    result = _RESULT.search(said, operation.end())
    sizes = sorted(int(size) for size in result.group(1).split("x")) if result is not None else None
    return f"LiteRT's converter cannot convert {with_origin(operation.group(1), sizes, program)}"


def with_origin(kind: str, sizes: list[int] | None, program: torch.export.ExportedProgram) -> str:
    """Returns `tfl.pow of 5 dimensions, from pow in decode`; the operator alone where nothing tells its origin.

    Args:
        kind: Operator as the converter or LiteRT calls it.
        sizes: Of its result, sorted; None where they are not known.
        program: What was converted.
    """
    rank = f" of {len(sizes)} dimensions" if sizes is not None else ""
    stem = re.split(r"\.", kind.removeprefix("STABLEHLO_").lower())[-1]
    last = stem.rpartition("_")[2]
    made_of = _WRITES.get(stem) or _WRITES.get(last, ())
    nodes = [
        node
        for node in program.graph.nodes
        if (name := operation_of(node)) and (name in made_of or last.startswith(name[:4]) or last in name)
    ]
    same = [node for node in nodes if sizes is not None and _sizes(node) == sizes]
    deconvolutions = [node for node in nodes if "transpose" in operation_of(node)] if last == "convolution" else []
    names = dict.fromkeys(f"{operation_of(node)} in {recorded_in(node)}" for node in same or deconvolutions or nodes)
    return f"{kind}{rank}{f', from {listed(names)}' if names else ''}"


def _sizes(node: torch.fx.Node) -> list[int]:
    value = node.meta.get("val")
    return sorted(map(int, value.shape)) if isinstance(value, torch.Tensor) else []


def operation_of(node: torch.fx.Node) -> str:
    """Returns the ATen name of a call (`conv2d`), "" for other nodes and calls that give no tensor."""
    if not isinstance(node.target, torch._ops.OpOverload) or not any(
        isinstance(one, torch.Tensor) for one in pytree.tree_leaves(node.meta.get("val"))
    ):
        return ""
    return str(node.target._schema.name.partition("::")[2])


def require_builtin(model: Any) -> None:
    """Checks a converted model.

    Args:
        model: The model object.

    Raises:
        NotCoveredError: It holds custom or Flex operators.
    """
    kinds = Counter(kind for kind, _ in tf.operators(model))
    custom = [kind for kind in kinds if kind == "CUSTOM" or kind.startswith("Flex")]
    if custom:
        raise NotCoveredError(f"the converted graph holds {', '.join(f'{kinds[k]} {k}' for k in custom)} operators")
