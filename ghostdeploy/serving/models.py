"""A bundle as a model of KServe's server: checked tensors in, the engine's outputs out."""

from __future__ import annotations

import logging
import uuid
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from kserve import InferOutput, InferRequest, InferResponse, Model, ModelRepository

from ghostdeploy.errors import GhostDeployError, InputError
from ghostdeploy.open_inference import DATATYPES, of_bytes, of_numbers
from ghostdeploy.serving.refusals import Broken, Refused, Unknown
from ghostdeploy.serving.request import facts, metadata_of, platform
from ghostdeploy.serving.work import Work

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from ghostdeploy.bundle.manifest import Manifest
    from ghostdeploy.runtimes import Runtime
    from ghostdeploy.serving.request import Limits, Named

_log = logging.getLogger("ghostdeploy")


class Served(Model):
    """A loaded bundle.

    Args:
        named: Its name and version.
        manifest: Its manifest.
        runtime: Loaded; closed by `close`.
        limits: What a request may ask for.
    """

    def __init__(self, named: Named, manifest: Manifest, runtime: Runtime, limits: Limits) -> None:
        super().__init__(named.name)
        self.version = named.version
        self.inputs, self.outputs = metadata_of(manifest.inputs), metadata_of(manifest.outputs)
        self.facts, self.platform = facts(manifest), platform(manifest)
        self._runtime, self._most, self._where = runtime, limits.batch, str(named.path)
        self._names = {spec.name for spec in manifest.outputs}
        streams = int(runtime.info()["streams"])
        self.work = Work(named.name, streams=streams, queue=limits.queue, seconds=limits.seconds)
        self.ready = True

    def get_input_types(self) -> list[dict[str, object]]:
        """See KServe."""
        return self.inputs

    def get_output_types(self) -> list[dict[str, object]]:
        """See KServe."""
        return self.outputs

    async def predict(self, payload: InferRequest, _headers: Any = None, _response: Any = None) -> InferResponse:
        """Returns the engine's outputs for a request.

        Raises:
            Refused: The request does not fit the model, or it cannot be answered now.
        """
        try:
            inputs = {tensor.name: array_of(tensor) for tensor in payload.inputs}
            self._check(payload, inputs)
            found = await self.work.run(partial(self._runtime.infer, inputs))
        except InputError as error:
            raise Refused(_sentence(error).replace(self._where, self.name)) from error  # no path of ours travels
        except (GhostDeployError, MemoryError) as error:
            _log.error("%s failed: %s", self.name, error)
            raise Broken(f"{self.name} failed; the server's log has the cause") from error
        asked = [one.name for one in payload.request_outputs or ()] or list(found)
        return InferResponse(
            response_id=payload.id or str(uuid.uuid4()),
            model_name=self.name,
            model_version=self.version,
            infer_outputs=[_output(name, found[name]) for name in asked],
            use_binary_outputs=payload.use_binary_outputs,
            requested_outputs=payload.request_outputs,
        )

    def close(self) -> None:
        """Waits for the calls under way and frees the engine."""
        self.ready = False
        self.work.close()
        self._runtime.close()

    def _check(self, payload: InferRequest, inputs: dict[str, NDArray[Any]]) -> None:
        if len(inputs) < len(payload.inputs):
            raise InputError(f"{len(payload.inputs)} inputs have {len(inputs)} names, expected each once")
        sizes = [len(array) for array in inputs.values() if array.ndim]
        if max(sizes, default=0) > self._most:
            raise InputError(f"batch is {max(sizes)}, expected at most {self._most}")
        asked = [one.name for one in payload.request_outputs or ()]
        if unknown := [name for name in asked if name not in self._names]:
            known = ", ".join(sorted(self._names))
            raise InputError(f"output {unknown[0][:80]!r} is unknown, outputs are {known}")
        if len(set(asked)) < len(asked):
            raise InputError("an output is asked for twice, expected once")


class Catalog(ModelRepository):
    """All served models: `NAME` is its highest version, `NAME:VERSION` any."""

    def __init__(self, models: Sequence[Served]) -> None:
        super().__init__()
        for model in sorted(models, key=lambda one: int(one.version)):
            self.update(model)
            self.update(model, f"{model.name}:{model.version}")

    def key(self, name: str, version: str | None) -> str:
        """Returns the key of a model.

        Raises:
            Unknown: There is none.
        """
        key = f"{name}:{version}" if version else name
        if ":" in name or key not in self.models:
            known = ", ".join(sorted(key for key in self.models if ":" not in key))
            what = f"{name[:80]!r}" + (f" version {version[:20]!r}" if version else "")
            raise Unknown(f"no model {what} is served, models are {known}")
        return key

    def named(self, name: str, version: str | None = None) -> Served:
        """Returns a model; errors as for `key`."""
        found: Served = self.models[self.key(name, version)]
        return found

    def names(self) -> list[str]:
        """Returns the names, each once."""
        return [key for key in self.models if ":" not in key]

    def versions(self, name: str) -> list[str]:
        """Returns the versions of a name."""
        return [key.partition(":")[2] for key in self.models if key.startswith(f"{name}:")]


def array_of(tensor: Any) -> NDArray[Any]:
    """Returns a tensor of KServe's, whichever way it came, as an array.

    Raises:
        InputError: It contradicts itself.
    """
    if isinstance(tensor.data, np.ndarray):  # read and checked by `open_inference`
        return tensor.data
    what = f"input {tensor.name!r}"
    if tensor._raw_data is not None:
        return of_bytes(tensor._raw_data, tensor.shape, tensor.datatype, what)
    return of_numbers(list(tensor.data or ()), tensor.shape, tensor.datatype, what)


def _output(name: str, array: NDArray[Any]) -> InferOutput:
    found = InferOutput(name=name, shape=list(array.shape), datatype=DATATYPES[array.dtype.name])
    found.set_data_from_numpy(array, binary_data=True)  # given as an array, KServe's gRPC asks whether it is true
    return found


def _sentence(error: GhostDeployError) -> str:
    return error.message if error.hint is None else f"{error.message}; {error.hint}"
