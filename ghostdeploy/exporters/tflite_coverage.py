"""What of a network TFLite's own operators cover.

An operation that the converter has no builtin operator for would need the Flex delegate, a TensorFlow on the device.
The converter stops at the first one; the report names all of them, each with the PyTorch module it came from. Of the
written file is asked that it holds builtin operators alone.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

import torch

from ghostdeploy.exporters import tflite_file as tf
from ghostdeploy.telemetry import silent

with silent():
    from litert_torch.backend import lowerings
    from litert_torch.fx_infra import decomp

if TYPE_CHECKING:
    from collections.abc import Iterator


class NotCoveredError(RuntimeError):
    """Operations have no builtin TFLite operator."""


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
        if isinstance(node.target, torch._ops.OpOverload) and lowerings.lookup(node.target) is None:
            yield str(node.target).removesuffix(".default"), module_of(node)


def module_of(node: torch.fx.Node) -> str:
    """Returns the dotted name of the module that a node was recorded in."""
    stack: dict[str, Any] = node.meta.get("nn_module_stack") or {}
    paths = [path for path, _ in stack.values() if path]
    return paths[-1].removeprefix("network.") if paths else "the model itself"


def require_builtin(model: Any) -> None:
    """Checks a converted model.

    Raises:
        NotCoveredError: It holds custom or Flex operators.
    """
    kinds = Counter(kind for kind, _ in tf.operators(model))
    custom = [kind for kind in kinds if kind == "CUSTOM" or kind.startswith("Flex")]
    if custom:
        raise NotCoveredError(f"the converted graph holds {', '.join(f'{kinds[k]} {k}' for k in custom)} operators")
