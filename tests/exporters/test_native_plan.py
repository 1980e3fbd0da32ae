"""The plan: rings of rows, the arena, and what is fused."""

from __future__ import annotations

import numpy as np
import pytest

from tests.conftest import require

SIDE = 48


@pytest.fixture(autouse=True, scope="module")
def onnx_here():
    require("native")


@pytest.fixture(scope="module")
def plan_of():
    """A function: a graph of `native_networks` → its steps and their plan."""
    from ghostdeploy.exporters.native.ends import finished
    from ghostdeploy.exporters.native.operators import lower
    from ghostdeploy.exporters.native.plan import make_plan

    def planned(graph):
        steps, inputs, outputs = finished(lower(graph.finished()))
        return steps, make_plan(steps, inputs, outputs)

    return planned


def chain():
    """A stem, a Ghost module of 3 × 3, and a depthwise layer with stride 2, on a map too large for one pass."""
    from tests.native_networks import Graph

    graph = Graph(1)
    graph.size = graph.shape = (3, SIDE, SIDE)
    made, shape = graph.convolve(graph.name, graph.shape, 8, (1, 1))
    first, shape = graph.convolve(graph.node("Relu", [made]), shape, 12, (1, 1))
    cheap, _ = graph.convolve(first, shape, 12, (3, 3), group=12)
    joined = graph.node("Concat", [first, cheap], axis=1)
    graph.name, graph.shape = graph.convolve(joined, (24, SIDE, SIDE), 24, (3, 3), 2, 24)
    graph.random = np.random.default_rng(3)  # the end is pooled, and classified
    return graph


def test_what_only_a_group_reads_keeps_a_few_rows(plan_of):
    steps, plan = plan_of(chain())
    kept = {step.writes.root.name: plan.rows[step.writes.root] for step in steps if step.writes.root in plan.rings}

    assert len(kept) >= 2
    assert max(kept.values()) == 13  # 5 rows with stride 2 read 11, and the cheap operation 2 more
    assert plan.arena * 4 < 24 * SIDE * SIDE * 4  # less than the joined map alone


def test_there_is_no_step_that_concatenates_or_adds(plan_of):
    from tests.native_networks import Graph

    graph = Graph(1)
    graph.size = graph.shape = (16, 20, 20)
    first, shape = graph.convolve("input", graph.shape, 8, (1, 1))
    cheap, _ = graph.convolve(first, shape, 8, (3, 3), group=8)
    wide, _ = graph.convolve("input", graph.shape, 16, (1, 1))
    graph.name = graph.node("Add", [graph.node("Concat", [first, cheap], axis=1), wide])
    graph.shape = (16, 20, 20)
    steps, _ = plan_of(graph)

    assert not {"ADD", "COPY"} & {step.kind for step in steps}
    assert [step.kind for step in steps if step.added is not None] == ["POINTWISE", "DEPTHWISE"]


def test_shares_of_a_group_cover_every_row_once_where_it_leaves(plan_of):
    from ghostdeploy.exporters.native import plan as planning

    _, plan = plan_of(chain())
    for group in (one for one in plan.groups if not one.whole):
        height = group.steps[-1].writes.height
        for parts in range(1, planning.MOST_THREADS + 1):
            ends = [list(planning._passes(group, part, parts))[-1][-1] for part in range(parts)]
            begins = [planning._begins(group, part, parts)[-1] for part in range(parts)]

            assert begins == [0, *ends[:-1]]
            assert ends[-1] == height


def test_no_group_reads_what_it_makes_for_others():
    """Else only the rows that it reads itself would be made, and with threads some twice in one place (seed 4467)."""
    from ghostdeploy.exporters.native.ends import finished
    from ghostdeploy.exporters.native.operators import lower
    from ghostdeploy.exporters.native.plan import make_plan
    from tests.native_any import any_model

    shared = 0
    for seed in (*range(60), 4467):
        steps, inputs, outputs = finished(lower(any_model(seed)))
        for group in make_plan(steps, inputs, outputs).groups:
            outside = (step for step in steps if step not in group.steps)
            others = {one.root for step in outside for one in (*step.all_reads, *step.all_writes)}
            made = set()
            for step in group.steps:
                own = made & {one.root for one in step.all_reads}
                assert own & others == set(), seed
                shared += len(own)
                made |= {one.root for one in step.all_writes}
    assert shared > 100


def test_an_activation_of_a_flattened_tensor_is_not_that_of_the_tensor(tmp_path):
    """Both names are one map: what reads the one must not get what follows the other."""
    from onnx.reference import ReferenceEvaluator

    from tests.native_networks import Graph, compile_all, model_of

    graph = Graph(1)
    graph.size = graph.shape = (6, 9, 9)
    made, _ = graph.convolve(graph.node("GlobalAveragePool", ["input"]), (6, 1, 1), 7, (1, 1))
    other = graph.node("Sigmoid", [made])
    first = graph.node("Relu", [graph.node("Flatten", [made])])
    second = graph.node("Flatten", [other])
    model = model_of(graph, [(first, (1, 7)), (second, (1, 7))])
    (network,) = compile_all([model], tmp_path / "network")
    image = np.random.default_rng(0).standard_normal((1, 6, 9, 9)).astype(np.float32)

    for found, wanted in zip(network(image), ReferenceEvaluator(model).run(None, {"input": image}), strict=True):
        np.testing.assert_allclose(found, wanted, atol=1e-6)


def test_a_half_that_is_read_after_the_sum_keeps_its_values(tmp_path):
    """cat(p, c) + y: p and c become sums where nobody reads them any more."""
    from onnx.reference import ReferenceEvaluator

    from tests.native_networks import Graph, compile_all, model_of

    graph = Graph(1)
    graph.size = (8, 9, 9)
    halves = [graph.convolve("input", graph.size, 4, (3, 3))[0] for _ in range(2)]
    summed = graph.node("Add", [graph.node("Concat", halves, axis=1), "input"])
    later = [graph.node("GlobalAveragePool", [name]) for name in (summed, *halves)]
    flat = graph.node("Flatten", [graph.node("Concat", later, axis=1)])
    model = model_of(graph, [(flat, (1, 16))])
    (network,) = compile_all([model], tmp_path / "network")
    image = np.random.default_rng(0).standard_normal((1, 8, 9, 9)).astype(np.float32)

    (wanted,) = ReferenceEvaluator(model).run(None, {"input": image})

    np.testing.assert_allclose(network(image)[0], wanted, atol=1e-5)


@pytest.mark.parametrize(
    ("operator", "inputs", "attributes", "words"),
    [
        ("Softmax", [], {"axis": 1}, "native has no kernel for a softmax of maps at Softmax at .*"),
        ("Add", ["row"], {}, r"native takes constants per channel; n\d+ has \[1, 1, 1, 9\].*"),
        ("Sub", ["self"], {}, "native has no kernel for a difference of two tensors at .*"),
        ("Conv", ["self"], {}, r"native has no kernel with such operands for Conv at n\d+"),
        ("InstanceNormalization", ["scale", "scale"], {}, "native has no kernel for InstanceNormalization at .*"),
    ],
)
def test_what_has_no_kernel_is_refused_with_the_module_in_front_of_it(operator, inputs, attributes, words):
    from ghostdeploy.convert.base import RefusedError
    from ghostdeploy.exporters.native.operators import lower
    from tests.native_networks import Graph, model_of

    graph = Graph(1)
    graph.size = (8, 9, 9)
    made, _ = graph.convolve("input", graph.size, 8, (1, 1))
    graph.nodes[-1].name = "features.first"
    given = {
        "row": lambda: graph.constant(np.ones((1, 1, 1, 9))),
        "self": lambda: made,
        "scale": lambda: graph.constant(np.ones(8)),
    }
    last = graph.node(operator, [made, *(given[one]() for one in inputs)], **attributes)

    with pytest.raises(RefusedError, match=f"^{words}, behind the module features.first"):
        lower(model_of(graph, [(last, (1, 1, 1, 1) if operator == "Conv" else (1, 8, 9, 9))]))
