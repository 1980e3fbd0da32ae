"""The target `qnn` of ghostdeploy: Qualcomm's Hexagon NPU (HTP), compiled by ONNX Runtime's QNN execution provider.

    int8   program.pt2 → onnx (float) → quantize-qnn → qnn

The NPU has no float that all chips share, so the graph is quantized without exception: gates, their sigmoids and the
output too, and the weights of a classifier have one scale.
"""

from ghostdeploy.target import Option, Recipe, Target
from ghostdeploy_qnn.chips import CHIPS

QNN = Target(
    name="qnn",
    summary="Snapdragon phones and PCs with a Hexagon NPU, through ONNX Runtime",
    parent="onnx",
    payload="model_ctx.onnx",
    files=("model_ctx.onnx", "compiled.json"),
    precisions=("int8",),
    recipe=Recipe(
        name="qnn",
        activations="uint8",
        quantize_bias=True,
        quantize_gates=True,
        one_scale=("Gemm", "MatMul"),
        op_types=(
            *("Conv", "ConvTranspose", "Gemm", "MatMul", "Relu", "Clip", "Sigmoid", "HardSigmoid", "HardSwish"),
            *("Add", "Sub", "Mul", "Concat", "MaxPool", "AveragePool", "GlobalAveragePool", "ReduceMean"),
            *("Slice", "Split", "Flatten", "Reshape", "Transpose", "Squeeze", "Unsqueeze", "Resize", "Softmax"),
        ),
    ),
    fixed_batch=True,
    environment=("ONNXRUNTIME", "ORT", "QNN"),
    device="device with a Hexagon NPU",
    simulator="payload",
    options=(Option(name="qnn_soc", choices=tuple(CHIPS), help="QNN: which chip, by its part number."),),
    exporter="ghostdeploy_qnn.exporter:QnnExporter",
    runtime="ghostdeploy_qnn.runtime:QnnRuntime",
    runtimes=("qnn_htp_simulator",),
    export_packages=("onnxruntime_qnn", "onnxruntime"),
    runtime_packages=("onnxruntime_qnn", "onnxruntime"),
)
