"""The exporter protocol, the two records that cross the process boundary, and the error for a refused graph.

The parent writes one `ExportJob` as a JSON line to the child's standard input; the child writes one `ExportResult` to
`job.result`. Everything bulky travels by path.

Converters wrap a reason in internal context: source files, steps, advice for their own developers. Each exporter
unwraps its vendor's messages and raises `RefusedError` with the reason, the operator and the PyTorch module; a message
that it does not recognise is passed on unchanged.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Literal, Protocol

from msgspec import field

from ghostdeploy.bundle.manifest import Calibration, Estimate, Placement, PrecisionAchieved, Record, TensorSpec
from ghostdeploy.preprocess import Preprocess  # noqa: TC001 - msgspec resolves annotations at run time
from ghostdeploy.target import Recipe, Setting  # noqa: TC001 - likewise
from ghostdeploy.tasks.base import TaskInfo  # noqa: TC001 - likewise

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path


class About(Record, frozen=True, kw_only=True):
    """Metadata of a payload, for readers that have only the file."""

    name: str
    labels: tuple[str, ...]
    """One per class."""
    preprocess: Preprocess
    """How an image becomes the payload's input."""


class QuantizeSpec(Record, frozen=True, kw_only=True):
    """One quantization of one float graph."""

    recipe: Recipe
    conditioned: str | None
    """Path of equalized weights, see `deploy.quantize.condition`; None to quantize the graph as it is."""
    calibration: str
    """Path of the calibration pixels, uint8 `.npy` (N, H, W, C), or a folder of ready inputs."""
    fingerprint: Calibration
    gate: str
    """Path of the pixels or inputs that the gate looks at, same form."""
    task: TaskInfo
    """What the outputs mean."""
    reference: dict[str, str]
    """Paths of the float model's outputs that judge, `.npy` (N, …), by output."""
    labels: str | None
    """Path of their class indices, `.npy` (N,)."""
    preprocess: Preprocess
    """How pixels become the payload's input."""
    golden: str
    """Folder of the golden inputs, ready for the payload, see `deploy.quantize.stored`."""
    labelled: str | None = None
    """Path of the labelled set that the images of the gate are, all of it, for the task's own measure."""
    class_names: tuple[str, ...] = ()
    max_drop: float
    """Largest allowed drop of top-1, or of the task's measure."""
    required_agreement: float | None
    """Smallest lower 95 % bound of the agreement with the reference; None where it does not judge."""
    required_db: float
    """Smallest SQNR of an output against the reference."""
    values_judge: bool
    """It must be reached; False where decisions alone count."""


class ExportJob(Record, frozen=True, kw_only=True):
    """One conversion."""

    source: str
    """File to convert: `.pt2` for targets without a parent, else the parent's payload."""
    folder: str
    """Existing folder that receives the payload files."""
    result: str
    """File that receives the `ExportResult`."""
    precision: str
    input_names: tuple[str, ...]
    output_names: tuple[str, ...]
    dynamic_batch: bool
    """The first dimension of every input and output is free."""
    batch: int | None = 1
    """Images per inference; None is free."""
    modules: tuple[str, ...] = ()
    """Dotted names of the PyTorch modules, to name layers by."""
    about: About | None = None
    """For payloads that carry their own description."""
    channels_last: bool = False
    """The program takes images as (N, C, H, W) and the payload is to take (N, H, W, C)."""
    settings: dict[str, Setting] = field(default_factory=dict)
    """Values of the options of this exporter, see `Target.options`."""
    quantization: QuantizeSpec | None = None
    """Set for a quantizer."""


class Ports(Record, frozen=True, kw_only=True):
    """Inputs and outputs as a payload has them, in its order; layouts are not part of a payload."""

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]


class Written(Record, frozen=True, kw_only=True):
    """What an exporter wrote into `job.folder`."""

    precision: PrecisionAchieved
    """Read back from the written payload."""
    files: tuple[str, ...] = ()
    """Payload files beyond those of the target's row, relative to the folder."""
    tools: dict[str, str] = field(default_factory=dict)
    """Versions of libraries that are not in `Exporter.tools` because they are optional."""
    scheme: str | None = None
    """How it quantized without calibration, one line for the manifest; None when it did not."""
    waiting_layers: int | None = None
    """Memory-bound layers, which `hybrid` changes; None where the exporter does not look for them."""
    ports: Ports | None = None
    """Read back from the written payload: an engine may have other types than PyTorch. None: those of the program."""
    placement: Placement | None = None
    """Accelerators: what runs on them, and what elsewhere."""
    estimates: tuple[Estimate, ...] = ()
    """What the vendor's compiler predicts."""
    stored: str | None = None
    """Row of the tolerance table that fits the stored weights, where that is not the requested precision."""


class ExportResult(Record, frozen=True, kw_only=True):
    """What the child reports."""

    status: Literal["done", "failed", "missing", "no space"]
    message: str = ""
    tools: dict[str, str] = field(default_factory=dict)
    """Versions of the libraries that did the work."""
    written: Written | None = None
    """Set when the status is `done`."""


class Exporter(Protocol):
    """Converts to one target."""

    tools: Sequence[str]
    """Distribution names whose versions go into the manifest."""

    def export(self, job: ExportJob) -> Written:
        """Writes the payload files into `job.folder` and reads the precision back from them.

        Raises:
            Exception: Whatever the vendor raises; the child process turns it into a failed `ExportResult`.
        """
        ...


class DefaultConverter(Protocol):
    """Exports an untouched module in the vendor's usual way, to compare with."""

    tools: Sequence[str]
    """Distribution names whose versions go into the manifest."""

    def write(self, module: Any, example: Any, folder: Path) -> Written:
        """Writes the payload files; the result has `ports`, with the names that the vendor gave, and `stored`.

        Args:
            module: `nn.Module` in eval mode.
            example: Tensor (N, C, H, W).
            folder: Existing folder.
        """
        ...


class Finished(Record, frozen=True, kw_only=True):
    """What was made on the device."""

    engine: str
    """File that the runtime opens, inside the bundle."""
    fault: str | None = None
    """Why it is not the requested one."""


class Finisher(Protocol):
    """Finishes a payload on the device that runs it, see `deploy.export.build`."""

    worker: str
    """Import string of the `Exporter` that does it in a child process."""

    def require(self) -> None:
        """Checks that the device and its library are here.

        Raises:
            MissingDependency: The library is not installed.
            UnsupportedHardware: There is no device that it can use.
        """
        ...

    def finished(self, folder: Path) -> Finished:
        """Reads what the worker left in the bundle."""
        ...


def count_phrase(counts: dict[str, int]) -> str:
    """Returns `95 Conv, 1 Gemm` for {"Conv": 95, "Gemm": 1}."""
    return ", ".join(f"{count} {kind}" for kind, count in sorted(counts.items(), key=lambda item: -item[1]))


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
