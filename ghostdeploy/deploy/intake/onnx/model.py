"""Reads an untrusted ONNX file: hash, parse, refuse what cannot be deployed.

Order: bytes → SHA-256 → protobuf → text → versions → operators → functions → inputs → sizes of tensors → ONNX checker.
Nothing of the file is executed here. Weights beside the file (external data) are read only from its own folder.
"""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from ghostdeploy import targets
from ghostdeploy.errors import CheckpointError
from ghostdeploy.files import open_regular
from ghostdeploy.preprocess import Preprocess

if TYPE_CHECKING:
    from pathlib import Path

    import onnx

    from ghostdeploy.batches import Batch
    from ghostdeploy.deploy.intake.onnx.interface import ImageInput
    from ghostdeploy.deploy.intake.protocol import ReferenceModel
    from ghostdeploy.deploy.intake.records import Folded
    from ghostdeploy.deploy.plan.config import ExportConfig
    from ghostdeploy.deploy.plan.steps import ExportRun
    from ghostdeploy.targets import Target
    from ghostdeploy.tasks.base import TaskInfo

MAX_FILE_BYTES = 2**31 - 1
"""Largest protobuf message."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OnnxModel:
    """A float ONNX graph."""

    proto: onnx.ModelProto
    """As in the file, external data read in, functions inlined, no initializer among the inputs or outputs."""
    image: ImageInput | CheckpointError
    """Its input, or why an image cannot feed it: it needs ready inputs then."""
    name: str
    source: str
    """For the manifest: the file, and what computes the golden outputs."""
    weights_sha256: str
    """Of the file, followed by its external data files in the order of their names."""
    family: str = "onnx"
    labels: list[str] | None = None
    preprocess: Preprocess = field(default_factory=Preprocess)
    task: TaskInfo | None = None

    @property
    def input_names(self) -> tuple[str, ...]:
        """See `Described.input_names`."""
        return tuple(value.name for value in self.proto.graph.input)

    @property
    def classifies(self) -> bool:
        """See `Described.classifies`."""
        return self.labels is not None

    @property
    def intake(self) -> Target:
        """See `Described.intake`."""
        return targets.find("onnx")

    @property
    def weight_bytes(self) -> int:
        """Memory that the weights take, and the little that describes the graph."""
        return int(self.proto.ByteSize())

    def preprocess_for(self, config: ExportConfig) -> Preprocess:
        """See `ExportedModel.preprocess_for`."""
        from ghostdeploy.deploy.intake.onnx.prepare import preprocess_of

        return preprocess_of(self, config)

    def reference(self) -> ReferenceModel:
        """See `ExportedModel.reference`."""
        from ghostdeploy.deploy.intake.onnx.reference import OnnxReference

        return OnnxReference(self)

    def rehearse(self, reference: ReferenceModel, golden: Batch, config: ExportConfig) -> None:
        """Decides its branches for inputs of that size."""
        from ghostdeploy.deploy.intake.onnx.branches import decide
        from ghostdeploy.deploy.intake.onnx.interface import sizes_of

        decide(self.proto, self.name, config.batch, sizes_of(self.proto, golden))

    def prepare(self, run: ExportRun) -> Folded:
        """See `ExportedModel.prepare`."""
        from ghostdeploy.deploy.intake.onnx.prepare import prepare_onnx

        return prepare_onnx(self, run)

    def digest(self) -> str:
        """Hashes the file's hash, which the weights are part of."""
        return hashlib.sha256(self.source.encode() + self.weights_sha256.encode()).hexdigest()


def open_onnx(path: Path) -> OnnxModel:
    """Reads and checks an ONNX file.

    Args:
        path: The file; external data is in its folder or below.

    Raises:
        CheckpointError: It is missing, damaged, no ONNX, or nothing that can be deployed.
    """
    from ghostdeploy.deploy.intake.onnx import checks, functions, interface, opset
    from ghostdeploy.deploy.intake.onnx.external import read_external

    data = _read(path)
    digest = hashlib.sha256(data)
    proto = _parse(data, path)
    checks.refuse_no_text(proto, path)
    opset.refuse_versions(proto, path)
    checks.refuse_unsupported(proto, path)
    proto = functions.inline(proto, path)
    for content in read_external(proto, path):
        digest.update(content)
    interface.separate_nodes(proto)
    interface.drop_constant_inputs(proto)
    interface.write_every_output(proto, path)
    interface.refuse_inputs(proto, path)
    image: ImageInput | CheckpointError
    try:
        image = interface.image_input(proto, path)
    except CheckpointError as error:
        image = error
    checks.check(proto, path)
    checks.refuse_huge_values(proto, path)
    return OnnxModel(
        proto=proto,
        image=image,
        name=path.stem,
        source=f"onnx:{path.name}, run by ONNX Runtime without optimisation",
        weights_sha256=digest.hexdigest(),
        preprocess=Preprocess() if isinstance(image, CheckpointError) else interface.preprocess_of(image),
    )


def _read(path: Path) -> bytes:
    try:
        with open_regular(path.resolve()) as stream:
            size = os.fstat(stream.fileno()).st_size
            if size > MAX_FILE_BYTES:
                raise CheckpointError(
                    f"ONNX file {path} has {size} bytes, expected less than 2 GiB",
                    hint="store its weights as external data",
                )
            return stream.read()
    except FileNotFoundError as error:
        raise CheckpointError(f"ONNX file {path} does not exist") from error
    except OSError as error:
        raise CheckpointError(f"ONNX file {path} cannot be read: {error.strerror}") from error


def _parse(data: bytes, path: Path) -> onnx.ModelProto:
    import onnx

    proto = onnx.ModelProto()
    hint = "copy it again, or export it again"
    try:
        proto.ParseFromString(data)
    except Exception as error:  # protobuf's DecodeError: a package that onnx brings and we do not name
        raise CheckpointError(f"{path} is damaged or not an ONNX file ({len(data)} bytes)", hint=hint) from error
    if not proto.graph.node:
        raise CheckpointError(f"{path} holds no ONNX graph ({len(data)} bytes)", hint=hint)
    return proto
