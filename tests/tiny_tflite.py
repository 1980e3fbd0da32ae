"""The tiny network of `bundles` as TFLite: converted by the package's exporter, quantized by its writer.

All float graphs are converted once per test run, in one process of their own: the converter imports JAX, which must not
come into a test process. What follows from them is quick and happens here.
"""

from __future__ import annotations

import os
import subprocess
import sys
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tests.shared import locked

if TYPE_CHECKING:
    import onnx
    from numpy.typing import NDArray

    from ghostdeploy.convert.base import About, Written
    from tests.bundles import Tiny

    Arrays = dict[str, NDArray]

PAYLOAD = "model.tflite"
CALIBRATION_IMAGES = 256


@dataclass(frozen=True)
class Variant:
    """What a float graph depends on."""

    batch: int
    pixels: bool
    side: bool

    def __str__(self) -> str:
        return f"{self.batch}{'-pixels' * self.pixels}{'-side' * self.side}"


VARIANTS = [Variant(batch, *kind) for batch in (1, 3) for kind in ((False, False), (True, False), (False, True))]


def floating(tiny: Tiny) -> bytes:
    """Returns the float file, from a folder that holds those of all variants afterwards."""
    wanted = Variant(tiny.batch, tiny.preprocess.takes_pixels, tiny.side)
    with locked(Path(os.environ["GHOSTDEPLOY_CACHE"]) / "tiny") as folder:
        if not (folder / str(VARIANTS[-1]) / PAYLOAD).exists():
            command = [sys.executable, "-m", "tests.tiny_tflite", str(folder)]
            done = subprocess.run(command, cwd=Path(__file__).parents[1], capture_output=True, text=True, check=False)
            assert done.returncode == 0, done.stdout + done.stderr
        return (folder / str(wanted) / PAYLOAD).read_bytes()


def write(data: bytes, folder: Path, precision: str, tiny: Tiny) -> Written:
    """Writes a payload of floating-point arithmetic, and says what it wrote as the exporter does."""
    from ghostdeploy.convert.base import Written
    from ghostdeploy.exporters.tflite import file as tflite_file
    from ghostdeploy.exporters.tflite import weights as tflite_weights
    from ghostdeploy.exporters.tflite.read_back import read_precision

    model, scheme = tflite_file.read(data), None
    if precision in tflite_weights.COMPRESSED:
        model, scheme = tflite_weights.compress(model, precision)
    return Written(precision=read_precision(_store(model, folder, tiny)), scheme=scheme)


def write_int8(data: bytes, folder: Path, tiny: Tiny) -> Written:
    """Writes the INT8 payload; its ranges are the extremes of some more examples."""
    from ghostdeploy.convert.base import Written
    from ghostdeploy.deploy.quantize.shared_scales import merge
    from ghostdeploy.exporters.tflite import file as tflite_file
    from ghostdeploy.exporters.tflite.quantize import writer
    from ghostdeploy.exporters.tflite.quantize.graph import TFLiteGraph
    from ghostdeploy.exporters.tflite.read_back import read_precision

    graph = TFLiteGraph(tflite_file.read(data))
    names = graph.activations()
    found = run(data, tiny.example(CALIBRATION_IMAGES, seed=3), names)
    ranges = {}
    for group in merge([*graph.shared_scales(), *((name,) for name in names)]):
        low, high = (getattr(np, end)([getattr(found[name], end)() for name in group]) for end in ("min", "max"))
        ranges |= dict.fromkeys(group, (min(0.0, float(low)), max(0.0, float(high))))
    model = writer.write(data, ranges, (), integer_io=False)
    tflite_file.drop_repeated_names(model)
    return Written(precision=read_precision(_store(model, folder, tiny)))


def simulate(data: bytes, inputs: Arrays) -> Arrays:
    """Returns what an INT8 file says in float arithmetic."""
    from ghostdeploy.exporters.tflite import file as tflite_file
    from ghostdeploy.exporters.tflite.quantize.float_simulation import in_float

    return run(tflite_file.pack(in_float(tflite_file.read(data))), inputs)


def run(data: bytes, inputs: Arrays, tensors: list[str] | None = None) -> Arrays:
    """Runs a file with any number of inputs, kernel by kernel.

    Args:
        data: The file.
        inputs: By name; they are fed in pieces of the file's batch and filled up.
        tensors: What to return; None returns the outputs.
    """
    from ai_edge_litert.interpreter import Interpreter, OpResolverType

    from ghostdeploy.batches import filled

    plain = OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # it says that keeping all tensors takes memory
        engine = Interpreter(
            model_content=data,
            experimental_op_resolver_type=plain,
            experimental_preserve_all_tensors=tensors is not None,
        )
    engine.allocate_tensors()
    ports = {detail["name"]: detail for detail in engine.get_input_details()}
    details = engine.get_output_details() if tensors is None else engine.get_tensor_details()
    wanted = [detail for detail in details if tensors is None or detail["name"] in tensors]
    size = int(next(iter(ports.values()))["shape"][0])
    found: dict[str, list[NDArray[Any]]] = {detail["name"]: [] for detail in wanted}
    images = len(next(iter(inputs.values())))
    for start in range(0, images, size):
        for name, array in inputs.items():
            engine.set_tensor(ports[name]["index"], filled(array[start : start + size], size))
        engine.invoke()
        for detail in wanted:
            found[detail["name"]].append(engine.get_tensor(detail["index"])[: images - start])
    return {name: np.concatenate(parts) for name, parts in found.items()}


def _store(model: Any, folder: Path, tiny: Tiny) -> Path:
    from ghostdeploy.exporters.tflite import file as tflite_file
    from ghostdeploy.exporters.tflite import metadata as tflite_metadata

    tflite_metadata.describe(model, _about(tiny), version="0")
    tflite_file.drop_unused(model)
    path = folder / PAYLOAD
    path.write_bytes(tflite_metadata.append_labels(tflite_file.pack(model), _about(tiny)))
    return path


def _about(tiny: Tiny) -> About:
    from ghostdeploy.convert.base import About
    from tests.bundles import LABELS

    return About(name="tiny", labels=LABELS, preprocess=tiny.preprocess)


def main(root: Path) -> None:
    """Converts every variant into a folder of its own."""
    import torch

    from ghostdeploy.convert.base import ExportJob
    from ghostdeploy.exporters.tflite.exporter import TFLiteExporter
    from tests.bundles import Tiny, network

    for variant in VARIANTS:
        dtype = "uint8" if variant.pixels else "float32"
        tiny = Tiny(batch=variant.batch, side=variant.side, layout="nhwc", dtype=dtype)
        folder = root / str(variant)
        folder.mkdir(exist_ok=True)
        module, example = _module(network(tiny), tiny)
        torch.export.save(torch.export.export(module, example), folder / "program.pt2")
        TFLiteExporter().export(
            ExportJob(
                source=str(folder / "program.pt2"),
                folder=str(folder),
                result="",
                precision="fp32",
                input_names=tuple(spec.name for spec in tiny.inputs),
                output_names=tuple(spec.name for spec in tiny.outputs),
                dynamic_batch=False,
                modules=("first", "depthwise", "classifier", "mix"),
                about=_about(tiny),
                channels_last=not variant.pixels,
            )
        )


def _module(model: onnx.ModelProto, tiny: Tiny) -> Any:
    """Returns the network in PyTorch with the weights of the ONNX one, and example inputs as an export has them."""
    import torch
    from onnx import numpy_helper
    from torch import nn

    from ghostdeploy.deploy.fold.program import PixelInput
    from ghostdeploy.preprocess import ORDERS

    values = {one.name: torch.from_numpy(numpy_helper.to_array(one).copy()) for one in model.graph.initializer}

    class Network(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first = nn.Conv2d(3, 8, 3, stride=2, padding=1, bias=False)
            self.depthwise = nn.Conv2d(8, 8, 3, padding=1, groups=8, bias=False)
            self.classifier = nn.Linear(8, len(values["bias"]))
            if tiny.side:
                self.mix = nn.Linear(4, len(values["bias"]), bias=False)

        def forward(self, image: torch.Tensor, side: torch.Tensor | None = None) -> Any:
            image = torch.relu(self.depthwise(torch.relu(self.first(image))))
            features = image.mean((2, 3))
            logits = self.classifier(features)
            return logits if side is None else (logits + self.mix(side), features)

    module = Network().eval()
    weights = {f"{name}.weight": values[name] for name in ("first", "depthwise", "classifier")}
    weights |= {"mix.weight": values["mix"].T} if tiny.side else {}
    module.load_state_dict({**weights, "classifier.bias": values["bias"]})
    arrays = tiny.example(tiny.batch)
    if tiny.preprocess.takes_pixels:
        return PixelInput(module, tiny.preprocess), (torch.from_numpy(arrays["input"]),)
    arrays["input"] = np.ascontiguousarray(arrays["input"].transpose(ORDERS["nchw"]))
    return module, tuple(torch.from_numpy(array) for array in arrays.values())


if __name__ == "__main__":
    main(Path(sys.argv[1]))
