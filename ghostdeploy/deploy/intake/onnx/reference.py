"""The reference of an ONNX model: the file as it was given, run by ONNX Runtime with all optimisations off.

Golden vectors and reference accuracy come from here, never from the rewritten graph, so that a wrong pass shows.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from ghostdeploy.batches import arrays_of
from ghostdeploy.convert.graph.file import read_by, sorted_nodes
from ghostdeploy.deploy.intake.protocol import check_outputs
from ghostdeploy.deploy.quantize.simulate import GraphRunner, NoBatchError
from ghostdeploy.errors import CheckpointError

if TYPE_CHECKING:
    import onnx
    from numpy.typing import NDArray

    from ghostdeploy.batches import Batch
    from ghostdeploy.bundle.folder import Arrays
    from ghostdeploy.deploy.intake.onnx.model import OnnxModel

_NO_BATCH_HINT = "export the network without post-processing, the batch as first dimension"
_RUNNING = re.compile(r"while running (\w+) node\. Name:'(.*?)' Status Message: (?:\S+:\d+ .*?\) )?(.*)", re.DOTALL)


class OnnxReference:
    """Runs the original graph on arrays.

    Args:
        model: As it was read.

    Raises:
        CheckpointError: ONNX Runtime refuses the graph.
    """

    def __init__(self, model: OnnxModel) -> None:
        image = model.image
        self.input_name = model.input_names[0]
        self._any_size = isinstance(image, CheckpointError) or image.size is None
        self._constant = constant_outputs(model.proto)
        try:
            self._runner = GraphRunner(model.proto)
        except Exception as error:  # ONNX Runtime's errors are of a dozen classes under Exception
            raise CheckpointError(f"ONNX Runtime refuses the model: {reason(error)}") from error

    def outputs(self, batch: Batch) -> Arrays:
        """Returns all outputs by the names they have in the file.

        Raises:
            CheckpointError: The graph cannot run on this input; see also `check_outputs`.
        """
        try:
            arrays = self._runner(batch)
        except NoBatchError as error:
            raise CheckpointError(
                f"the model's output {error}, expected one row per image", hint=_NO_BATCH_HINT
            ) from error
        except Exception as error:
            if not self._any_size:  # the file says what it takes, and was given that
                raise CheckpointError(
                    f"ONNX Runtime cannot run the model: {reason(error)}",
                    hint="the graph is inconsistent: export it again",
                ) from error
            shapes = [tuple(one.shape) for one in arrays_of(batch)]
            said = f"an input of shape {shapes[0]}" if len(shapes) == 1 else f"inputs of shapes {str(shapes)[1:-1]}"
            raise CheckpointError(
                f"the model cannot run on {said}: {reason(error)}",
                hint="give the size it was trained with: --image-size, or other arrays in --calib",
            ) from error
        named = dict(zip(self._runner.outputs, arrays, strict=True))
        for name in self._constant:
            if named[name].shape[:1] != (len(batch),):
                raise CheckpointError(
                    f"the model's output {name} does not depend on the image: its shape is {named[name].shape} for "
                    f"{len(batch)} images, expected one row per image",
                    hint="leave that output out and ship its values separately; a single row works with --batch 1",
                )
        check_outputs(named, len(batch), hint=_NO_BATCH_HINT)
        return named

    def in_double(self) -> None:
        """See `ReferenceModel.in_double`: the file's types are float32."""

    def logits(self, batch: Batch) -> NDArray[Any]:
        """Returns the first output."""
        return next(iter(self.outputs(batch).values()))


def constant_outputs(model: onnx.ModelProto) -> list[str]:
    """Returns the outputs that no value of the input reaches, such as the anchors of a detector."""
    reached = {value.name for value in model.graph.input}
    for node in sorted_nodes(model.graph):
        if reached & set(read_by(node)):
            reached |= set(node.output)
    return [value.name for value in model.graph.output if value.name not in reached]


def reason(error: Exception) -> str:
    """Returns the reason that ONNX Runtime reports: operator and status, else the last line of its message."""
    if (found := _RUNNING.search(str(error))) is not None:
        kind, name, status = found.groups()
        return f"{kind}{f' {name}' if name else ''}: {' '.join(status.split()).removeprefix(f'{kind}: ')[:300]}"
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1][:300] if lines else type(error).__name__
