"""ONNX from a saved `torch.export` program: dynamo exporter, simplified once, shape-inferred, checked.

The file is one piece (no external data), opset 18, with the names given in the job. `hybrid` stores the weights of
memory-bound layers in INT8, see `weights`.
"""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

import onnxscript  # noqa: F401 - torch.onnx needs it later: import early, name its absence
import torch

from ghostdeploy.convert.base import RefusedError, Written, innermost, untranslated
from ghostdeploy.convert.graph.simplify import check_names, name_outputs, simplify
from ghostdeploy.convert.memory import drop_weights, give_back
from ghostdeploy.convert.module_names import recorded_in
from ghostdeploy.exporters.onnx.weights import write_payload

if TYPE_CHECKING:
    from collections.abc import Collection

    import onnx

    from ghostdeploy.convert.base import ExportJob

OPSET = 18
_OURS = "ghostdeploy.terminal.output."


class OnnxExporter:
    """PyTorch graph → `model.onnx`."""

    tools = ("torch", "onnx", "onnxscript", "onnxsim")

    def export(self, job: ExportJob) -> Written:
        """See `Exporter.export`."""
        model = to_onnx(job)
        give_back()
        model = simplify(model)
        check_names(model, job)
        return write_payload(model, job)


def refusal(error: Exception, program: torch.export.ExportedProgram) -> RefusedError:
    """Returns the sentence for an error of PyTorch's exporter: what has no ONNX form and where, else its reason."""
    found = untranslated(error)
    if found is None:
        return RefusedError(f"PyTorch's ONNX exporter failed: {str(innermost(error)).strip().partition(chr(10))[0]}")
    operation, name = found
    places = "".join(f" in {recorded_in(node)}" for node in program.graph.nodes if node.name == name)
    return RefusedError(f"ONNX has no equivalent of {operation}{places}")


def spare_decomposition(program: torch.export.ExportedProgram) -> None:
    """Spares a program the decomposition that would leave it as it is: tracing it again is two thirds of the export.

    Args:
        program: Changed in place: asked to decompose operations that it does not have, it returns itself.
    """
    decompose = program.run_decompositions

    def run(table: dict[Any, Any]) -> torch.export.ExportedProgram:
        return program if _is_decomposed(program, table) else decompose(table)

    program.run_decompositions = run


def _is_decomposed(program: torch.export.ExportedProgram, table: Collection[Any]) -> bool:
    """Returns whether a graph has only functional operations, none of a table, and no graph inside.

    Tracing also takes apart compositions that may return their input, such as `Tensor.to`, which stand in no table.
    """
    called = [node.target for node in program.graph.nodes if node.op == "call_function"]
    operations = [one for one in called if isinstance(one, torch._ops.OperatorBase)]
    return all(
        isinstance(one, torch._ops.OpOverload)
        and one not in table
        and not one._schema.is_mutable
        and (one in _RESHAPES or not (_is_composition(one) and any(out.alias_info for out in one._schema.returns)))
        for one in operations
    )


_RESHAPES = (torch.ops.aten.reshape.default, torch.ops.aten.flatten.using_ints)
"""Compositions that ONNX has an operator for."""


def _is_composition(operation: torch._ops.OpOverload) -> bool:
    return operation.has_kernel_for_dispatch_key(torch._C.DispatchKey.CompositeImplicitAutograd)


def to_onnx(job: ExportJob) -> onnx.ModelProto:
    """Converts the saved program."""
    program = torch.export.load(job.source)
    spare_decomposition(program)
    batch = torch.export.Dim("batch") if job.dynamic_batch else None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter warns about its own internals
        try:
            exported = torch.onnx.export(
                program,
                dynamo=True,
                opset_version=OPSET,
                input_names=list(job.input_names),
                # torch does not look whether a value inside the graph has one of these names already.
                output_names=[f"{_OURS}{place}" for place in range(len(job.output_names))],
                dynamic_shapes=tuple({0: batch} for _ in job.input_names) if batch is not None else None,
                external_data=False,
                verbose=False,
            )
        except torch.onnx.OnnxExporterError as error:
            raise refusal(error, program) from error
    if exported is None:  # the type allows it, the dynamo path never does it
        raise RuntimeError("torch.onnx.export returned nothing")
    proto = exported.model_proto
    name_outputs(proto.graph, job.output_names)
    drop_weights(program)
    return proto
