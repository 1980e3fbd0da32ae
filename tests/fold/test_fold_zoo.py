"""Every zoo model folds exactly, and what is left is the published deploy form."""

from __future__ import annotations

import pytest
import torch

from ghostdeploy.deploy.fold.fold import fold
from ghostdeploy.deploy.fold.passes import FOLDS
from ghostdeploy.deploy.prove.tolerance import FOLD_RELATIVE_ERROR
from ghostdeploy.models import create_model, find, list_models
from ghostdeploy.models.count import count_macs, count_params
from tests.folding import count_ops, image, randomize, sites
from tests.further import further
from tests.published import rounds_to

# Copying any torch.export graph, which count_macs does, makes torch warn about a class of its own.
pytestmark = pytest.mark.filterwarnings(r"ignore:.*isinstance\(treespec, LeafSpec\):FutureWarning")

ENTRIES = {entry.name: entry for entry in list_models()}
AT_224 = ("ghostnet_050", "ghostnetv2_100", "ghostnetv3_050", "repghostnet_050", "g_ghost_regnetx_002")
"""One width per family at the published size, the first in `make test`; all others at a small odd one."""
SMALL = ("repghostnet_050", "g_ghost_regnetx_002", "ghost_resnet50", "ghost_vgg16")
"""With the first above and the two of the test at the end, every family."""


def fold_entry(name, size):
    model = randomize(create_model(name))
    graph, certificate = fold(model, image(1, 3, size, size))
    return graph, certificate


def assert_deploy_form(name, graph, certificate):
    operators = count_ops(graph)
    assert [record.name for record in certificate.passes] == list(FOLDS)
    assert all(record.max_relative_error <= FOLD_RELATIVE_ERROR for record in certificate.passes)
    assert not {"batch_norm", "dropout", "clone", "detach", "contiguous", "to"} & set(operators)
    assert rounds_to(count_params(graph), find(name).folded_params)
    assert {parameter.dtype for parameter in graph.parameters()} == {torch.float32}
    assert not list(graph.buffers())


@pytest.mark.parametrize("name", further(AT_224, usual=AT_224[:1]))
def test_one_width_per_family_folds_exactly_at_the_published_size(name):
    graph, certificate = fold_entry(name, 224)
    assert_deploy_form(name, graph, certificate)
    assert rounds_to(count_macs(graph, (1, 3, 224, 224)), find(name).macs)


@pytest.mark.parametrize("name", further([name for name in ENTRIES if name != AT_224[0]], usual=SMALL))
def test_every_other_width_folds_exactly_at_a_small_odd_size(name):
    size = 33 if find(name).preprocess.size < 64 else 65
    assert_deploy_form(name, *fold_entry(name, size))


def test_v3_in_training_form_becomes_the_v2_graph():
    graph, certificate = fold_entry("ghostnetv3_100", 65)
    expected, of_v2 = fold_entry("ghostnetv2_100", 65)
    assert_deploy_form("ghostnetv3_100", graph, certificate)
    assert_deploy_form("ghostnetv2_100", expected, of_v2)
    assert count_ops(graph) == count_ops(expected)
    assert sorted(p.shape for p in graph.parameters()) == sorted(p.shape for p in expected.parameters())
    assert sites(certificate, "ReparameterizeBranches") == 68
