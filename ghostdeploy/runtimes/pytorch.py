"""PyTorch: the reference runtime, the same interface over a module in this process.

It has no bundle and no payload; a module and its records make it. PyTorch keeps one thread count for the whole process,
so it is not a setting here: call `torch.set_num_threads` yourself. The module is copied, put into eval mode and run
without gradients, and never changes afterwards, so calls from many threads at once are safe.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch.utils import _pytree as pytree

from ghostdeploy.bundle.manifest import TensorSpec
from ghostdeploy.errors import BundleError
from ghostdeploy.module_copies import copy_module, in_eval_mode
from ghostdeploy.runtimes.base import Runtime
from ghostdeploy.runtimes.interface import Engine, Interface, Settings

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray
    from torch import nn

    from ghostdeploy.bundle.folder import Arrays
    from ghostdeploy.preprocess import Preprocess


class PyTorchRuntime(Runtime):
    """Runs a module on the CPU, in the precision of its weights.

    Args:
        module: Takes the inputs in order, gives a tensor or any nesting of tensors; it is copied, not changed.
        inputs: What it takes.
        outputs: What it gives, in the order of the flattened result.
        preprocess: How an image becomes its input, for `classify`.
        labels: One per class.

    Raises:
        BundleError: The module gives other outputs than `outputs` says.
    """

    engine = "torch"

    def __init__(
        self,
        module: nn.Module,
        inputs: Sequence[TensorSpec],
        outputs: Sequence[TensorSpec],
        preprocess: Preprocess,
        labels: Sequence[str],
    ) -> None:
        self._module = in_eval_mode(copy_module(module).cpu())
        parameter = next(self._module.parameters(), torch.empty(0))
        self._dtype = str(parameter.dtype).removeprefix("torch.")
        interface = Interface(
            name=type(module).__name__,
            where=type(module).__name__,
            target="pytorch",
            precision={"float32": "fp32", "float16": "fp16"}.get(self._dtype, self._dtype),
            inputs=tuple(inputs),
            outputs=tuple(outputs),
            preprocess=preprocess,
            labels=list(labels),
        )
        super().__init__(interface, Settings())

    def _open(self) -> Engine:
        example = {name: port.example() for name, port in self._ports.items()}
        found = self._run(example)
        promised = self._interface.outputs
        if len(found) != len(promised):
            raise BundleError(f"{self._where} gives {len(found)} outputs, expected {len(promised)}")
        return Engine(
            version=torch.__version__.partition("+")[0],
            device="CPU",
            threads=torch.get_num_threads(),
            streams=1,
            precision=self._dtype,
            inputs=self._interface.inputs,
            outputs=tuple(_spec(array, spec) for array, spec in zip(found, promised, strict=True)),
        )

    def _run(self, inputs: Arrays) -> Sequence[NDArray[Any]]:
        with torch.inference_mode():
            # A copy: a tensor on the caller's memory would let an in-place layer write there.
            result = self._module(*(torch.tensor(array) for array in inputs.values()))
            return [tensor.clone().numpy() for tensor in pytree.tree_leaves(result)]

    def _close(self) -> None:
        del self._module


def _spec(array: NDArray[Any], promised: TensorSpec) -> TensorSpec:
    """Returns what the module gave; a size that the promise leaves free cannot be told from one run."""
    free = [size is None for size in promised.shape] if len(promised.shape) == array.ndim else [False] * array.ndim
    shape = tuple(None if any_size else size for any_size, size in zip(free, array.shape, strict=True))
    return TensorSpec(name=promised.name, dtype=array.dtype.name, shape=shape)
