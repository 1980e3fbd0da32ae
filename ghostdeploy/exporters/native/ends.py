"""The ends of a network: how inputs enter and outputs leave; and gates that scale weights.

An image of a few planes is read by its first convolution as it is. Other inputs become pixels first, and maps that are
outputs become planes last, unless the caller has channels last.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ghostdeploy.exporters.native.steps import STRIP, Map, Step

if TYPE_CHECKING:
    from ghostdeploy.exporters.native.lowering import Lowering

_STEM_TAPS = 128
_EXACT = ("VECTOR", "SCALE_WEIGHTS", "SOFTMAX", "COPY", "PIXELS")
"""Steps that read no value beyond the end of a vector: the caller's arrays may end there."""


def finished(lowered: Lowering) -> tuple[list[Step], list[Map], list[Map]]:
    """Returns steps, inputs and outputs with the steps that read and write the caller's arrays."""
    steps = list(_scaled(lowered.steps))
    outputs = _outputs(lowered, steps)
    entries, inputs = [], []
    for given in lowered.inputs:
        readers = [step for step in steps if any(one.root is given for one in step.all_reads)]
        direct = all(reader.reads[0] is given and given not in reader.all_reads[1:] for reader in readers)
        entry = "PIXELS" if given in lowered.channels_last else "LOAD"
        if direct and all(_is_stem(reader) for reader in readers) and given not in lowered.channels_last:
            for reader in readers:
                reader.kind = "STEM"
            inputs.append(given)
        elif direct and all(reader.kind in (_EXACT if given.is_vector else (entry,)) for reader in readers):
            inputs.append(given)
        else:
            for reader in readers:
                reader.kind = "COPY" if reader.kind == "LOAD" else reader.kind
            raw = Map(given.name, given.height, given.width, given.channels)
            kind = "COPY" if given in lowered.channels_last or given.is_vector else "LOAD"
            entries.append(Step(kind=kind, name=given.name, reads=[raw], writes=given))
            inputs.append(raw)
    return [*entries, *steps], inputs, outputs


def _outputs(lowered: Lowering, steps: list[Step]) -> list[Map]:
    """Returns the maps that the caller gets; appends the steps that make them where no step does."""
    outputs: list[Map] = []
    for made in lowered.outputs:
        last = made.is_vector or (made in lowered.channels_last and made not in lowered.inputs)
        direct = last and made.home is None and made.grid is None and made not in (*lowered.inputs, *outputs)
        if direct and not any(one.root is made for step in steps for one in step.all_reads):
            outputs.append(made)
            continue
        raw = Map(made.name, made.height, made.width, made.channels)
        steps.append(Step(kind="COPY" if last else "STORE", name=made.name, reads=[made], writes=raw))
        outputs.append(raw)
    return outputs


def _scaled(steps: list[Step]) -> list[Step]:
    found = []
    for step in steps:
        if step.scaled_by is not None:
            size = -(-step.writes.channels // STRIP) * STRIP * step.reads[0].channels
            scaled = Map(f"{step.name}/scaled", 1, 1, size)
            found.append(
                Step(kind="SCALE_WEIGHTS", name=step.name, reads=[step.scaled_by], writes=scaled, weights=step.weights)
            )
            step.scaled_by = scaled
        found.append(step)
    return found


def _is_stem(step: Step) -> bool:
    taps = 0 if step.weights is None else step.weights[0].size
    undilated = step.window.dilation_x == step.window.dilation_y == 1
    return step.kind == "DENSE" and step.integers is None and step.groups == 1 and undilated and taps <= _STEM_TAPS
