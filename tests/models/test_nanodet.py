"""NanoDet-Plus on GhostNet: what the public implementation computes, and its checkpoints load.

The stored output is that of RangiLyu/nanodet's `GhostNet`, `GhostPAN` and `NanoDetPlusHead` (1.0×, 96 channels, 80
classes, LeakyReLU) in eval mode, on weights that `fill` makes from keys and shapes.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from ghostdeploy.errors import CheckpointError
from ghostdeploy.models import create_model
from ghostdeploy.models.nanodet import NanoDetPlus, ghost_nanodet, nanodet_plus_ghost_100
from ghostdeploy.models.source import load_model
from tests.reference.fill import example, fill

REFERENCE = Path(__file__).parents[1] / "reference" / "detectors" / "nanodet_plus_ghost_100.npz"
BINS = "head.distribution_project.project"


@pytest.fixture(scope="module")
def expected():
    with np.load(REFERENCE) as file:
        return dict(file)


def test_keys_shapes_and_outputs_are_those_of_the_public_implementation(expected):
    model = nanodet_plus_ghost_100().eval()
    state = {key: value.numpy() for key, value in model.state_dict().items()}
    assert list(state) == [str(key) for key in expected["keys"]]
    assert [list(value.shape) for value in state.values()] == [json.loads(str(s)) for s in expected["shapes"]]
    assert state[BINS].tolist() == [0, 1, 2, 3, 4, 5, 6, 7]

    filled = fill(state, float(expected["gain"])) | {BINS: state[BINS]}
    model.load_state_dict({key: torch.from_numpy(np.asarray(value)) for key, value in filled.items()})

    for size in (320, 416):
        with torch.inference_mode():
            output = model(torch.from_numpy(example(size)))[0].numpy()
        wanted = expected[f"output_{size}"]
        assert len(output) == expected[f"rows_{size}"][-1] + 1
        assert np.abs(output[expected[f"rows_{size}"]] - wanted).max() <= 1e-4 * np.abs(wanted).max()


@pytest.mark.parametrize(("size", "points"), [((320, 320), 2125), ((416, 416), 3598), ((128, 160), 426)])
def test_points_are_those_of_all_levels(size, points):
    with torch.inference_mode():
        assert ghost_nanodet(3)(torch.zeros(2, 3, *size)).shape == (2, points, 3 + 32)


def lightning(state, seed):
    """Returns a checkpoint as the training code writes it: raw and averaged weights, with the auxiliary head."""
    rng = torch.Generator().manual_seed(seed)
    averaged = {key: torch.rand(value.shape, generator=rng) for key, value in state.items()}
    weights = {f"model.{key}": value for key, value in state.items()}
    weights |= {f"avg_model.{key}": value for key, value in averaged.items()}
    for model in ("model", "avg_model"):
        weights[f"{model}.aux_fpn.reduce_layers.0.conv.weight"] = torch.zeros(4, 4, 1, 1)
        weights[f"{model}.aux_head.gfl_cls.bias"] = torch.zeros(42)
    return {"epoch": 300, "state_dict": weights, "pytorch-lightning_version": "1.9.0"}, averaged


def test_a_training_checkpoint_loads_without_its_auxiliary_head(tmp_path):
    checkpoint, averaged = lightning(ghost_nanodet().state_dict(), seed=1)
    torch.save(checkpoint, tmp_path / "last.ckpt.pth")

    loaded = load_model("ghostdeploy.models.nanodet:ghost_nanodet", weights=tmp_path / "last.ckpt.pth")

    assert loaded.weights_key == "state_dict.avg_model"
    assert torch.equal(loaded.module.head.gfl_cls[0].weight, averaged["head.gfl_cls.0.weight"])


def test_stages_after_the_last_map_may_be_in_a_checkpoint(tmp_path):
    state = ghost_nanodet().state_dict()
    torch.save(state | {"backbone.blocks.9.0.conv.weight": torch.zeros(4, 4, 1, 1)}, tmp_path / "all.pth")

    assert load_model("ghostdeploy.models.nanodet:ghost_nanodet", weights=tmp_path / "all.pth").trained


def test_any_other_tensor_too_many_is_refused(tmp_path):
    torch.save(ghost_nanodet().state_dict() | {"extra.weight": torch.zeros(4)}, tmp_path / "more.pth")

    with pytest.raises(CheckpointError, match=r"extra\.weight"):
        load_model("ghostdeploy.models.nanodet:ghost_nanodet", weights=tmp_path / "more.pth")


def test_a_classifier_of_the_same_width_gives_the_backbone_its_weights():
    classifier, detector = create_model("ghostnet_050", num_classes=10), ghost_nanodet()

    detector.backbone.load_classifier(classifier.state_dict())

    with torch.inference_mode():
        image = torch.rand(1, 3, 64, 64)
        x = classifier.act1(classifier.bn1(classifier.conv_stem(image)))
        (*_, last) = detector.backbone.eval()(image)
        torch.testing.assert_close(last, classifier.blocks[:8](x))


def test_every_stage_of_the_backbone_is_used():
    assert len(ghost_nanodet().backbone.blocks) == 8
    assert len(NanoDetPlus(width=0.5, num_classes=1).backbone.blocks) == 10
