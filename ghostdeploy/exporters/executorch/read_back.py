"""The precision, inputs and outputs of an ExecuTorch program, read from the file that was written."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from ghostdeploy.bundle.manifest import TensorSpec
from ghostdeploy.convert.attestation import Layer, achieved, executed_phrase
from ghostdeploy.convert.base import Ports, count_phrase
from ghostdeploy.runtimes.executorch.costs import cost_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ghostdeploy.bundle.manifest import PrecisionAchieved
    from ghostdeploy.runtimes.executorch.contents import DelegatedLayer, Program
    from ghostdeploy.runtimes.executorch.engine import Network


def read_precision(program: Program) -> PrecisionAchieved:
    """Reads the layers with weights.

    A layer is INT8 when its data and its weights are: XNNPACK then multiplies integers. What no delegate took runs in
    ExecuTorch's own kernels, in float.
    """
    layers = [_layer(one) for one in program.layers]
    layers += [Layer(name=name, executed="undelegated float", int8=False, macs=0) for name in program.undelegated]
    place = placement(program)
    if any(layer.int8 for layer in layers):
        return achieved(layers, how=f"model.pte holds {executed_phrase(layers)}; {place}")
    kinds = Counter(layer.executed.partition(" ")[0] for layer in layers)
    types = Counter(one.weights.kind for one in program.layers)
    how = f"model.pte holds {count_phrase(kinds)}; their weights are {count_phrase(types)}; {place}"
    return achieved(layers, how=how)


def placement(program: Program) -> str:
    """Returns the phrase that says what delegates compute, and what is left outside."""
    count, outside = len(program.delegates), len(program.outside)
    inside = f"{program.delegated} operations in {count} XNNPACK delegate{'' if count == 1 else 's'}"
    if not outside:
        return f"{inside}, none outside"
    share = 100 * outside / (outside + program.delegated)
    kinds = Counter(name.removeprefix("aten::") for name in program.outside)
    return f"{inside}, {outside} outside ({share:.0f} %): {count_phrase(kinds)}"


def ports(network: Network) -> Ports:
    """Returns the inputs and outputs of an opened program."""
    return Ports(
        inputs=_specs(network.input_names, network.inputs), outputs=_specs(network.output_names, network.outputs)
    )


def _specs(names: Sequence[str], tensors: Sequence[tuple[str, tuple[int, ...]]]) -> tuple[TensorSpec, ...]:
    pairs = zip(names, tensors, strict=True)
    return tuple(TensorSpec(name=name, dtype=kind, shape=shape) for name, (kind, shape) in pairs)


def _layer(layer: DelegatedLayer) -> Layer:
    int8 = layer.data.kind == layer.weights.kind == "int8"
    work = 0 if layer.kind == "FullyConnected" else cost_of(layer).macs // max(1, layer.output.shape[0])
    return Layer(name=layer.name, executed=f"{layer.kind} {'int8' if int8 else 'float'}", int8=int8, macs=work)
