"""A target of ghostdeploy in a distribution of its own: payloads for the reference evaluator of the `onnx` package."""

from ghostdeploy.target import Int8Time, Recipe, Target

LAYERS = ("Conv", "ConvTranspose", "Gemm", "MatMul")

TOY = Target(
    name="toy",
    summary="anything that has NumPy, through the reference evaluator of the onnx package",
    parent="onnx",
    payload="model.toy",
    files=("model.toy",),
    precisions=("fp32", "int8"),
    exporter="ghostdeploy_toy.exporter:ToyExporter",
    runtime="ghostdeploy_toy.runtime:ToyRuntime",
    runtimes=("toy",),
    export_packages=("onnx",),
    runtime_packages=("onnx",),
    costs="ghostdeploy_toy.costs:read_costs",
    default_route="ghostdeploy_toy.default_route:DefaultToy",
    recipe=Recipe(
        name="toy",
        activations="uint8",
        saturation_safe=False,
        quantize_bias=False,
        int8_gates=True,
        quantize_shortcuts=False,
        final=False,
        op_types=LAYERS,
        bare_outputs=LAYERS,
    ),
    int8_time=Int8Time(without_dot_product=3.0, with_dot_product=3.0),
    environment=("TOY",),
)
