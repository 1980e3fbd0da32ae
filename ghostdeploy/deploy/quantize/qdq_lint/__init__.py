"""The rules for Q/DQ graphs, and their linter.

`lint` runs the rules of a profile over an ONNX graph and names each violation by rule, node and PyTorch module. A rule
is one function of `parameters`, `placement` or `ghost`: it takes the indexed graph and yields (node, what was found and
what was expected). Its name is the rule's, its docstring gives the source of the rule, and `RULES` lists
where it applies.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from ghostdeploy.bundle.manifest import Record
from ghostdeploy.deploy.quantize.qdq_lint import ghost, parameters, placement
from ghostdeploy.deploy.quantize.qdq_lint.graph import QdqGraph

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import onnx

    from ghostdeploy.target import Recipe

    Rule = Callable[[QdqGraph], Iterator[tuple[onnx.NodeProto, str]]]

Profile = Literal["gpu", "cpu", "wide"]

_EVERYWHERE: tuple[Rule, ...] = (
    parameters.positive_finite_scale,
    parameters.pair_agrees,
    parameters.per_channel_weight_axis_0,
    placement.no_dangling_qdq,
    placement.no_double_qdq,
    ghost.concat_scales_equal,
    ghost.ghost_halves_same_precision,
)
RULES: dict[Profile, tuple[Rule, ...]] = {
    "gpu": (
        *_EVERYWHERE,
        parameters.zero_zero_point,
        parameters.int8_signed,
        parameters.per_tensor_activation,
        parameters.bias_not_quantized,
        placement.weighted_inputs_both,
        placement.output_not_quantized,
        placement.qdq_can_fuse,
        ghost.shortcut_quantized,
        ghost.se_gate_float,
        ghost.attention_gate_float,
        ghost.merge_branch_float,
    ),
    "cpu": (*_EVERYWHERE, parameters.saturation_safe),
    "wide": _EVERYWHERE,
}


class Violation(Record, frozen=True, kw_only=True):
    """One rule broken at one node."""

    rule: str
    """Kebab-case name."""
    node: str
    """ONNX node."""
    module: str
    """PyTorch module of the node, or of the layer nearest to it."""
    message: str
    """One sentence: what was found, what was expected."""


def lint(model: onnx.ModelProto, *, profile: Profile = "gpu") -> tuple[Violation, ...]:
    """Returns all violations, rule by rule, in graph order.

    Args:
        model: A Q/DQ graph whose layers are named by their PyTorch modules; read, not changed.
        profile: `gpu`: NVIDIA's rules for explicit quantization. `cpu`: what ONNX Runtime and OpenVINO need, and
            weights that are safe on processors without dot-product instructions. `wide`: the same for kernels that add
            products in 32 bits on every processor, which any weights are safe in.
    """
    graph = QdqGraph(model)
    return tuple(
        Violation(rule=rule_name(rule), node=node.name, module=graph.module_of(node), message=message)
        for rule in RULES[profile]
        for node, message in rule(graph)
    )


def profile_of(recipe: Recipe) -> Profile:
    """Returns the profile for the graphs of a recipe."""
    if recipe.symmetric:
        return "gpu"
    return "cpu" if recipe.saturation_safe else "wide"


def rule_name(rule: Rule) -> str:
    """Returns the kebab-case name of a rule."""
    return rule.__name__.replace("_", "-")
