"""Checkpoint files: every wrapper is unwrapped, every damage is one clear sentence, no pickle runs code."""

from __future__ import annotations

import argparse
import gzip
import io
import json
import os
import pickle
import random
import tarfile
import zipfile

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from ghostdeploy.errors import CheckpointError
from ghostdeploy.models import create_model
from ghostdeploy.models.checkpoint import read_checkpoint
from ghostdeploy.models.keymaps import canonicalise
from ghostdeploy.models.loading import load_state
from ghostdeploy.models.source import load_model


@pytest.fixture(scope="module")
def model():
    return create_model("ghostnet_050", num_classes=10)


@pytest.fixture(scope="module")
def state(model):
    return model.state_dict()


def saved(path, thing):
    torch.save(thing, path)
    return path


def prefixed(state, prefix):
    return {prefix + key: value for key, value in state.items()}


class Code:
    """Unpickling it would create a folder."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return (os.mkdir, (self.path,))


WRAPPED = {
    "flat": lambda s: s,
    "state_dict": lambda s: {"state_dict": s, "epoch": 3, "best": 0.5},
    "model": lambda s: {"model": s, "optimizer": {"lr": 0.1}},
    "net": lambda s: {"net": s},
    "nested": lambda s: {"model": {"state_dict": s}},
    "DataParallel": lambda s: prefixed(s, "module."),
    "DataParallel in state_dict": lambda s: {"state_dict": prefixed(s, "module.")},
    "compiled": lambda s: prefixed(s, "_orig_mod."),
    "compiled DataParallel": lambda s: prefixed(s, "module._orig_mod."),
    "averaged by SWA": lambda s: {"n_averaged": torch.tensor(5)} | prefixed(s, "module."),
    "EMA beside raw": lambda s: {"state_dict": {k: v * 0 for k, v in s.items()}, "state_dict_ema": s},
    "EMA beside model": lambda s: {"model": {k: v * 0 for k, v in s.items()}, "model_ema": s},
    "empty EMA": lambda s: {"state_dict": s, "state_dict_ema": {}},
    "profiled by thop": lambda s: s | {"total_ops": torch.zeros(1), "blocks.0.0.total_params": torch.zeros(1)},
    "without batch counters": lambda s: {k: v for k, v in s.items() if "num_batches" not in k},
    "with training options": lambda s: {"state_dict": s, "args": argparse.Namespace(lr=0.1)},
    "double": lambda s: {k: v.double() if v.is_floating_point() else v for k, v in s.items()},
}


@pytest.mark.parametrize("wrapper", WRAPPED)
def test_every_wrapper_gives_the_plain_state(wrapper, state, tmp_path):
    read = read_checkpoint(saved(tmp_path / "w.pth.tar", WRAPPED[wrapper](state))).state
    assert set(state) - set(read) == ({k for k in state if "num_batches" in k} if "counters" in wrapper else set())
    assert all(torch.equal(state[key], value) for key, value in read.items())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_weights_become_float32(dtype, state, tmp_path):
    half = {key: value.to(dtype) if value.is_floating_point() else value for key, value in state.items()}
    read = read_checkpoint(saved(tmp_path / "w.pt", half)).state
    assert {value.dtype for value in read.values()} == {torch.float32, torch.int64}
    assert torch.equal(read["conv_head.weight"], half["conv_head.weight"].float())


def test_legacy_and_safetensors_files_are_told_apart_by_content(state, tmp_path):
    torch.save(state, tmp_path / "legacy.pth", _use_new_zipfile_serialization=False)
    save_file(state, tmp_path / "renamed.pth", metadata={"model": "ghostnet_050"})
    legacy, safe = read_checkpoint(tmp_path / "legacy.pth"), read_checkpoint(tmp_path / "renamed.pth")
    assert legacy.state.keys() == safe.state.keys() == state.keys()
    assert (legacy.metadata, safe.metadata) == ({}, {"model": "ghostnet_050"})
    assert legacy.sha256 != safe.sha256
    assert len(safe.sha256) == 64


def test_a_pickle_with_code_is_refused_and_runs_nothing(state, tmp_path):
    path = saved(tmp_path / "w.pth", {"state_dict": state, "extra": Code(tmp_path / "trace")})
    with pytest.raises(CheckpointError, match=r"w\.pth is refused: it needs posix\.mkdir") as caught:
        read_checkpoint(path)
    assert "model.state_dict()" in (caught.value.hint or "")
    (tmp_path / "plain.pth").write_bytes(pickle.dumps(Code(tmp_path / "trace")))
    with pytest.raises(CheckpointError, match=r"plain\.pth"):
        read_checkpoint(tmp_path / "plain.pth")
    assert not (tmp_path / "trace").exists()


def test_a_pickled_module_is_refused_with_a_hint(tmp_path):
    with pytest.raises(CheckpointError, match="refused") as caught:
        read_checkpoint(saved(tmp_path / "w.pth", nn.Linear(2, 2)))
    assert "model.state_dict()" in (caught.value.hint or "")


def test_what_is_no_readable_file_is_named(tmp_path):
    with pytest.raises(CheckpointError, match=r"nowhere\.pth does not exist"):
        read_checkpoint(tmp_path / "nowhere.pth")
    with pytest.raises(CheckpointError, match="is a folder"):
        read_checkpoint(tmp_path)
    (tmp_path / "loop.pth").symlink_to(tmp_path / "loop.pth")
    with pytest.raises(CheckpointError, match="cannot be read"):
        read_checkpoint(tmp_path / "loop.pth")
    os.mkfifo(tmp_path / "pipe.pth")
    with pytest.raises(CheckpointError, match="no regular file"):
        read_checkpoint(tmp_path / "pipe.pth")


@pytest.mark.parametrize("kind", ["zip", "legacy", "safetensors"])
@pytest.mark.parametrize("share", [0.001, 0.3, 0.999])
def test_a_truncated_file_is_one_sentence(kind, share, state, tmp_path):
    path = tmp_path / "w.pth"
    if kind == "safetensors":
        save_file(state, path)
    else:
        torch.save(state, path, _use_new_zipfile_serialization=kind == "zip")
    data = path.read_bytes()
    path.write_bytes(data[: int(share * len(data))])
    with pytest.raises(CheckpointError, match=r"w\.pth is (a )?(damaged|not a checkpoint)") as caught:
        read_checkpoint(path)
    assert "\n" not in caught.value.message


@pytest.mark.parametrize("kind", ["zip", "legacy", "safetensors"])
def test_altered_bytes_are_read_or_refused_and_nothing_else(kind, tmp_path):
    path, chance = tmp_path / "w.pth", random.Random(0)
    small = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)).state_dict()
    if kind == "safetensors":
        save_file(small, path)
    else:
        torch.save(small, path, _use_new_zipfile_serialization=kind == "zip")
    data, messages = path.read_bytes(), []
    for _ in range(300):
        altered = bytearray(data)
        start = chance.randrange(min(len(data), chance.choice([300, len(data)])))
        altered[start : start + chance.randrange(8)] = chance.randbytes(chance.randrange(8))
        path.write_bytes(altered)
        try:
            read_checkpoint(path)
        except CheckpointError as error:
            messages.append(error.message)
    assert len(messages) > 100
    assert not any("\n" in message for message in messages)


@pytest.mark.parametrize(
    ("thing", "words"),
    [
        ([1, 2], "holds a list"),
        (torch.zeros(3), "holds a Tensor"),
        ({}, "holds no tensors"),
        ({"epoch": 3}, "things other than tensors: epoch"),
        ({"state_dict": {"w": torch.zeros(2), "n": 5}}, "things other than tensors: n"),
        ({"w": torch.zeros(2, 2).to_sparse()}, "not a dense real tensor"),
        ({"w": torch.zeros(2, dtype=torch.complex64)}, "not a dense real tensor"),
    ],
)
def test_other_contents_than_tensors_by_name_are_refused(thing, words, tmp_path):
    with pytest.raises(CheckpointError, match=words):
        read_checkpoint(saved(tmp_path / "w.pth", thing))


@pytest.mark.parametrize("content", [b"", b"hello", b"<html>404</html>", b"\x00" * 300])
def test_a_file_of_another_kind_is_no_checkpoint(content, tmp_path):
    (tmp_path / "w.pth").write_bytes(content)
    with pytest.raises(CheckpointError, match=r"expected a \.pth"):
        read_checkpoint(tmp_path / "w.pth")


def test_every_altered_byte_of_a_tensor_is_found_by_its_checksum(tmp_path):
    path, weights = tmp_path / "w.pth", torch.arange(1.0, 257.0)
    data = saved(path, {"w": weights}).read_bytes()
    start = data.index(weights.numpy().tobytes())
    for place in (start, start + 517, start + 1023):
        path.write_bytes(data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :])
        with pytest.raises(
            CheckpointError, match=r"w\.pth is damaged: 'w/data/0' does not match its stored checksum"
        ) as caught:
            read_checkpoint(path)
        assert caught.value.exit_code == 3


def test_a_checkpoint_written_without_checksums_is_read(tmp_path):
    before = torch.serialization.get_crc32_options()
    torch.serialization.set_crc32_options(False)
    try:
        path = saved(tmp_path / "w.pth", {"w": torch.arange(3.0)})
    finally:
        torch.serialization.set_crc32_options(before)
    assert read_checkpoint(path).state["w"].tolist() == [0, 1, 2]


def packed(kind, state, path):
    """Puts something that is not a checkpoint under `path`, as it comes from a server or a cupboard."""
    torch.save(state, path)
    data = path.read_bytes()
    if kind == "npz":
        with path.open("wb") as file:
            np.savez(file, **{key: value.numpy() for key, value in state.items()})
    elif kind == "zip":
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("best.pth", data)
    elif kind == "tar":
        with tarfile.open(path, "w") as archive:
            member = tarfile.TarInfo("best.pth")
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    else:
        path.write_bytes(
            {"gzip": gzip.compress(data), "lfs": b"version https://git-lfs.github.com/spec/v1\noid sha"}[kind]
        )


@pytest.mark.parametrize(
    ("kind", "words", "hint"),
    [
        ("npz", r"an \.npz file of NumPy arrays", "torch.save"),
        ("zip", "a zip archive that holds best.pth", "unpack it"),
        ("tar", "a tar archive that holds best.pth", "unpack it"),
        ("gzip", "packed with gzip", "unpack it"),
        ("lfs", "a Git LFS pointer", "git lfs pull"),
    ],
)
def test_a_file_of_a_known_other_kind_is_called_by_its_name(kind, words, hint, tmp_path):
    path = tmp_path / "w.pth"
    packed(kind, {"w": torch.zeros(3)}, path)
    with pytest.raises(CheckpointError, match=rf"w\.pth is {words}.*, expected a \.pth") as caught:
        read_checkpoint(path)
    assert hint in (caught.value.hint or "")


@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
def test_weights_that_are_not_finite_are_named_and_counted(value, state, tmp_path):
    broken = state | {"conv_head.weight": state["conv_head.weight"].clone()}
    broken["conv_head.weight"][3:5, 7] = value
    with pytest.raises(CheckpointError, match=r"conv_head\.weight holds 2 NaN or infinite values"):
        read_checkpoint(saved(tmp_path / "w.pth", broken))


def test_negative_variances_are_named(state, tmp_path):
    with pytest.raises(CheckpointError, match=r"bn1\.running_var holds negative"):
        read_checkpoint(saved(tmp_path / "w.pth", state | {"bn1.running_var": -state["bn1.running_var"]}))


@pytest.mark.parametrize("spec", ["ghostnet_050", None], ids=["named", "identified"])
def test_a_missing_extra_or_misshapen_tensor_is_listed(spec, state, tmp_path):
    classes = None if spec is None else 10
    missing = {key: value for key, value in state.items() if key != "bn1.weight"}
    for changed, words in (
        (missing, "lacks bn1.weight$"),
        (state | {"spare.bias": torch.zeros(2)}, "unexpected spare.bias$"),
        (missing | {"spare.bias": torch.zeros(2)}, "lacks bn1.weight, it has unexpected spare.bias"),
        (state | {"bn1.weight": torch.zeros(9)}, r"differs in bn1.weight \(float \(9,\) instead of float \(8,\)\)"),
        (state | {"bn1.weight": torch.zeros(8, dtype=torch.int64)}, "integer .* instead of float"),
    ):
        with pytest.raises(CheckpointError, match=words):
            load_model(spec, weights=saved(tmp_path / "w.pth", changed), num_classes=classes)


def test_long_lists_are_cut_with_a_count(state):
    with pytest.raises(CheckpointError, match=r"lacks .* and \d{3} more$"):
        load_state(create_model("ghostnetv2_100"), dict(state), source="it")


def test_another_family_and_another_class_count_get_their_own_sentence(state, tmp_path):
    path = saved(tmp_path / "w.pth", state)
    with pytest.raises(
        CheckpointError, match="is ghostnet_050 with 10 classes, the model is repghostnet_100 with 1000 classes"
    ):
        load_model("repghostnet_100", weights=path)
    with pytest.raises(CheckpointError, match=r"has 10 classes, ghostnet_050 was asked for with 1000$") as caught:
        load_model("ghostnet_050", weights=path)
    assert caught.value.hint == (
        "add --num-classes 10, or leave out MODEL to read family, width and classes from the checkpoint"
    )
    with pytest.raises(CheckpointError, match=r"has 10 classes, 7 were asked for$") as caught:
        load_model(None, weights=path, num_classes=7)
    assert caught.value.hint == "leave out --num-classes"
    assert load_model(None, weights=path, num_classes=10).num_classes == 10


def test_weights_arrive_in_the_module(model, state, tmp_path):
    noisy = {key: value + 0.01 if value.is_floating_point() else value for key, value in state.items()}
    loaded = load_model(None, weights=saved(tmp_path / "w.pth", noisy))
    assert (loaded.name, loaded.num_classes, loaded.trained, loaded.source) == ("ghostnet_050", 10, True, "file:w.pth")
    assert all(torch.equal(value, noisy[key]) for key, value in loaded.module.state_dict().items())
    assert not loaded.module.training


def test_the_official_v3_spelling_is_understood(tmp_path):
    v3 = create_model("ghostnetv3_050", num_classes=5)
    state = v3.state_dict()
    official = {
        key.replace(".bn1.", ".bn.") if ".ghost" in key or ".dw_rpr_" in key else key: value
        for key, value in state.items()
    }
    assert set(official) != set(state)
    assert list(canonicalise(official)) == list(state)
    assert load_model(None, weights=saved(tmp_path / "w.pth", {"state_dict_ema": official})).name == "ghostnetv3_050"


def test_a_safetensors_header_brings_preprocessing_and_labels(state, tmp_path):
    labels = [f"thing {i}" for i in range(10)]
    header = {"preprocess": '{"size": 64, "crop_fraction": 1.0}', "labels": json.dumps(labels)}
    save_file(state, tmp_path / "w.safetensors", metadata=header)
    loaded = load_model(None, weights=tmp_path / "w.safetensors")
    assert (loaded.preprocess.size, loaded.preprocess.crop_fraction, loaded.labels) == (64, 1.0, labels)


@pytest.mark.parametrize(
    ("header", "words"),
    [
        ({"preprocess": '{"size": -1}'}, "damaged header: preprocess"),
        ({"preprocess": "{"}, "damaged header: preprocess"),
        ({"preprocess": '{"shape": 3}'}, "damaged header: preprocess"),
        ({"labels": '["a", 1]'}, "damaged header: labels"),
        ({"labels": '["a", "b"]'}, "names 2 labels in its header and has 10 classes"),
        ({"model": "ghostnet_100"}, "has model ghostnet_100 in its header and contains ghostnet_050 with 10 classes"),
        ({"num_classes": "12"}, "has num_classes 12 in its header and contains ghostnet_050 with 10 classes"),
    ],
)
def test_a_damaged_safetensors_header_is_refused(header, words, state, tmp_path):
    save_file(state, tmp_path / "w.safetensors", metadata=header)
    with pytest.raises(CheckpointError, match=words):
        load_model(None, weights=tmp_path / "w.safetensors")
