"""Networks that do not take the image they get, and what is handed over in place of a module: one sentence each."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from torch import nn

import ghostdeploy as gd
from ghostdeploy.deploy.intake.pytorch.reference import Reference
from ghostdeploy.errors import CheckpointError
from ghostdeploy.models.factory import plain_module
from tests.commands import assert_one_sentence, run
from tests.further import further

# torch calls its own TorchScript deprecated, also where torch.compile imports it.
pytestmark = pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")

NETS = """
import torch
from torch import nn


def tail(*first):
    return nn.Sequential(*first, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 5)).eval()


def rgb():
    torch.manual_seed(0)
    return tail(nn.Conv2d(3, 8, 3, 4, 1))


def gray():
    return tail(nn.Conv2d(1, 8, 3, 4, 1))


def depth():
    return tail(nn.Conv2d(4, 8, 3, 4, 1))


def wide():
    return nn.Sequential(nn.Conv2d(3, 8, 3, 4, 1), nn.Flatten(), nn.Linear(8 * 8 * 12, 5)).eval()


class Pair(nn.Module):
    def __init__(self):
        super().__init__()
        self.net = rgb()

    def forward(self, a, b):
        return self.net(a) - self.net(b)


class Aux(nn.Module):
    def __init__(self):
        super().__init__()
        self.net = rgb()

    def forward(self, x):
        return self.net(x), None


class Named(Aux):
    def forward(self, x):
        return {"aux": None, "logits": self.net(x), "features": self.net[:2](x)}


def script():
    return torch.jit.script(rgb())


def weights():
    return rgb().state_dict()


def compiled():
    return torch.compile(rgb())


def parallel():
    return nn.DataParallel(rgb())
"""


@pytest.fixture(scope="module")
def nets(tmp_path_factory):
    path = tmp_path_factory.mktemp("nets") / "nets.py"
    path.write_text(NETS)
    return path


def export(capsys, nets, name, tmp_path, *more):
    return run(capsys, "export", f"{nets}:{name}", "-t", "onnx", "--image-size", "48", "-o", tmp_path / "out", *more)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("gray", ("takes images of 1 channel", "gives 3", "--color gray")),
        ("depth", ("takes images of 4 channels", "gives 3")),
        ("wide", ("cannot run on an input of shape", "--image-size", "H,W")),
        ("Pair", ("takes 2 inputs (a, b)", "an image gives one", "--calib", "named a, b")),
        ("script", ("returned a TorchScript program", "expected the torch.nn.Module", "state_dict()")),
        ("weights", ("returned OrderedDict", "load_state_dict")),
    ],
)
def test_what_does_not_fit_is_said_with_the_right_cure(name, words, nets, tmp_path, capsys):
    answer = export(capsys, nets, name, tmp_path)

    assert_one_sentence(answer, 3, *words)
    assert ("--image-size" in answer.err) == ("--image-size" in words)


@pytest.mark.parametrize("name", ["compiled", "parallel"])
def test_wrappers_of_training_are_taken_off(name, nets, tmp_path, capsys):
    answer = export(capsys, nets, name, tmp_path, "--json")

    assert answer.code == 0, answer.err
    assert answer.document["bundles"][0]["manifest"]["verdict"] == "passed"


NONE = [(target, kind) for target in ("onnx", "openvino") for kind in ("float32-nchw", "uint8-nhwc")]


@pytest.mark.parametrize("form", further(NONE, usual=[NONE[0], NONE[3]]), ids="-".join)
def test_an_output_that_is_none_is_left_out(form, nets, tmp_path, capsys):
    target, input_kind = form
    options = ("--image-size", "48", "-o", tmp_path / "out", "--input", input_kind, "--json")

    alone = run(capsys, "export", f"{nets}:Aux", "-t", target, *options)
    named = run(capsys, "export", f"{nets}:Named", "-t", target, *options)

    for answer, outputs in ((alone, ["logits"]), (named, ["logits", "features"])):
        assert answer.code == 0, answer.err
        manifest = answer.document["bundles"][0]["manifest"]
        assert manifest["verdict"] == "passed"
        assert [output["name"] for output in manifest["outputs"]] == outputs


def test_a_size_in_another_form_is_told_which(nets, tmp_path, capsys):
    answer = run(capsys, "export", f"{nets}:wide", "-t", "onnx", "--image-size", "32x48", "-o", tmp_path / "out")

    assert_one_sentence(answer, 2, "32x48", "192,320")


def test_a_torchscript_file_is_told_from_a_checkpoint(nets, tmp_path, capsys):
    torch.jit.save(torch.jit.script(nn.Sequential(nn.Conv2d(3, 8, 3), nn.Flatten())), tmp_path / "w.pt")

    answer = export(capsys, nets, "rgb", tmp_path, "--weights", tmp_path / "w.pt")

    assert_one_sentence(answer, 3, "TorchScript program", "state_dict()")


def test_a_module_without_values_is_refused():
    with torch.device("meta"):
        module = nn.Conv2d(3, 8, 3)

    with pytest.raises(CheckpointError, match="uninitialised module: weight is on the meta device"):
        gd.export(module, target="onnx")


def test_what_is_no_module_is_refused_from_python():
    with pytest.raises(CheckpointError, match=r"the model is dict, expected a torch\.nn\.Module") as caught:
        gd.export({"weight": torch.zeros(2)}, target="onnx")

    assert "load_state_dict" in caught.value.hint


def test_a_plain_module_is_returned_as_it_is():
    module = nn.Conv2d(3, 8, 3)

    assert plain_module(module, "the model is") is module
    assert plain_module(nn.DataParallel(torch.optim.swa_utils.AveragedModel(module)), "it is").weight.shape == (
        8,
        3,
        3,
        3,
    )


@pytest.mark.parametrize("state", ["half", "training", "frozen"])
def test_precision_and_mode_of_the_callers_module_do_not_matter_and_stay(state, tmp_path):
    torch.manual_seed(0)
    module = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    module.train(state == "training")
    if state == "half":
        module.half()
    module.requires_grad_(state != "frozen")
    before = copy.deepcopy(module.state_dict())

    bundle = gd.export(module, target="onnx", name=state, out=tmp_path, preprocess={"size": 16})

    assert bundle.manifest.verdict == "passed"
    assert module.training == (state == "training")
    assert all(torch.equal(value, before[key]) for key, value in module.state_dict().items())


class Answering(nn.Module):
    """Gives what a function makes of (N, 3)."""

    def __init__(self, answer):
        super().__init__()
        self.answer = answer

    def forward(self, x):
        return self.answer(x.mean((2, 3)))


@pytest.mark.parametrize("answer", [lambda y: y.argmax(1), lambda y: y[:, 0], lambda y: (y[:, 0] > 0, y)], ids=range(3))
@pytest.mark.parametrize("images", [1, 4])
def test_one_number_per_image_is_told_as_that(answer, images):
    with pytest.raises(CheckpointError, match=rf"is one \w+ per image, expected \({images}, classes\)") as caught:
        Reference(Answering(answer)).outputs(np.zeros((images, 3, 8, 8), np.float32))

    assert "before argmax" in caught.value.hint
    assert "unsqueeze(1)" in caught.value.hint
