"""The zoo: counts as published, networks of any input size, builders without side effects."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch
from torch import nn

from ghostdeploy.errors import UsageError
from ghostdeploy.models import build, create_model, find, list_models
from ghostdeploy.models.count import count_macs, count_params
from ghostdeploy.models.ghostnet_v2 import ghostnet_v2
from ghostdeploy.models.zoo import ZOO
from tests.families import FAMILIES
from tests.published import rounds_to


def on_meta(entry):
    with torch.device("meta"):
        return build(entry, entry.num_classes)


def deploy_graph_on_meta(entry):
    """V3 folds to the V2 graph; the other families' parallel branches cost no convolution."""
    with torch.device("meta"):
        return ghostnet_v2(**entry.kwargs) if entry.family == "ghostnet_v3" else build(entry, entry.num_classes)


def folded_count(model):
    """Each BatchNorm turns into one bias per channel; an identity branch, or one behind a bias, into nothing."""
    count = count_params(model)
    for name, module in model.named_modules():
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
            count -= module.num_features * (2 if ".fusion_bn." in name or isinstance(module, nn.BatchNorm1d) else 1)
    return count


@pytest.mark.parametrize("name", ZOO)
def test_parameters_are_the_published_ones_to_the_printed_digit(name):
    assert rounds_to(count_params(on_meta(find(name))), find(name).params)


@pytest.mark.parametrize("name", ZOO)
def test_folded_parameters_are_the_stated_ones_to_the_printed_digit(name):
    assert rounds_to(folded_count(deploy_graph_on_meta(find(name))), find(name).folded_params)


@pytest.mark.parametrize("name", ZOO)
def test_macs_are_the_published_ones_to_the_printed_digit(name):
    entry = find(name)
    size = entry.preprocess.size
    assert rounds_to(count_macs(deploy_graph_on_meta(entry), (1, 3, size, size)), entry.macs)


def test_the_ghosted_networks_halve_their_bases():
    from ghostdeploy.models.plain_networks import VGG16, ResNet50

    with torch.device("meta"):
        resnet, vgg = ResNet50(), VGG16()
    ghost_resnet, ghost_vgg = on_meta(find("ghost_resnet50")), on_meta(find("ghost_vgg16"))

    # CVPR 2020: ResNet-50 25.6 M and 4.1 G; VGG-16 15 M and 313 M; Ghost-ResNet-50 2.2 G.
    assert (count_params(resnet), count_macs(resnet)) == (25_557_032, 4_089_184_256)
    assert (count_params(vgg), count_macs(vgg, (1, 3, 32, 32))) == (14_987_722, 313_463_808)
    assert (count_params(ghost_resnet), count_macs(ghost_resnet)) == (13_953_512, 2_151_023_360)
    assert (count_params(ghost_vgg), count_macs(ghost_vgg, (1, 3, 32, 32))) == (7_651_498, 158_109_696)
    assert "13.0 M" in find("ghost_resnet50").note  # the printed count, which this network does not have


def test_the_zoo_holds_every_size_of_every_family():
    assert len(ZOO) == 3 + 3 + 4 + 8 + 12 + 2
    assert all(name == entry.name for name, entry in ZOO.items())


def test_an_unknown_name_gets_the_closest_names():
    with pytest.raises(UsageError, match="ghostnet_10'") as caught:
        find("ghostnet_10")
    assert "ghostnet_100" in (caught.value.hint or "")


@pytest.mark.parametrize(
    ("pattern", "names"),
    [
        ("ghostnetv2_*", ["ghostnetv2_100", "ghostnetv2_130", "ghostnetv2_160"]),
        ("regnetx_03", ["g_ghost_regnetx_032"]),
        ("ghostnet_1?0", ["ghostnet_100", "ghostnet_130"]),
        ("nothing", []),
    ],
)
def test_patterns_select_names(pattern, names):
    assert [entry.name for entry in list_models(pattern)] == names


def test_importing_the_room_imports_no_torch():
    code = "import sys, ghostdeploy.models as m; m.list_models(); print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


@pytest.mark.parametrize("name", FAMILIES)
def test_any_input_size_and_batch_gives_one_row_of_finite_logits_per_image(name):
    model = create_model(name, num_classes=7)
    assert not model.training
    for shape in ((1, 3, 64, 64), (2, 3, 65, 83)):
        with torch.inference_mode():
            logits = model(torch.randn(shape, generator=torch.Generator().manual_seed(0)))
        assert logits.shape == (shape[0], 7)
        assert torch.isfinite(logits).all()
        assert 1e-3 < logits.abs().max() < 1e3


def test_equal_names_give_equal_weights_and_the_global_generator_is_left_alone():
    torch.manual_seed(1)
    before = torch.random.get_rng_state()
    first, second = create_model("ghostnet_050"), create_model("ghostnet_050")
    assert torch.equal(torch.random.get_rng_state(), before)
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))


def test_a_class_count_below_one_is_refused():
    with pytest.raises(UsageError, match="num_classes is 0, expected a whole number from 1"):
        create_model("ghostnet_050", num_classes=0)


def test_counting_matches_a_count_by_hand_and_leaves_the_module_alone():
    model = nn.Sequential(
        nn.Conv2d(3, 8, 3, 2, 1), nn.BatchNorm2d(8), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 5)
    )
    state = {key: value.clone() for key, value in model.state_dict().items()}

    macs = count_macs(model, (2, 3, 9, 9))

    assert macs == 2 * (5 * 5 * 8 * 3 * 9 + 8 * 5)
    assert count_params(model) == 8 * 27 + 8 + 16 + 45
    assert model.training
    assert all(torch.equal(value, state[key]) for key, value in model.state_dict().items())


@pytest.mark.filterwarnings("ignore:`isinstance.treespec, LeafSpec.` is deprecated:FutureWarning")
def test_counting_works_on_exported_graphs():
    model = create_model("g_ghost_regnetx_002", num_classes=10)
    graph = torch.export.export(model, (torch.zeros(1, 3, 64, 64),)).module()
    assert count_macs(graph, (1, 3, 64, 64)) == count_macs(model, (1, 3, 64, 64))
