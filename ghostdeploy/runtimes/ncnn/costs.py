"""Costs of an ncnn network: the file has no sizes of blobs, so they come from a run on one image of zeros."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ghostdeploy.layer_costs import FLOAT_BYTES, LayerCost, layer_cost
from ghostdeploy.runtimes.ncnn.engine import Network

if TYPE_CHECKING:
    from ghostdeploy.bundle.folder import Bundle
    from ghostdeploy.runtimes.ncnn.param import Layer

WEIGHTS = {
    "Convolution": 6,
    "ConvolutionDepthWise": 6,
    "Deconvolution": 6,
    "DeconvolutionDepthWise": 6,
    "InnerProduct": 2,
}
"""Kinds of layers with weights, and the parameter that counts them."""
INT8 = 8
"""Parameter of such a layer: not 0 where weights and data are INT8."""


def read_costs(bundle: Bundle, batch: int) -> list[LayerCost]:
    """Returns the costs of all layers with weights.

    Args:
        bundle: Holds both files.
        batch: Images per call.
    """
    payload = bundle.manifest.payload
    weights = bundle.read(payload.removesuffix(".param") + ".bin")
    return costs_of(Network(bundle.read(payload).decode("utf-8"), weights, threads=1, keep=True), batch)


def costs_of(network: Network, batch: int) -> list[LayerCost]:
    """Returns the costs of a network that was opened with `keep`."""
    layers = [layer for layer in network.layers if layer.kind in WEIGHTS]
    names = [name for layer in layers for name in (layer.inputs[0], layer.outputs[0])]
    shapes = dict(zip(names, (blob.shape for blob in network.run(network.zeros(), names)), strict=True))
    return [_cost(layer, shapes[layer.inputs[0]], shapes[layer.outputs[0]], batch) for layer in layers]


def _cost(layer: Layer, data: tuple[int, ...], output: tuple[int, ...], batch: int) -> LayerCost:
    count, size = layer.number(WEIGHTS[layer.kind]), 1 if layer.number(INT8) else FLOAT_BYTES
    transposed = layer.kind.startswith("Deconvolution")
    features = (data if transposed else output)[0] if layer.kind != "InnerProduct" else layer.number(0)
    return layer_cost(
        layer.name,
        weights=(features, count // max(1, features)),
        features=features,
        data=(batch, *data),
        output=(batch, *output),
        weight_size=size,
        data_size=size,
        transposed=transposed,
    )
