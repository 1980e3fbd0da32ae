"""What the layers of a payload cost, for the roofline of `bench`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import onnx

from ghostdeploy.layer_costs import LayerCost, layer_cost
from ghostdeploy_toy import payload

if TYPE_CHECKING:
    from ghostdeploy.bundle.folder import Bundle


def read_costs(bundle: Bundle, batch: int) -> list[LayerCost]:
    """Returns the costs of the convolutions with constant weights."""
    model = onnx.shape_inference.infer_shapes(payload.read(bundle.read(bundle.manifest.payload)), data_prop=True)
    shapes = {tensor.name: list(tensor.dims) for tensor in model.graph.initializer}
    for value in (*model.graph.input, *model.graph.value_info, *model.graph.output):
        shapes[value.name] = [size.dim_value or batch for size in value.type.tensor_type.shape.dim]
    return [
        layer_cost(
            node.name,
            weights=shapes[node.input[1]],
            features=shapes[node.input[1]][0],
            data=shapes[node.input[0]],
            output=shapes[node.output[0]],
            weight_size=4,
            data_size=4,
            transposed=False,
        )
        for node in model.graph.node
        if node.op_type == "Conv" and node.input[1] in shapes
    ]
