"""What an ONNX pass is, and how it is proven.

A pass that computes (a *site* is one pattern that it replaced) hands over both sub-graphs with their float64 weights.
Both run in float64 on the activation that the site really gets: with a before and b after,

    error of a site = max |a − b| / max |a|

must stay below `FOLD_RELATIVE_ERROR`, as for the passes on PyTorch graphs. ONNX Runtime has no float64 convolution, so
the sites are run by the reference evaluator of the `onnx` package. A pass that only removes or moves nodes has no site:
the outputs of the whole graph must keep every bit.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from ghostdeploy.deploy.intake.onnx.graph import Graph


@dataclass(frozen=True, slots=True, kw_only=True)
class Site:
    """One pattern that a pass replaced."""

    source: str
    """The activation that both sub-graphs read; the pass left it alone."""
    output: str
    """What both write."""
    before: tuple[onnx.NodeProto, ...]
    after: tuple[onnx.NodeProto, ...]
    constants: dict[str, NDArray[np.float64]]
    """Weights of both."""


class OnnxPass(Protocol):
    """One exact rewriting of an ONNX graph."""

    name: str

    def run(self, graph: Graph) -> tuple[int, Sequence[Site]]:
        """Rewrites `graph` in place; returns the number of places changed, and the sites where weights changed."""
        ...


def site_error(site: Site, value: NDArray[np.float64], opset: int) -> float:
    """Returns the relative error of a site for one activation; infinity for another shape.

    Args:
        site: What was replaced.
        value: The activation.
        opset: Of the graph.
    """
    wanted, got = (_run(site, nodes, value, opset) for nodes in (site.before, site.after))
    if wanted.shape != got.shape:
        return np.inf
    largest = float(np.abs(wanted).max(initial=0.0))
    difference = float(np.abs(wanted - got).max(initial=0.0))
    error = difference / largest if largest > 0 else difference
    return error if np.isfinite(error) else np.inf


def _run(site: Site, nodes: tuple[onnx.NodeProto, ...], value: NDArray[np.float64], opset: int) -> NDArray[np.float64]:
    from onnx.reference import ReferenceEvaluator

    names = {name for node in nodes for name in node.input}
    graph = helper.make_graph(
        list(nodes),
        "site",
        [helper.make_tensor_value_info(site.source, TensorProto.DOUBLE, value.shape)],
        [helper.make_tensor_value_info(site.output, TensorProto.DOUBLE, None)],
        [numpy_helper.from_array(array, name) for name, array in site.constants.items() if name in names],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)])
    result: NDArray[np.float64] = ReferenceEvaluator(model).run(None, {site.source: value})[0]
    return result
