"""Parameters and multiply-accumulates of any module.

    MACs of a convolution   N · H_out · W_out · C_out · (C_in / groups) · k_h · k_w
    MACs of a linear layer  N · C_in · C_out

Everything else (BatchNorm, activations, sums, pooling) counts nothing, as in the tables of the papers. Shapes come from
one run on fake tensors: no weight is allocated, nothing is computed, and the module is not touched.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.fx.experimental.symbolic_shapes import ShapeEnv
from torch.utils.flop_counter import FlopCounterMode

from ghostdeploy.module_copies import copy_module, in_eval_mode

if TYPE_CHECKING:
    from collections.abc import Iterator


def count_params(module: nn.Module) -> int:
    """Returns the number of parameters; one shared by several layers counts once, buffers do not count."""
    return sum(parameter.numel() for parameter in module.parameters())


def count_macs(module: nn.Module, input_shape: tuple[int, ...] = (1, 3, 224, 224), *more: tuple[int, ...]) -> int:
    """Returns the multiply-accumulates of one eval-mode call.

    Args:
        module: Any module that takes float tensors, `torch.fx.GraphModule` included; on any device.
        input_shape: Shape of the first, batch first. A graph that was recorded with a fixed batch runs with no other.
        more: Shapes of the others.
    """
    first = next(_tensors(module), None)
    device = torch.device("cpu") if first is None else first.device
    dtype = first.dtype if first is not None and first.is_floating_point() else torch.float32
    # The shape environment stands in for numbers that the network takes out of its tensors, as with `item()`.
    numbers = ShapeEnv(allow_scalar_outputs=True, allow_dynamic_output_shape_ops=True)
    fake = FakeTensorMode(allow_non_fake_inputs=True, shape_env=numbers, static_shapes=True)
    clone = _fake_clone(module, fake)
    with fake, torch.no_grad():
        counter = FlopCounterMode(display=False)
        with counter:
            clone(*(torch.empty(shape, device=device, dtype=dtype) for shape in (input_shape, *more)))
    return int(counter.get_total_flops()) // 2


def _fake_clone(module: nn.Module, fake: FakeTensorMode) -> nn.Module:
    """Returns a copy in eval mode whose tensors have shapes but no storage."""
    memo: dict[int, Any] = {}
    for tensor in _tensors(module):
        stand_in: Tensor = fake.from_tensor(tensor.detach())
        memo[id(tensor)] = nn.Parameter(stand_in, requires_grad=False) if isinstance(tensor, nn.Parameter) else stand_in
    return in_eval_mode(copy_module(module, memo))


def _tensors(module: nn.Module) -> Iterator[Tensor]:
    """Yields parameters, buffers, and tensors kept as plain attributes."""
    yield from module.parameters()
    yield from module.buffers()
    for part in module.modules():
        yield from (value for value in vars(part).values() if isinstance(value, Tensor))
