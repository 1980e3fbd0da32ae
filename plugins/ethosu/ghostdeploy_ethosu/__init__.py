"""The target `ethosu` of ghostdeploy: Arm's NPUs for microcontrollers, compiled by Vela.

    int8   program.pt2 → tflite (float) → quantize-ethosu → ethosu

The INT8 file has integer inputs and outputs, so that nothing is left for the processor beside the NPU. Vela's output
runs on an Ethos-U only; what runs here is the file that it was made from, see `runtime`.
"""

from ghostdeploy.target import Option, Recipe, Target
from ghostdeploy_ethosu.configuration import ACCELERATORS, AUTOMATIC, MEMORY_MODES, SYSTEMS

ETHOSU = Target(
    name="ethosu",
    summary="microcontrollers with an Arm Ethos-U, through Vela",
    parent="tflite",
    payload="model_vela.tflite",
    files=("model_vela.tflite", "model.tflite"),
    precisions=("int8",),
    recipe=Recipe(name="ethosu", activations="asymmetric int8", quantize_bias=True, final=True),
    quantizer="ghostdeploy_ethosu.quantizer:Quantizer",
    layout="nhwc",
    fixed_batch=True,
    environment=("LITERT", "TF", "TFLITE", "XNNPACK"),
    device="device with an Ethos-U",
    simulator="source",
    options=(
        Option(name="ethosu_accelerator", choices=ACCELERATORS, help="Ethos-U: which one, by its MACs per cycle."),
        Option(
            name="ethosu_system",
            choices=(AUTOMATIC, *SYSTEMS),
            help="Ethos-U: clock and memories, a system configuration of Vela; estimates depend on it several times "
            "over.",
        ),
        Option(
            name="ethosu_memory",
            choices=(AUTOMATIC, *MEMORY_MODES),
            help="Ethos-U: what lies in which memory, a memory mode of Vela.",
        ),
    ),
    check_settings="ghostdeploy_ethosu.configuration:check_settings",
    exporter="ghostdeploy_ethosu.exporter:EthosUExporter",
    runtime="ghostdeploy_ethosu.runtime:EthosURuntime",
    runtimes=("litert_reference",),
    export_packages=("ethosu",),
    runtime_packages=("ai_edge_litert",),
)
