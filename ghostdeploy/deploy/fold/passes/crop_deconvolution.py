"""A transposed convolution gives its whole map, and a slice takes what the padding leaves of it.

With n values in, kernel k, dilation d, stride s, padding p and output padding q, the whole map has (n − 1)·s + d(k − 1)
+ 1 values, and

    y = whole[p : p + m],      m = (n − 1)·s − 2p + d(k − 1) + q + 1,      q' = max(0, q − p) of the new call

because p + m ends q − p values after the whole map, zeros plus bias, which only q' > 0 needs.
TFLite's operator has two paddings, none and SAME (k − s = 2p); the converter takes the others for a general convolution
that nothing executes (kernel 3, stride 2, padding 1, output padding 1 of every U-Net), or places them wrongly.
Refused: a stride of 1, which is a convolution; the two paddings that exist.
Source: documentation of `torch.nn.ConvTranspose2d`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ghostdeploy.deploy.fold.passes.base import PassResult
from ghostdeploy.deploy.fold.passes.graph import aten, calls, insert_call, named_arguments, replace, shape, spread

if TYPE_CHECKING:
    from torch import fx

_TRANSPOSED = {
    aten.conv_transpose1d.default: 1,
    aten.conv_transpose2d.input: 2,
    aten.conv_transpose3d.input: 3,
}


class CropDeconvolution:
    """Transposed convolution with padding → without, then a slice."""

    name = "CropDeconvolution"
    operations = frozenset({"conv_transpose1d", "conv_transpose2d", "conv_transpose3d"})

    def run(self, module: fx.GraphModule) -> PassResult:
        """See the module docstring."""
        sites = 0
        for node in calls(module, *_TRANSPOSED):
            after = shape(node)[2:]
            if all(isinstance(size, int) for size in after) and _crop(node, after):
                sites += 1
        return PassResult(module, sites)


def _crop(node: fx.Node, after: tuple[int, ...]) -> bool:
    values = named_arguments(node)
    rank = _TRANSPOSED[node.target]  # type: ignore[index]
    kernel = shape(values["weight"])[2:]
    stride, padding, beyond, dilation = (
        spread(values[name], rank) for name in ("stride", "padding", "output_padding", "dilation")
    )
    if not any(padding) or set(stride) == {1}:
        return False
    wide = [d * (k - 1) + 1 for d, k in zip(dilation, kernel, strict=True)]
    if not any(beyond) and all(w - s == 2 * p for w, s, p in zip(wide, stride, padding, strict=True)):
        return False
    left = [max(0, q - p) for q, p in zip(beyond, padding, strict=True)]
    head = (values["input"], values["weight"], values["bias"], list(stride), [0] * rank, left)
    found = insert_call(node, node.target, *head, values["groups"], list(dilation))
    for axis, (p, m) in enumerate(zip(padding, after, strict=True), start=2):
        if p:
            found = insert_call(node, aten.slice.Tensor, found, axis, p, p + m)
    replace(node, found)
    return True
