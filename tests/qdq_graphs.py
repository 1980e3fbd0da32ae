"""Small Q/DQ graphs that obey every rule, and the edits that break one."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from ghostdeploy.deploy.quantize.qdq_lint import lint

OPSET = 18
SAFE = 64
"""Integer weights up to here are safe in any pairing."""


class Network:
    """Writes a network layer by layer; a layer is named like its module, every other node by operator and number.

    Args:
        size: Height and width of the input.
        channels: Of the input.
        integers: `int8` with zero points 0, or `uint8` with zero points 128.
    """

    def __init__(self, *, size=16, channels=8, integers="int8"):
        self.nodes, self.constants, self.count = [], [], 0
        self.random = np.random.default_rng(0)
        self.zero = np.array(128 if integers == "uint8" else 0, integers)
        self.input = helper.make_tensor_value_info("input", TensorProto.FLOAT, ["batch", channels, size, size])

    def constant(self, name, array):
        self.constants.append(numpy_helper.from_array(np.asarray(array), name))
        return name

    def node(self, op_type, inputs, *, name=None, **attributes):
        self.count += 1
        name = name or f"{op_type.lower()}_{self.count}"
        self.nodes.append(helper.make_node(op_type, inputs, [f"{name}:0"], name=name, **attributes))
        return f"{name}:0"

    def pair(self, tensor, *, scale=0.05):
        """Returns the tensor behind Q/DQ."""
        self.count += 1
        stem = f"pair_{self.count}"
        parameters = [
            self.constant(f"{stem}_scale", np.float32(scale)),
            self.constant(f"{stem}_zero", self.zero),
        ]
        integers = self.node("QuantizeLinear", [tensor, *parameters], name=f"{stem}_q")
        return self.node("DequantizeLinear", [integers, *parameters], name=f"{stem}_dq")

    def weight(self, name, shape, *, axis, quantized):
        if not quantized:
            return self.constant(f"{name}.weight", self.random.normal(0, 0.1, shape).astype(np.float32))
        inputs = [
            self.constant(f"{name}.weight", self.random.integers(-SAFE, SAFE + 1, shape, dtype=np.int8)),
            self.constant(f"{name}.weight_scale", np.full(shape[axis], 0.01, np.float32)),
            self.constant(f"{name}.weight_zero", np.zeros(shape[axis], np.int8)),
        ]
        return self.node("DequantizeLinear", inputs, name=f"{name}.weight_dq", axis=axis)

    def conv(self, name, tensor, shape, *, quantized=True, **attributes):
        kernel = shape[2]
        weight = self.weight(name, shape, axis=0, quantized=quantized)
        bias = self.constant(f"{name}.bias", np.zeros(shape[0], np.float32))
        pads = attributes.pop("pads", [kernel // 2] * 4)
        return self.node("Conv", [tensor, weight, bias], name=name, pads=pads, **attributes)

    def gemm(self, name, tensor, shape):
        weight = self.weight(name, shape, axis=0, quantized=True)
        bias = self.constant(f"{name}.bias", np.zeros(shape[0], np.float32))
        return self.node("Gemm", [tensor, weight, bias], name=name, transB=1)

    def relu(self, tensor):
        return self.node("Relu", [tensor])

    def pool(self, tensor):
        self.count += 1
        return self.node("ReduceMean", [tensor, self.constant(f"axes_{self.count}", np.array([2, 3]))], keepdims=1)

    def model(self, tensor, *shape):
        output = helper.make_tensor_value_info(tensor, TensorProto.FLOAT, ["batch", *shape])
        graph = helper.make_graph(self.nodes, "network", [self.input], [output], self.constants)
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=10)
        onnx.checker.check_model(model, full_check=True)
        return onnx.shape_inference.infer_shapes(model, strict_mode=True, data_prop=True)


def ghost_module(net, name, tensor, channels, *, activation=None, quantize_output=True):
    """Concat(a, dw(a)), a = conv(x), with one scale on both halves and the output."""
    half, act = channels[1] // 2, activation or (lambda x: x)
    primary = net.pair(act(net.conv(f"{name}.primary_conv.0", tensor, (half, channels[0], 1, 1))))
    cheap = net.conv(f"{name}.cheap_operation.0", primary, (half, 1, 3, 3), group=half)
    joined = net.node("Concat", [primary, net.pair(act(cheap))], axis=1)
    return net.pair(joined) if quantize_output else joined


def ghost_network(**options):
    """A strided bottleneck with gate and projected shortcut, one with identity shortcut, and a classifier."""
    net = Network(**options)
    stem = net.relu(net.conv("conv_stem", net.pair("input"), (8, 8, 3, 3)))
    start = net.pair(stem)

    wide = ghost_module(net, "blocks.0.0.ghost1", start, (8, 16), activation=net.relu)
    strided = net.conv("blocks.0.0.conv_dw", wide, (16, 1, 3, 3), group=16, strides=[2, 2])
    reduced = net.relu(net.conv("blocks.0.0.se.conv_reduce", net.pool(strided), (4, 16, 1, 1), quantized=False))
    expanded = net.conv("blocks.0.0.se.conv_expand", reduced, (16, 4, 1, 1), quantized=False)
    gated = net.node("Mul", [strided, net.node("HardSigmoid", [expanded])])
    narrow = ghost_module(net, "blocks.0.0.ghost2", net.pair(gated), (16, 8))
    moved = net.conv("blocks.0.0.shortcut.0", start, (8, 1, 3, 3), group=8, strides=[2, 2])
    projected = net.conv("blocks.0.0.shortcut.2", net.pair(moved), (8, 8, 1, 1))
    block = net.pair(net.node("Add", [narrow, net.pair(projected)], name="add_projected"))

    wide = ghost_module(net, "blocks.1.0.ghost1", block, (8, 16), activation=net.relu)
    narrow = ghost_module(net, "blocks.1.0.ghost2", wide, (16, 8), quantize_output=False)
    block = net.pair(net.node("Add", [narrow, block], name="add_identity"))

    last = net.relu(net.conv("blocks.9.0.conv", block, (16, 8, 1, 1)))
    head = net.relu(net.conv("conv_head", net.pair(net.pool(last)), (32, 16, 1, 1)))
    flat = net.node("Flatten", [net.pair(head)])
    return net.model(net.gemm("classifier", net.pair(flat), (10, 32)), 10)


def g_ghost_network(**options):
    """A G-Ghost stage: base block, one block of the intrinsic half, merge of pooled maps, cheap half, end block."""
    net = Network(**options)
    start = net.pair(net.relu(net.conv("conv1", net.pair("input"), (16, 8, 3, 3))))
    bare = net.conv("layer3.base.conv3", start, (16, 16, 3, 3))
    shortcut = net.pair(net.conv("layer3.base.downsample.0", start, (16, 16, 1, 1)))
    base = net.pair(net.relu(net.node("Add", [bare, shortcut], name="add_base")))

    def half(first):
        steps = {"starts": [first], "ends": [first + 8], "axes": [1]}
        names = [net.constant(f"{key}_{first}", np.array(value)) for key, value in steps.items()]
        return net.pair(net.node("Slice", [base, *names]))

    intrinsic = half(0)
    inner = net.pair(net.relu(net.conv("layer3.layers.0.conv1", intrinsic, (8, 8, 1, 1))))
    inner = net.conv("layer3.layers.0.conv3", inner, (8, 8, 3, 3))
    inner = net.pair(net.relu(net.node("Add", [inner, intrinsic], name="add_inner")))

    pools = net.node("Concat", [net.pool(base), net.pool(inner)], axis=1)
    merge = net.relu(net.conv("layer3.merge.1", pools, (8, 24, 1, 1), quantized=False))
    merge = net.conv("layer3.merge.4", merge, (8, 8, 1, 1), quantized=False)
    cheap = net.conv("layer3.cheap.0", half(8), (8, 8, 1, 1))
    cheap = net.pair(net.relu(net.node("Add", [cheap, merge], name="add_merge")))

    joined = net.pair(net.node("Concat", [inner, cheap], axis=1))
    end = net.relu(net.node("Add", [net.conv("layer3.end.conv3", joined, (16, 16, 3, 3)), joined], name="add_end"))
    flat = net.node("Flatten", [net.pool(end)])
    return net.model(net.gemm("fc", net.pair(flat), (10, 16)), 10)


def attention_network(**options):
    """The first half of a GhostNetV2 block: a Ghost module times its decoupled fully connected attention."""
    net = Network(**options)
    start = net.pair(net.relu(net.conv("conv_stem", net.pair("input"), (8, 8, 3, 3))))
    wide = ghost_module(net, "blocks.2.0.ghost1", start, (8, 16), activation=net.relu)
    small = net.node("AveragePool", [start], kernel_shape=[2, 2], strides=[2, 2])
    small = net.pair(net.conv("blocks.2.0.ghost1.short_conv.0", net.pair(small), (16, 8, 1, 1)))
    rows = net.conv("blocks.2.0.ghost1.short_conv.2", small, (16, 1, 1, 5), group=16, pads=[0, 2, 0, 2])
    columns = net.conv("blocks.2.0.ghost1.short_conv.4", net.pair(rows), (16, 1, 5, 1), group=16, pads=[2, 0, 2, 0])
    scales = net.constant("scales", np.array([1, 1, 2, 2], np.float32))
    gate = net.node("Resize", [net.node("Sigmoid", [columns]), "", scales], mode="nearest")
    gated = net.pair(net.node("Mul", [wide, gate], name="mul_attention"))
    narrow = ghost_module(net, "blocks.2.0.ghost2", gated, (16, 8))
    return net.model(net.node("Add", [narrow, start], name="add_identity"), 8, 16, 16)


def found(model, profile="gpu"):
    """Returns (rule, node, module) of every violation."""
    return [(violation.rule, violation.node, violation.module) for violation in lint(model, profile=profile)]


def find(model, name):
    """Returns the node of a name."""
    return next(node for node in model.graph.node if node.name == name)


def producer(model, tensor):
    """Returns the node that writes a tensor."""
    return next(node for node in model.graph.node if tensor in node.output)


def quantizer_of(model, name, index=0):
    """Returns the QuantizeLinear whose pair stands before an input of a node."""
    return producer(model, producer(model, find(model, name).input[index]).input[0])


def bypass(model, name, index=0):
    """Lets a node read the bare tensor in front of the pair on one of its inputs; a pair nobody reads is removed."""
    node = find(model, name)
    dequantize = producer(model, node.input[index])
    quantize = producer(model, dequantize.input[0])
    node.input[index] = quantize.input[0]
    if not any(dequantize.output[0] in other.input for other in model.graph.node):
        model.graph.node.remove(dequantize)
        model.graph.node.remove(quantize)


def insert_pair(model, name, index=0, *, stem="planted"):
    """Puts a pair on one input of a node; returns the QuantizeLinear."""
    node = find(model, name)
    set_constant(model, f"{stem}_scale", np.float32(0.05))
    set_constant(model, f"{stem}_zero", np.int8(0))
    parameters = [f"{stem}_scale", f"{stem}_zero"]
    quantize = helper.make_node("QuantizeLinear", [node.input[index], *parameters], [f"{stem}_i"], name=f"{stem}_q")
    restore = helper.make_node("DequantizeLinear", [f"{stem}_i", *parameters], [f"{stem}_x"], name=f"{stem}_dq")
    node.input[index] = f"{stem}_x"
    place = list(model.graph.node).index(node)
    model.graph.node.insert(place, restore)
    model.graph.node.insert(place, quantize)
    return find(model, quantize.name)


def constant(model, name):
    """Returns the value of an initializer."""
    return numpy_helper.to_array(next(tensor for tensor in model.graph.initializer if tensor.name == name))


def set_constant(model, name, value):
    """Replaces or adds an initializer."""
    for tensor in model.graph.initializer:
        if tensor.name == name:
            model.graph.initializer.remove(tensor)
            break
    model.graph.initializer.append(numpy_helper.from_array(np.asarray(value), name))


def to_float(model, name):
    """Takes Q/DQ off the data and the weights of a layer."""
    bypass(model, name)
    node = find(model, name)
    restore = producer(model, node.input[1])
    weight, scale = (constant(model, tensor) for tensor in restore.input[:2])
    set_constant(model, restore.input[0], weight * scale.reshape(-1, *[1] * (weight.ndim - 1)))
    node.input[1] = restore.input[0]
    model.graph.node.remove(restore)
