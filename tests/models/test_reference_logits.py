"""Our networks compute what the public implementations compute.

The stored logits come from timm (GhostNet V1 to V3, RepGhost, in training form) and from the authors' code
(G-Ghost-RegNetX), in eval mode, on weights that `fill` makes from the keys and shapes alone.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from ghostdeploy.models import create_model
from tests.reference.fill import example, fill

NAMES = sorted(path.stem for path in (Path(__file__).parents[1] / "reference").glob("*.npz"))


def reference(name):
    with np.load(Path(__file__).parents[1] / "reference" / f"{name}.npz") as file:
        return dict(file)


def test_one_network_of_each_published_family_is_compared():
    assert NAMES == [
        "g_ghost_regnetx_002",
        "g_ghost_regnetx_032",
        "ghostnet_100",
        "ghostnetv2_100",
        "ghostnetv3_100",
        "repghostnet_100",
    ]


@pytest.mark.parametrize("name", NAMES)
def test_keys_shapes_and_logits_are_those_of_the_public_implementation(name):
    expected = reference(name)
    model = create_model(name)
    state = {key: value.numpy() for key, value in model.state_dict().items()}
    assert list(state) == [str(key) for key in expected["keys"]]
    assert [list(value.shape) for value in state.values()] == [json.loads(str(s)) for s in expected["shapes"]]

    filled = fill(state, float(expected["gain"]))
    model.load_state_dict({key: torch.from_numpy(np.asarray(value)) for key, value in filled.items()})

    for size in (224, 192):
        with torch.inference_mode():
            logits = model(torch.from_numpy(example(size))).numpy()
        wanted = expected[f"logits_{size}"]
        assert np.abs(logits - wanted).max() <= 1e-4 * np.abs(wanted).max()
