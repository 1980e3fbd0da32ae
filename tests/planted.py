"""Faults planted in the payload of a finished bundle: one layer's weights, bias or scale are wrong.

The bundle is a copy, its manifest lists the new hashes: to everything but a diagnosis it looks whole. A fault changes
the numbers that the file stores, whatever they are: floats, half precision, or integers with scales.
"""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
import onnx
from onnx import numpy_helper

from ghostdeploy.bundle import folder as bundles
from ghostdeploy.bundle import writing
from ghostdeploy.bundle.manifest import encode
from ghostdeploy.exporters.native import attestation, source
from ghostdeploy.exporters.native.steps import STRIP
from ghostdeploy.exporters.ncnn import weights as ncnn_weights
from ghostdeploy.exporters.tflite import file as tf
from ghostdeploy.machine import architecture, cpu_flags
from ghostdeploy.runtimes.native import program
from ghostdeploy.runtimes.native.library import Library
from ghostdeploy.runtimes.ncnn import param

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from numpy.typing import NDArray

    Fault = Callable[[NDArray[Any]], NDArray[Any]]

KINDS = ("scaled", "permuted", "shifted", "zeroed")


def plant(bundle: Path, copy: Path, module: str, kind: str) -> Path:
    """Returns a copy of a bundle in which one layer is wrong.

    Args:
        bundle: Any finished bundle.
        copy: Folder to make.
        module: PyTorch name of the layer.
        kind: `scaled` weights (by 1.5), `permuted` output channels, `shifted` bias, `zeroed` half of the weights.
    """
    shutil.copytree(bundle, copy)
    opened = bundles.open_bundle(copy)
    _PLANTERS[opened.manifest.target](copy / opened.manifest.payload, module, kind)
    files = tuple(writing.describe_file(copy, record.path) for record in opened.manifest.files)
    (copy / bundles.MANIFEST).write_bytes(encode(msgspec.structs.replace(opened.manifest, files=files)))
    bundles.open_bundle(copy)
    return copy


def _changed(values: NDArray[Any], kind: str, axis: int = 0) -> NDArray[Any]:
    """Returns wrong weights, or scales; output channels are on `axis`."""
    if kind == "scaled":
        return (values * 1.5).astype(values.dtype)
    if kind == "zeroed":
        half = np.moveaxis(np.array(values), axis, 0)
        half[: len(half) // 2] = 0
        return np.ascontiguousarray(np.moveaxis(half, 0, axis))
    assert kind == "permuted"
    return np.ascontiguousarray(np.roll(values, 1, axis=axis))


def _shifted(bias: NDArray[Any], step: float = 1.0) -> NDArray[Any]:
    """Returns a wrong bias: each value 0.7 more, or as many steps as that is."""
    return (bias + np.asarray(0.7 / step)).round(0 if bias.dtype.kind == "i" else 7).astype(bias.dtype)


def _onnx(path: Path, module: str, kind: str) -> None:
    model = onnx.load(path)
    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    makers = {name: node for node in model.graph.node for name in node.output}
    node = next(node for node in model.graph.node if node.name == module)
    name = node.input[2 if kind == "shifted" else 1]
    chain = []
    while name not in constants:  # Q/DQ, or a transposition
        chain.append(makers[name])
        name = makers[name].input[0]
    restored = next((one for one in chain if one.op_type == "DequantizeLinear"), None)
    if restored is not None and kind == "scaled":
        name = restored.input[1]
    values = numpy_helper.to_array(constants[name])
    if kind == "shifted":
        step = 1.0 if restored is None else numpy_helper.to_array(constants[restored.input[1]])
        new = _shifted(values, step)
    else:
        axis = 1 if node.op_type == "MatMul" else 0
        new = _changed(values, kind, axis if values.ndim > 1 else 0)
    constants[name].CopyFrom(numpy_helper.from_array(new, name))
    onnx.save(model, path)


def _openvino(path: Path, module: str, kind: str) -> None:
    import openvino
    from openvino import opset15

    core = openvino.Core()
    model = core.read_model(path)
    names = (module, f"{module}/WithoutBiases")
    ops = (op for op in model.get_ordered_ops() if op.get_type_name() != "Constant")
    layer = next(op for op in ops if op.get_friendly_name() in names)
    node = layer.input_value(1).get_node()
    if kind == "shifted":
        add = next(iter(layer.output(0).get_target_inputs())).get_node()
        assert add.get_type_name() == "Add"
        node = add.input_value(1).get_node()
    chain = [node]
    while chain[-1].get_type_name() != "Constant":
        chain.append(chain[-1].input_value(0).get_node())
    stored, restored = chain[-1], [one for one in chain if one.get_type_name() == "Multiply"]
    if kind == "scaled" and restored:
        stored = restored[0].input_value(1).get_node()
    values = np.array(stored.get_data())
    axis = 1 if "MatMul" in layer.get_type_name() and not layer.get_attributes().get("transpose_b") else 0
    new = _shifted(values) if kind == "shifted" else _changed(values, kind, axis)
    constant = opset15.constant(new)
    stored.output(0).replace(constant.output(0))
    data = path.with_suffix(".new.xml")
    openvino.save_model(model, data, compress_to_fp16=False)
    del model, stored, node, chain, restored, layer
    data.replace(path)
    data.with_suffix(".bin").replace(path.with_suffix(".bin"))


def _tflite(path: Path, module: str, kind: str) -> None:
    model = tf.read(path.read_bytes())
    sources = {int(op.outputs[0]): int(op.inputs[0]) for k, op in tf.operators(model) if k == "DEQUANTIZE"}
    for name, operator in tf.operators(model):
        if name not in tf.WEIGHTED:
            continue
        place = int(operator.inputs[1])
        stored = sources.get(place, place)
        if tf.module_name(model, operator, stored) == module:
            break
    tensor = tf.tensor(model, operator.inputs[2] if kind == "shifted" else stored)
    scale = None if tensor.quantization is None else tensor.quantization.scale
    if kind == "scaled" and scale is not None and len(scale):
        tensor.quantization.scale = [one * 1.5 for one in scale]
    else:
        values = np.array(tf.constant(model, operator.inputs[2] if kind == "shifted" else stored))
        step = 1.0 if scale is None or not len(scale) else np.asarray(scale)
        axis = 3 if name == "DEPTHWISE_CONV_2D" else 0
        new = _shifted(values, step) if kind == "shifted" else _changed(values, kind, axis)
        model.buffers[tensor.buffer].data = np.frombuffer(new.tobytes(), np.uint8)
    path.write_bytes(tf.pack(model))


def _ncnn(path: Path, module: str, kind: str) -> None:
    layers, weights = param.parse(path.read_text()), path.with_suffix(".bin")
    arrays = ncnn_weights.unpack(layers, weights.read_bytes())
    place = next(index for index, layer in enumerate(layers) if layer.name == module)
    one = arrays[place]
    values, plain = np.array(one.weights), [np.array(array) for array in one.plain]
    bias = layers[place].number(1 if layers[place].kind == "InnerProduct" else 5)
    features = layers[place].number(0)
    if kind == "shifted":
        assert bias
        plain[0] = _shifted(plain[0])
    elif kind == "scaled" and values.dtype == np.int8:  # its scale is a factor
        plain[1] = plain[1] / np.float32(1.5)
    else:
        values = _changed(values.reshape(features, -1), kind).reshape(-1)
    arrays[place] = ncnn_weights.Arrays(values, tuple(plain))
    weights.write_bytes(b"".join(array.packed() for array in arrays))


def _native(path: Path, module: str, kind: str) -> None:
    plan = program.read(path.read_bytes())
    level = program.chosen(plan.libraries, architecture(), cpu_flags())
    file = path.with_name(program.WEIGHTS)
    library = Library((path.parent / plan.libraries[level]).read_bytes(), file.read_bytes(), plan.identity)
    table = dict(zip((one.writes for one in plan.steps), attestation.table(library), strict=True))
    library.close()
    step = next(one for one in plan.steps if one.name == module and one.bits)
    told, place = table[step.writes], table[step.scaled_by or step.writes].weights
    weights = np.frombuffer(bytearray(file.read_bytes()), np.float32)
    if step.data_bits == 8:
        maps = {one.name: one for one in plan.maps}
        change = _native_depthwise if step.kind == "depthwise" else _native_integers
        change(weights, told, kind, maps[step.reads[0]].zero, maps[step.writes].scale or 1.0)
    elif kind == "shifted":
        bias = weights[told.bias :][: told.channels]
        bias[:] = _shifted(bias)
    elif told.groups == told.channels:
        values = weights[place:][: told.kernel_height * told.kernel_width * told.channels]
        values[:] = _changed(values.reshape(-1, told.channels), kind, 1).ravel()
    else:
        inputs = told.in_channels * told.kernel_height * told.kernel_width
        values = weights[place:][: -(-told.channels // STRIP) * STRIP * inputs]
        plain = values.reshape(-1, inputs, STRIP).swapaxes(1, 2).reshape(-1, inputs)[: told.channels]
        values[:] = source.strips(_changed(plain, kind)).ravel()
    file.write_bytes(weights.tobytes())


def _native_depthwise(weights: NDArray[Any], told: attestation.Told, kind: str, _: int, step: float) -> None:
    """Changes floats that hold integers."""
    bias, factor = (weights[told.bias + skip :][: told.channels] for skip in (0, _padded(told.channels)))
    taps = weights[told.weights :][: told.kernel_height * told.kernel_width * told.channels].reshape(-1, told.channels)
    if kind == "scaled":
        factor *= 1.5
    elif kind == "shifted":
        bias += np.rint(0.7 / (factor * step))
    else:
        taps[:] = _changed(taps, kind, 1)


def _native_integers(weights: NDArray[Any], told: attestation.Told, kind: str, zero: int, step: float) -> None:
    """Changes words of four weights; bias, sums of weights and factors lie behind each other."""
    count = told.channels // told.groups
    padded, words = (
        told.groups * _padded(count),
        -(-told.in_channels // told.groups * told.kernel_height * told.kernel_width // 4),
    )
    outputs = (np.arange(told.groups)[:, None] * _padded(count) + np.arange(count)).ravel()
    whole = weights.view(np.int32)
    bias, sums = (whole[told.bias + skip * padded :][:padded] for skip in (0, 1))
    factor = weights[told.bias + 2 * padded :][:padded]
    if kind == "scaled":
        factor *= 1.5
    elif kind == "shifted":
        bias[outputs] += np.rint(0.7 / (factor[outputs] * step)).astype(np.int32)
    else:
        stored = weights[told.weights :][: padded * words].view(np.int8).reshape(-1, words, STRIP, 4)
        plain = stored.swapaxes(1, 2).reshape(padded, -1).copy()
        plain[outputs] = _changed(plain[outputs], kind)
        stored[:] = plain.reshape(-1, STRIP, words, 4).swapaxes(1, 2)
        bias += zero * (sums - plain.sum(1, dtype=np.int32))
        sums[:] = plain.sum(1, dtype=np.int32)


def _padded(channels: int) -> int:
    return -(-channels // STRIP) * STRIP


_PLANTERS = {"onnx": _onnx, "tensorrt": _onnx, "openvino": _openvino, "tflite": _tflite, "ncnn": _ncnn,
             "native": _native}  # fmt: skip
"""By target: changes the payload in place."""
