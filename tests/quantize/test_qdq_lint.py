"""The Q/DQ linter: clean graphs pass, and every rule is listed, explained and proven."""

from __future__ import annotations

from pathlib import Path

import onnx
import pytest

from ghostdeploy.deploy.quantize.qdq_lint import RULES, lint, rule_name
from tests.qdq_graphs import attention_network, found, g_ghost_network, ghost_network, insert_pair

NETWORKS = (ghost_network, g_ghost_network, attention_network)


@pytest.fixture
def ghost():
    return ghost_network()


@pytest.fixture
def g_ghost():
    return g_ghost_network()


@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize("profile", RULES)
def test_a_graph_that_obeys_the_rules_has_no_violation(network, profile):
    assert lint(network(), profile=profile) == ()


@pytest.mark.parametrize("network", NETWORKS)
def test_unsigned_activations_are_right_on_processors_and_wrong_on_gpus(network):
    model = network(integers="uint8")

    assert lint(model, profile="cpu") == ()
    assert {violation.rule for violation in lint(model)} == {"int8-signed", "zero-zero-point"}


def test_every_rule_has_a_test_that_plants_it():
    written = "".join(path.read_text() for path in Path(__file__).parent.glob("test_qdq_lint_*.py"))

    assert [name for rules in RULES.values() for name in map(rule_name, rules) if f'"{name}"' not in written] == []


def test_every_rule_says_where_it_comes_from():
    assert [rule for rules in RULES.values() for rule in rules if "(" not in rule.__doc__.splitlines()[0]] == []


def test_linting_leaves_the_model_as_it_was(ghost):
    before = ghost.SerializeToString(deterministic=True)
    lint(ghost)

    assert ghost.SerializeToString(deterministic=True) == before


def test_shapes_need_not_be_in_the_file(g_ghost):
    del g_ghost.graph.value_info[:]
    insert_pair(g_ghost, "add_merge", index=1)

    assert found(g_ghost) == [("merge-branch-float", "planted_q", "layer3.merge.4")]


def test_half_precision_beside_the_pairs_is_fine(ghost):
    from ghostdeploy.exporters.tensorrt.half import to_half

    assert lint(to_half(onnx.shape_inference.infer_shapes(ghost)).model) == ()
