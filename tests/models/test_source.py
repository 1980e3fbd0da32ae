"""Everything a user can name as a model: zoo, file, module, factory, sample."""

from __future__ import annotations

import json
import subprocess
import sys

import msgspec
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from ghostdeploy.errors import CheckpointError, MissingDependency, UsageError
from ghostdeploy.models import create_model, source
from ghostdeploy.models.source import from_module, load_model
from ghostdeploy.preprocess import Preprocess

FACTORIES = """
import dataclasses
from torch import nn
from neighbour import CLASSES

@dataclasses.dataclass
class Options:
    classes: int = CLASSES

def small(num_classes=Options().classes):
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, num_classes))

def plain():
    return small()

def broken():
    raise RuntimeError("no such file\\nsecond line")

def leaving():
    raise SystemExit(3)

def nothing():
    return None

value = 3
"""


@pytest.fixture
def factories(tmp_path):
    (tmp_path / "neighbour.py").write_text("CLASSES = 6\n")
    path = tmp_path / "my_models.py"
    path.write_text(FACTORIES)
    yield path
    sys.modules.pop("neighbour", None)


def test_a_zoo_name_without_weights_is_untrained_and_a_warning_says_so(caplog):
    loaded = load_model("ghostnet_050", num_classes=3)
    assert [(r.levelname, r.getMessage().partition(":")[0]) for r in caplog.records] == [
        ("WARNING", "ghostnet_050 has random weights")
    ]
    assert (loaded.name, loaded.family, loaded.trained, loaded.num_classes) == ("ghostnet_050", "ghostnet", False, 3)
    assert (loaded.weights_sha256, loaded.labels, loaded.source) == (None, None, "ghostnet_050 with random weights")
    assert loaded.preprocess == Preprocess(interpolation="bilinear")


def test_a_factory_in_a_file_is_called_and_leaves_the_path_alone(factories):
    before = list(sys.path)
    loaded = load_model(f"{factories}:small")
    assert sys.path == before
    assert (loaded.name, loaded.family, loaded.num_classes, loaded.trained) == ("small", "custom", None, True)
    assert loaded.module[3].out_features == 6
    assert not loaded.module.training
    assert "my_models" not in sys.modules


def test_a_class_count_is_passed_on_or_refused(factories):
    loaded = load_model(f"{factories}:small", num_classes=9)
    assert (loaded.module[3].out_features, loaded.num_classes) == (9, None)
    with pytest.raises(UsageError, match="takes no argument num_classes"):
        load_model(f"{factories}:plain", num_classes=9)


def test_weights_load_strictly_into_a_factory_module(factories, tmp_path):
    state = {key: value + 1 for key, value in load_model(f"{factories}:small").module.state_dict().items()}
    torch.save({"state_dict": {f"module.{key}": value for key, value in state.items()}}, tmp_path / "w.pth")
    loaded = load_model(f"{factories}:small", weights=tmp_path / "w.pth")
    assert all(torch.equal(value, state[key]) for key, value in loaded.module.state_dict().items())
    assert loaded.source == f"{factories}:small with file:w.pth"

    del state["3.bias"]
    torch.save(state, tmp_path / "w.pth")
    with pytest.raises(CheckpointError, match=r"does not fit Sequential: it lacks 3\.bias$"):
        load_model(f"{factories}:small", weights=tmp_path / "w.pth")


def test_a_module_that_spells_its_keys_like_official_v3_keeps_them(tmp_path):
    (tmp_path / "m.py").write_text(
        "from torch import nn\n"
        "class Net(nn.Module):\n"
        "    def __init__(self):\n"
        "        super().__init__()\n"
        "        self.block = nn.ModuleDict({'ghost1': nn.ModuleDict({'x_rpr_conv': nn.ModuleDict("
        "{'bn': nn.BatchNorm2d(2)})})})\n"
    )
    state = load_model(f"{tmp_path / 'm.py'}:Net").module.state_dict()
    assert "block.ghost1.x_rpr_conv.bn.weight" in state
    torch.save(state, tmp_path / "w.pth")
    assert load_model(f"{tmp_path / 'm.py'}:Net", weights=tmp_path / "w.pth").trained


def test_a_factory_in_an_importable_module_is_called(factories):
    code = (
        "from ghostdeploy.models.source import load_model\nprint(load_model('my_models:small').module[3].out_features)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=factories.parent, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "6"


@pytest.mark.parametrize(
    ("factory", "error", "words"),
    [
        ("broken", CheckpointError, "raised RuntimeError: no such file$"),
        ("leaving", CheckpointError, "raised SystemExit: 3$"),
        ("nothing", CheckpointError, "returned NoneType, expected a torch.nn.Module"),
        ("smal", UsageError, "does not exist"),
        ("value", UsageError, "is a int, expected a function"),
    ],
)
def test_a_factory_that_fails_is_one_sentence(factory, error, words, factories):
    with pytest.raises(error, match=words) as caught:
        load_model(f"{factories}:{factory}")
    if factory == "smal":
        assert "small" in caught.value.hint


@pytest.mark.parametrize(
    ("spec", "error", "words"),
    [
        ("nowhere.py:f", UsageError, "Python file nowhere.py does not exist"),
        ("no_such_package.sub:f", UsageError, "no Python module no_such_package"),
        ("json:no_such_function", UsageError, "does not exist"),
        ("json:dumps", UsageError, "needs obj, expected a factory without arguments"),
        (":factory", UsageError, "expected package.module:factory"),
        ("json:", UsageError, "expected package.module:factory"),
        ("ghostnet_99", UsageError, "no model is called 'ghostnet_99'"),
        ("sample:nothing", UsageError, "no sample model"),
    ],
)
def test_a_name_that_names_nothing_is_one_sentence(spec, error, words):
    with pytest.raises(error, match=words):
        load_model(spec)


def test_a_file_that_does_not_import_is_one_sentence(tmp_path):
    for content, words in (("import no_such_thing", "ModuleNotFoundError"), ("def f(:", "SyntaxError")):
        (tmp_path / "m.py").write_text(content)
        with pytest.raises(CheckpointError, match=f"importing .* raised {words}"):
            load_model(f"{tmp_path / 'm.py'}:f")


def test_a_path_in_the_place_of_a_model_is_explained(factories, tmp_path):
    with pytest.raises(UsageError, match="a path") as caught:
        load_model(str(factories))
    assert ":FACTORY" in (caught.value.hint or "")
    (tmp_path / "w.pth").write_bytes(b"")
    with pytest.raises(UsageError, match="a path") as caught:
        load_model(str(tmp_path / "w.pth"))
    assert "--weights" in (caught.value.hint or "")


def test_timm_names_without_timm_ask_for_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(MissingDependency, match="needs the package timm") as caught:
        load_model("timm:ghostnet_100")
    assert caught.value.hint == "pip install timm"
    assert isinstance(caught.value.__cause__, ImportError)


def test_a_sample_brings_weights_preprocessing_and_labels(tmp_path, monkeypatch):
    labels = ["shirt", "boot", "bag"]
    spec = Preprocess(size=64, crop_fraction=1.0, interpolation="bilinear")
    header = {"preprocess": msgspec.json.encode(spec).decode(), "labels": json.dumps(labels), "num_classes": "3"}
    save_file(
        create_model("ghostnet_050", num_classes=3).state_dict(), tmp_path / "ghostnet_050.safetensors", metadata=header
    )
    monkeypatch.setattr(source, "SAMPLES", tmp_path)
    for name in (None, "sample:ghostnet_050"):
        loaded = load_model(name)
        assert (loaded.source, loaded.preprocess, loaded.labels) == ("sample:ghostnet_050", spec, labels)
        assert loaded.trained
    with pytest.raises(UsageError, match="own weights"):
        load_model(None, num_classes=3)


def test_a_network_of_the_zoo_in_hand_is_recognised():
    known = from_module(create_model("repghostnet_058", num_classes=4))
    assert (known.name, known.family, known.num_classes) == ("repghostnet_058", "repghost", 4)
    assert known.source == "ghostdeploy.models.ghostnet:GhostNet"
    assert known.preprocess.interpolation == "bicubic"
    assert from_module(create_model("repghostnet_058"), name="mine").name == "mine"


class MyRGBNet2(nn.Module):
    """Holds a zoo network, so that keys and shapes are its, and computes something else."""

    def __init__(self):
        super().__init__()
        for name, child in create_model("ghostnet_050", num_classes=4).named_children():
            self.add_module(name, child)


def test_a_module_of_the_users_is_taken_as_it_is_whatever_its_keys():
    module = MyRGBNet2().train()
    custom = from_module(module, preprocess=Preprocess(size=32))
    assert (custom.name, custom.family, custom.num_classes) == ("my_rgb_net2", "custom", None)
    assert custom.source == f"{__name__}:MyRGBNet2"
    assert custom.preprocess.size == 32
    assert custom.module is module
    assert module.training
