"""The weights in a checkpoint are found by what fits, whatever wraps them: the averaged ones, or those asked for."""

from __future__ import annotations

import argparse
import collections
import logging
import pathlib

import numpy as np
import pytest
import torch
from torch import nn

import ghostdeploy as gd
from ghostdeploy.errors import CheckpointError, UsageError
from ghostdeploy.models.source import load_model
from tests.commands import assert_one_sentence, run

NET = """
import torch
from torch import nn

def build():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 16, 3, 2, 1, bias=False), nn.BatchNorm2d(16), nn.ReLU(),
                         nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 5)).eval()
"""


@pytest.fixture(scope="module")
def spec(tmp_path_factory):
    path = tmp_path_factory.mktemp("net") / "net.py"
    path.write_text(NET)
    return f"{path}:build"


@pytest.fixture(scope="module")
def raw(spec):
    return load_model(spec).module.state_dict()


@pytest.fixture(scope="module")
def average(raw):
    return {key: value * 1.5 if value.is_floating_point() else value for key, value in raw.items()}


def under(prefix, state):
    return {f"{prefix}.{key}": value for key, value in state.items()}


def loaded(spec, content, tmp_path, **options):
    torch.save(content, tmp_path / "w.pth")
    return load_model(spec, weights=tmp_path / "w.pth", **options)


def same(model, state):
    return all(torch.equal(value, state[key]) for key, value in model.module.state_dict().items())


ADAM = {"state": {0: {"exp_avg": torch.zeros(16, 3, 3, 3), "step": torch.tensor(4.0)}}, "param_groups": [{"lr": 0.1}]}

RAW = {
    "PyTorch's tutorial": ("model_state_dict", lambda s, _: {"epoch": 3, "model_state_dict": s, "loss": 0.3}),
    "Lightning": ("state_dict.model", lambda s, _: {"state_dict": under("model", s), "callbacks": {}, "epoch": 3}),
    "a task's own prefix": ("state_dict.net.body", lambda s, _: {"state_dict": under("net.body", s)}),
    "mmlab backbone": ("state_dict.backbone", lambda s, _: {"meta": {"epoch": 3}, "state_dict": under("backbone", s)}),
    "a key of its own": ("weights_of_the_net", lambda s, _: {"weights_of_the_net": s}),
    "optimizer beside it": ("model", lambda s, _: {"optimizer": s | {"x": ADAM}, "model": s}),
    "options, figures, paths": (
        "state_dict",
        lambda s, _: {
            "state_dict": s,
            "best_acc1": np.float64(77.1),
            "history": np.arange(3.0),
            "steps": np.int64(7),
            "args": argparse.Namespace(data=pathlib.PurePosixPath("/data")),
            "seen": collections.defaultdict(int, a=1),
            "count": collections.Counter("aab"),
            "out": pathlib.Path("runs/1"),
        },
    ),
    "the loss as a tensor": (
        "model_state_dict",
        lambda s, _: {"loss": torch.tensor(0.3), "epoch": 3, "model_state_dict": s, "optimizer_state_dict": ADAM},
    ),
    "the best accuracy as a tensor": (
        "state_dict.module",
        lambda s, _: {"arch": "net", "state_dict": under("module", s), "best_acc1": torch.tensor(71.0)},
    ),
    "random generators": (
        "weights_of_the_net",
        lambda s, _: {"rng": torch.get_rng_state(), "cuda_rng": [torch.zeros(16).byte()], "weights_of_the_net": s},
    ),
    "a matrix beside it": ("net", lambda s, _: {"confusion": torch.ones(5, 5), "fc.weight": torch.ones(2), "net": s}),
    "a list": ("0", lambda s, _: (s, {"state": ADAM})),
    "figures between the weights": (None, lambda s, _: s | {"epoch": 3}),
    "half precision": (
        "model",
        lambda s, _: {"model": {k: v.half() if v.is_floating_point() else v for k, v in s.items()}},
    ),
}


@pytest.mark.parametrize("layout", RAW)
def test_what_fits_is_loaded_whatever_wraps_it(layout, spec, raw, average, tmp_path, caplog):
    key, wrap = RAW[layout]

    with caplog.at_level(logging.WARNING, "ghostdeploy"):
        model = loaded(spec, wrap(raw, average), tmp_path)

    assert model.weights_key == key
    assert all(torch.allclose(v, raw[k], atol=1e-3) for k, v in model.module.state_dict().items())
    assert caplog.text == ""


BOTH = {
    "NanoDet": ("model", lambda s, e: {"state_dict": {**under("model", s), **under("avg_model", e)}}),
    "ema": ("model", lambda s, e: {"epoch": 3, "model": s, "ema": e}),
    "ema_state_dict": ("state_dict", lambda s, e: {"state_dict": s, "ema_state_dict": e}),
    "timm": ("state_dict", lambda s, e: {"state_dict": s, "state_dict_ema": e, "arch": "net"}),
    "model_ema, module inside": ("model", lambda s, e: {"model": s, "model_ema": {"module": e, "decay": 0.999}}),
    "SWA": ("model", lambda s, e: {"model": s, "swa_model": {"n_averaged": torch.tensor(4)} | under("module", e)}),
    "SWA without its name": (
        "model",
        lambda s, e: {"model": s, "other": {"n_averaged": torch.tensor(4)} | under("module", e)},
    ),
    "Lightning's averaging": (
        "state_dict.model",
        lambda s, e: {"state_dict": {**under("model", s), **under("ema_model", e)}},
    ),
    "teacher and student": ("student", lambda s, e: {"student": under("module", s), "teacher": under("module", e)}),
    "DINO in one dictionary": ("student", lambda s, e: under("student", s) | under("teacher", e)),
    "averaged first": ("model", lambda s, e: {"ema": e, "model": s}),
}


@pytest.mark.parametrize("layout", BOTH)
def test_of_two_the_averaged_one_is_taken_in_one_line_and_the_other_by_name(
    layout, spec, raw, average, tmp_path, caplog
):
    name, wrap = BOTH[layout]

    with caplog.at_level(logging.WARNING, "ghostdeploy"):
        model = loaded(spec, wrap(raw, average), tmp_path)
    said = [record.message for record in caplog.records]
    other = loaded(spec, wrap(raw, average), tmp_path, weights_key=name)

    assert same(model, average)
    assert same(other, raw)
    assert len(said) == 1
    assert f"took the averaged weights of {model.weights_key}" in said[0]
    assert f"--weights-key {other.weights_key}" in said[0]


def test_two_copies_of_the_same_weights_are_no_choice(spec, raw, tmp_path, caplog):
    with caplog.at_level(logging.WARNING, "ghostdeploy"):
        model = loaded(spec, {"model": raw, "state_dict": dict(raw)}, tmp_path)

    assert same(model, raw)
    assert caplog.text == ""


def parameters(state):
    return {key: value for key, value in state.items() if "running" not in key and "num_batches" not in key}


@pytest.mark.parametrize("prefix", ["", "module."])
@pytest.mark.parametrize("key", [None, "ema.shadow"])
def test_an_average_of_parameters_alone_gets_its_statistics_from_the_raw_weights(
    prefix, key, spec, raw, average, tmp_path, caplog
):
    shadow = {prefix + name: value for name, value in parameters(average).items()}
    model = loaded(spec, {"model": raw, "ema": {"decay": 0.99, "shadow": shadow}}, tmp_path, weights_key=key)

    assert same(model, raw | parameters(average))
    assert [record.getMessage().partition(": ")[2] for record in caplog.records] == [
        f"took the averaged weights of ema.shadow{prefix.rstrip('.') and '.module'}, "
        + ("" if key else "not those of model; --weights-key model takes the other, ")
        + "which lack 1.running_mean and 2 more: taken from the raw ones"
    ]


@pytest.mark.parametrize(
    ("name", "average"),
    [
        ("shadow_params", lambda s: list(parameters(s).values())),
        ("ema", lambda s: under("other", s) | {"x": s["5.bias"]}),
    ],
)
def test_an_average_that_nobody_can_place_is_told(name, average, spec, raw, tmp_path, caplog):
    model = loaded(spec, {"model": raw, name: average({k: v * 1.5 for k, v in raw.items()})}, tmp_path)

    assert same(model, raw) or name == "ema"
    assert f"{name}" in caplog.records[0].getMessage()


def test_the_average_is_not_taken_where_it_is_another_networks(spec, raw, average, tmp_path):
    model = loaded(spec, {"model": raw, "ema": {"0.weight": average["0.weight"]}}, tmp_path)

    assert same(model, raw)


def test_what_belongs_to_another_part_of_the_training_is_counted(spec, raw, tmp_path, caplog):
    with caplog.at_level(logging.WARNING, "ghostdeploy"):
        model = loaded(spec, {"state_dict": under("backbone", raw) | {"bbox_head.weight": torch.zeros(3)}}, tmp_path)

    assert same(model, raw)
    assert "1 other tensors belong to no part of the model" in caplog.text


@pytest.mark.parametrize("change", ["missing", "extra", "shape"])
def test_nothing_is_loaded_in_part(change, spec, raw, tmp_path):
    state = dict(raw)
    if change == "missing":
        del state["5.bias"]
    elif change == "extra":
        state["6.weight"] = torch.zeros(2)
    else:
        state["5.weight"] = torch.zeros(7, 16)

    with pytest.raises(CheckpointError, match="does not fit"):
        loaded(spec, {"state_dict": state}, tmp_path)


def test_a_named_state_dict_that_does_not_fit_says_what_it_lacks(spec, raw, tmp_path):
    with pytest.raises(CheckpointError, match=r"lacks 5\.bias"):
        loaded(spec, {"a": {k: v for k, v in raw.items() if k != "5.bias"}, "b": raw}, tmp_path, weights_key="a")


def test_an_unknown_name_is_told_the_known_ones(spec, raw, average, tmp_path):
    with pytest.raises(UsageError, match="no weights called 'best'") as caught:
        loaded(spec, {"model": raw, "ema": average}, tmp_path, weights_key="best")

    assert caught.value.exit_code == 2
    assert "ema, model" in caught.value.hint


def test_a_broken_average_is_refused_and_its_raw_weights_are_to_be_had_by_name(spec, raw, average, tmp_path):
    content = {"model": raw, "ema": average | {"5.bias": average["5.bias"] * float("nan")}}

    with pytest.raises(CheckpointError, match="NaN"):
        loaded(spec, content, tmp_path)

    assert same(loaded(spec, content, tmp_path, weights_key="model"), raw)


@pytest.mark.parametrize("odd", [{}, {"loss": torch.tensor(0.3), "confusion": torch.ones(5, 5)}])
def test_where_nothing_fits_the_message_is_about_what_is_nearest(odd, spec, raw, tmp_path):
    content = odd | {"net_of_mine": {k: v for k, v in raw.items() if k != "5.bias"}, "head": {"5.bias": raw["5.bias"]}}

    with pytest.raises(CheckpointError, match=r"does not fit Sequential: it lacks 5\.bias$"):
        loaded(spec, content, tmp_path)


def test_tensors_beside_a_zoo_network_hide_it_from_nobody(tmp_path, capsys):
    state = gd.create_model("ghostnet_050", num_classes=10).state_dict()
    torch.save({"loss": torch.tensor(0.3), "state_dict": state, "best_acc1": torch.tensor(70.0)}, tmp_path / "w.pth")

    for model in ("ghostnet_050", None):
        arguments = ("export", *([model] if model else []), "-t", "onnx", "--weights", tmp_path / "w.pth", "--dry-run")
        plan = run(capsys, *arguments, *(("--num-classes", "10") if model else ()), "-o", tmp_path / "out")
        assert (plan.code, "ghostnet_050" in plan.out) == (0, True)
    assert same(load_model(None, weights=tmp_path / "w.pth"), state)


@pytest.mark.parametrize("wrap", ["ema_state_dict", "state_dict.avg_model"])
def test_zoo_networks_are_found_in_any_wrapper_with_and_without_their_name(wrap, tmp_path):
    state = gd.create_model("ghostnet_050", num_classes=10).state_dict()
    zeros = {key: value * 0 for key, value in state.items()}
    content = (
        {"state_dict": zeros, "ema_state_dict": state}
        if wrap == "ema_state_dict"
        else {"state_dict": under("model", zeros) | under("avg_model", state)}
    )
    torch.save(content, tmp_path / "w.pth")

    for name in ("ghostnet_050", None):
        model = load_model(name, weights=tmp_path / "w.pth", num_classes=10)
        assert (model.name, model.weights_key) == ("ghostnet_050", wrap)
        assert same(model, state)


def test_the_manifest_says_which_weights_were_taken(spec, raw, average, tmp_path, capsys):
    torch.save({"model": raw, "ema": average}, tmp_path / "w.pth")
    arguments = ("export", spec, "-t", "onnx", "--weights", tmp_path / "w.pth", "--image-size", "32", "--json", "-o")

    averaged = run(capsys, *arguments, tmp_path / "a")
    chosen = run(capsys, *arguments, tmp_path / "b", "--weights-key", "model")

    assert (averaged.code, chosen.code) == (0, 0)
    assert averaged.document["bundles"][0]["manifest"]["model"]["weights_key"] == "ema"
    assert chosen.document["bundles"][0]["manifest"]["model"]["weights_key"] == "model"
    assert "took the averaged weights of ema" in averaged.err
    assert "averaged" not in chosen.err


def test_the_option_needs_a_checkpoint_and_a_known_name(spec, raw, tmp_path, capsys):
    torch.save({"model": raw, "ema": raw}, tmp_path / "w.pth")

    alone = run(capsys, "export", spec, "-t", "onnx", "--weights-key", "ema", "-o", tmp_path / "out")
    unknown = run(
        capsys, "export", spec, "-t", "onnx", "--weights", tmp_path / "w.pth", "--weights-key", "best",
        "-o", tmp_path / "out",
    )  # fmt: skip

    assert_one_sentence(alone, 2, "--weights-key", "--weights FILE")
    assert_one_sentence(unknown, 2, "'best'", "ema, model")


def test_a_pickle_with_a_class_that_is_not_on_the_list_is_still_refused(spec, raw, tmp_path):
    with pytest.raises(CheckpointError, match="could run code"):
        loaded(spec, {"model": raw, "module": nn.Linear(1, 1)}, tmp_path)
