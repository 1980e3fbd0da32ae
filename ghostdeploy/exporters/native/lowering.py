"""An ONNX graph as steps: activations, sums and gates go into what produces or reads a tensor.

    relu(conv(x))                        one step with an activation
    cat(p, c) + y                        (p + y[:k], c + y[k:]), each sum in the epilogue of what makes p or c
    conv1x1(x · s)                       W·diag(s) x: the weights take the gate where they are fewer than the pixels
    mean over all pixels                 sums of rows, then the mean of these

`Lowering` keeps the maps and the rules of fusion; `operators` says what each ONNX operator becomes.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

from onnx import helper, numpy_helper

from ghostdeploy.convert.base import RefusedError, listed
from ghostdeploy.convert.graph.index import LAYERS, OnnxGraph
from ghostdeploy.exporters.native.rounding import settle
from ghostdeploy.exporters.native.steps import NOTHING, Activation, Map, Step

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    import onnx
    from numpy.typing import NDArray

FUSES = ("POINTWISE", "DEPTHWISE", "DENSE")
"""Steps whose epilogue can add a map."""
_ACTIVATES = (*FUSES, "VECTOR", "ADD", "SHIFT")
_IMAGE = 4


class Lowering:
    """Reads a graph of float operators with fixed sizes.

    Args:
        model: Its shapes are inferred.
        operators: What each operator becomes: a function (lowering, node, attributes).

    Attributes:
        steps: In an order in which they can run.
        inputs: The graph's inputs as maps, in its order.
        outputs: Likewise.
        constants: By name.

    Raises:
        RefusedError: It has operators without a kernel; they are named.
    """

    def __init__(
        self, model: onnx.ModelProto, operators: Mapping[str, Callable[[Lowering, Any, dict[str, Any]], None]]
    ) -> None:
        self.graph = OnnxGraph(model)
        unknown = [
            node for node in self.graph.nodes if node.op_type not in operators or node.domain not in ("", "ai.onnx")
        ]
        if unknown:
            raise RefusedError(f"native has no kernel for {listed([self.placed(node) for node in unknown])}")
        self.shapes = self.graph.shapes
        self.constants: dict[str, NDArray[Any]] = {
            name: numpy_helper.to_array(tensor) for name, tensor in self.graph.constants.items()
        }
        self.codes: dict[str, tuple[NDArray[Any], NDArray[Any], int]] = {}
        """Integers and scales of weights that the graph stores so, and the axis that has a scale for each."""
        self.maps: dict[str, Map] = {}
        self.channels_last: set[Map] = set()
        """Inputs and outputs that the caller has as (N, height, width, channels)."""
        self.restored: dict[Map, Map] = {}
        """Floats of maps that are stored as bytes, for steps that read nothing else."""
        self.steps: list[Step] = []
        self._writer: dict[Map, Step] = {}
        self._aliases = Counter[Map]()
        self._uses = Counter({name: len(found) for name, found in self.graph.uses.items()})
        self._uses.update(self.graph.outputs)
        self.inputs = [self.new(name) for name in self.graph.inputs]
        for node in self.graph.nodes:
            attributes = {one.name: helper.get_attribute_value(one) for one in node.attribute}
            try:
                operators[node.op_type](self, node, attributes)
            except (KeyError, RefusedError) as error:
                raise self._refused(node, error) from error
        self.outputs = [self.maps[name] for name in self.graph.outputs]
        settle(self.steps)

    def _refused(self, node: Any, error: Exception) -> RefusedError:
        """Returns what a node cannot be, with its PyTorch module."""
        place = self.placed(node)
        if isinstance(error, KeyError):  # a constant, or a map, that the other is
            return RefusedError(f"native has no kernel with such operands for {place}")
        _, behind, module = place.partition(", behind")
        return RefusedError(f"{error}{behind}{module}" if module not in str(error) else str(error))

    def placed(self, node: Any) -> str:
        """Returns an operator with its node, and the layer in front of it: layers have the names of their modules."""
        before, seen = [node], set[str]()
        while before:
            one = before.pop()
            if one.op_type in LAYERS and one is not node:
                return f"{node.op_type} at {node.name}, behind the module {one.name}"
            makers = [self.graph.producer.get(name) for name in one.input if name not in seen]
            seen.update(one.input)
            before += [maker for maker in makers if maker is not None]
        return f"{node.op_type} at {node.name}"

    def new(self, name: str) -> Map:
        """Returns a map for a tensor: (N, channels, height, width) or (N, channels)."""
        shape = self.shapes.get(name, ())
        sizes = [size or 0 for size in shape[1:]]
        if len(shape) not in (2, _IMAGE) or 0 in sizes:
            raise RefusedError(f"native takes images and vectors of fixed sizes; {name} is {list(shape)}")
        channels, height, width = [*sizes, 1, 1][:3]
        self.maps[name] = found = Map(name, height, width, channels)
        return found

    def is_float(self, name: str) -> bool:
        """Returns whether a tensor of the graph holds floats."""
        return self.graph.is_float(name)

    def new_like(self, name: str, other: Map) -> Map:
        """Returns a map for a tensor with the sizes of another."""
        self.maps[name] = found = Map(name, other.height, other.width, other.channels)
        return found

    def add(self, step: Step) -> None:
        """Appends a step."""
        self.steps.append(step)
        self._writer[step.writes] = step

    def alias(self, name: str, what: Map) -> None:
        """Lets a node's result be a map that exists, the one that it reads or what makes it."""
        self.maps[name] = what
        self._aliases[what] += 1

    def uses(self, what: Map) -> int:
        """Returns how often a map is read by nodes that are none of its aliases, the graph's outputs among them."""
        return sum(self._uses[name] for name, one in self.maps.items() if one is what) - self._aliases[what]

    def writer(self, what: Map) -> Step | None:
        """Returns the step that writes a map."""
        return self._writer.get(what)

    def remove(self, step: Step) -> None:
        """Takes a step away whose result nobody reads any more."""
        self.steps.remove(step)
        del self._writer[step.writes]

    def sole(self, name: str) -> Step | None:
        """Returns the step that writes a tensor which one node alone reads, where nothing follows its sum yet."""
        step = self._writer.get(self.maps[name])
        if step is None or self.uses(step.writes) != 1 or step.activation != NOTHING:
            return None
        return step if step.writes.home is None and step.writes.grid is None else None

    def activate(self, node: Any, activation: Activation) -> None:
        """Lets an activation follow its input."""
        name, step = node.input[0], self.sole(node.input[0])
        if step is not None and step.kind in _ACTIVATES:
            step.activation = activation
            self.alias(node.output[0], step.writes)
            return
        made = self.new(node.output[0])
        self.add(Step(kind="ACTIVATE", name=node.name, reads=[self.maps[name]], writes=made, activation=activation))

    def sum_maps(self, node: Any) -> None:
        """Adds two maps, in the epilogue of what makes one where that can be."""
        names = list(node.input)
        if self._parts(names[0]) is None and self._parts(names[1]) is not None:
            names.reverse()
        parts, out = self._parts(names[0]), self.new(node.output[0])
        first, other = (self.maps[name] for name in names)
        if first.is_vector != other.is_vector and first.channels == other.channels:
            both = [other, first] if first.is_vector else [first, other]
            self.add(Step(kind="SHIFT", name=node.name, reads=both, writes=out))
            return
        if first.grid is not None or other.grid is not None:
            self.add(Step(kind="ADD", name=node.name, reads=[first, other], writes=out))
            return
        if parts is not None:
            self._sum_parts(node, parts, other, out)
            return
        for name, rest in ((names[0], other), (names[1], first)):
            step = self.sole(name)
            if step is not None and step.added is None and step.kind in FUSES and self._can_follow(step, rest):
                step.added = rest
                self._move_behind(step, rest)
                self.alias(node.output[0], step.writes)
                return
        self.add(Step(kind="ADD", name=node.name, reads=[first, other], writes=out))

    def _sum_parts(self, node: Any, parts: list[Map], other: Map, out: Map) -> None:
        for part in reversed(parts):  # the cheap operation first: what it reads can then wait, too
            piece = Map(f"{part.name}+{other.name}", part.height, part.width, part.channels, other, part.offset)
            step = self._writer[part]
            alone = step.activation == NOTHING and self._is_read_once(part)
            if alone and step.added is None and step.kind in FUSES and self._can_follow(step, other):
                step.added, part.home = piece, out
                part.name = f"{out.name}[{part.offset}:]"  # it holds the sum from now on
                self.maps = {name: one for name, one in self.maps.items() if one is not part}
                self._move_behind(step, other)
                continue
            summed = Map(f"{part.name}/sum", part.height, part.width, part.channels, out, part.offset)
            part.home, part.offset = None, 0
            if step.kind == "POINTWISE" and step.added is None and self._can_follow(step, other):
                step.added, step.second = piece, summed
                self._writer[summed] = step
                self._move_behind(step, other)
                continue
            self.add(Step(kind="ADD", name=node.name, reads=[part, piece], writes=summed))

    def _is_read_once(self, part: Map) -> bool:
        """Returns whether the concatenation alone reads a part of it, now and later."""
        return self.uses(part) == 1 and not any(part in one.all_reads for one in self.steps)

    def _parts(self, name: str) -> list[Map] | None:
        """Returns the parts of a concatenation that this sum alone reads."""
        whole = self.maps[name]
        parts = [step.writes for step in self.steps if step.writes.home is whole]
        if not parts or self.uses(whole) != 1 or sum(part.channels for part in parts) != whole.channels:
            return None
        return parts

    def _last_writer(self, needed: Map) -> int:
        made = [{one.root for one in step.all_writes} for step in self.steps]
        return max((place for place, roots in enumerate(made) if needed.root in roots), default=-1)

    def _can_follow(self, step: Step, needed: Map) -> bool:
        """Returns whether a step can wait for a map: nobody reads its own result before that is made."""
        last, own = self._last_writer(needed), self.steps.index(step)
        between = self.steps[own + 1 : last + 1]
        made = {one.root for one in step.all_writes}
        return not any(read.root in made for one in between for read in one.all_reads)

    def _move_behind(self, step: Step, needed: Map) -> None:
        last, own = self._last_writer(needed), self.steps.index(step)
        if last > own:
            self.steps.insert(last, self.steps.pop(own))
