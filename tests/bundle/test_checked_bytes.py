"""What was hashed is what runs: payloads come from memory, and a bundle has regular files of its own only."""

from __future__ import annotations

import json
import os
import shutil
from typing import TYPE_CHECKING

import numpy as np
import onnx
import pytest

import ghostdeploy as gd
from ghostdeploy import targets
from ghostdeploy.bundle import folder as bundles
from ghostdeploy.bundle.folder import MAX_MANIFEST, open_bundle
from ghostdeploy.errors import BundleError
from tests.commands import assert_one_sentence, run
from tests.conftest import require
from tests.signing import sealed, sign_again

if TYPE_CHECKING:
    from pathlib import Path

PAYLOADS = [
    (row.name, precision) for row in targets.TARGETS.values() if row.device is None for precision in row.precisions
]


@pytest.fixture
def copied(tiny_bundle, tmp_path):
    """A function: target, precision → a copy of the tiny bundle that the test may damage."""
    return lambda target="onnx", precision="fp32": shutil.copytree(tiny_bundle(target, precision), tmp_path / "copy")


def roll(path: Path) -> None:
    data = np.frombuffer(path.read_bytes(), np.uint8)
    with path.open("r+b") as stream:  # the same file, as `cp` writes it
        stream.write(np.roll(data, len(data) // 3).tobytes())


def cut(path: Path) -> None:
    os.truncate(path, 0)


def remove(path: Path) -> None:
    path.unlink()


@pytest.mark.parametrize(("target", "precision"), PAYLOADS)
@pytest.mark.parametrize("profile", ["latency", "throughput"])
def test_a_running_model_does_not_notice_what_happens_to_its_files(copied, target, precision, profile):
    require(target, execution=True)
    folder = copied(target, precision)
    payload = [folder / name for name in targets.find(target).files]
    batch = next(iter(open_bundle(folder).golden()[0].values()))

    with gd.load(folder, threads=2, profile=profile, verify=profile == "latency") as model:
        before = model(batch)
        for change in (roll, cut, remove):
            for path in payload:
                change(path)
            np.testing.assert_array_equal(model(batch), before)
            np.testing.assert_array_equal(model.submit(batch).result(), before)


def test_a_compiled_model_does_not_notice_it_either(copied, tmp_path):
    folder = copied("openvino")
    batch = next(iter(open_bundle(folder).golden()[0].values()))
    for state in ("stored", "hit"):
        with gd.load(folder, cache=tmp_path / "compiled") as model:
            assert model.info()["cache"] == state
            before = model(batch)
            if state == "hit":
                for path in (folder / "model.bin", *(tmp_path / "compiled").iterdir()):
                    roll(path)
            np.testing.assert_array_equal(model(batch), before)


@pytest.mark.parametrize("name", ["model.onnx", "labels.txt", "golden.npz", "diagnosis.json"])
def test_what_is_altered_after_the_bundle_was_opened_is_refused_when_it_is_parsed(copied, name):
    folder = copied("onnx", "int8")
    bundle = open_bundle(folder)
    roll(folder / name)

    with pytest.raises(BundleError, match=f"{name} was altered: its SHA-256 is"):
        bundle.read(name)


def test_what_is_held_is_what_was_hashed_and_is_given_away_once(copied):
    folder = copied()
    whole = (folder / "model.onnx").read_bytes()
    bundle = open_bundle(folder, hold=True)
    roll(folder / "model.onnx")

    assert bundle.read("model.onnx") == whole
    with pytest.raises(BundleError, match="was altered"):
        bundle.read("model.onnx")


@pytest.mark.parametrize("size", [5, 100_000], ids=["cut", "grows"])
def test_a_file_that_is_cut_or_grows_while_it_is_read_is_refused(copied, size):
    folder = copied()
    record = next(one for one in open_bundle(folder).manifest.files if one.path == "model.onnx")

    with bundles._opened(folder, record) as stream:
        os.truncate(folder / "model.onnx", size)
        with pytest.raises(BundleError, match=r"model\.onnx was altered while it was read"):
            bundles._whole(stream, record, folder)


def fifo(path: Path, keep: Path) -> None:
    os.mkfifo(path)


def device(path: Path, keep: Path) -> None:
    path.symlink_to("/dev/zero")


def link_out(path: Path, keep: Path) -> None:
    path.symlink_to(keep)


def link_inside(path: Path, keep: Path) -> None:
    shutil.copy(keep, path.with_name("other"))
    path.symlink_to("other")


def a_folder(path: Path, keep: Path) -> None:
    path.mkdir()


@pytest.mark.parametrize("name", ["manifest.json", "model.onnx", "labels.txt", "golden.npz"])
@pytest.mark.parametrize(
    ("put", "words"),
    [
        (fifo, "is a FIFO, expected a regular file"),
        (device, "is a link"),
        (link_out, "is a link"),
        (link_inside, "is a link"),
        (a_folder, "is a folder, expected a regular file"),
    ],
)
@pytest.mark.parametrize("command", ["inspect", "run"])
def test_what_is_no_regular_file_is_refused_at_once(copied, name, put, words, command, capsys, tmp_path):
    folder = copied()
    (folder / name).rename(tmp_path / "keep")
    put(folder / name, tmp_path / "keep")

    answer = run(capsys, command, folder, *(["cat.jpg"] if command == "run" else []))

    assert_one_sentence(answer, 3, f"{name} {words}")


def test_a_device_node_is_refused_by_what_it_is():
    from pathlib import Path

    from ghostdeploy.files import open_regular

    with pytest.raises(OSError, match="is a device, expected a regular file"):
        open_regular(Path("/dev/zero"))


def test_a_linked_folder_inside_a_bundle_is_refused(copied, tmp_path):
    folder = copied("tensorrt")
    (folder / "kit").rename(tmp_path / "kit")
    (folder / "kit").symlink_to(tmp_path / "kit")

    with pytest.raises(BundleError, match=r"kit is a link, which leads out of the bundle"):
        open_bundle(folder)


def test_a_giant_manifest_is_refused_unread(copied):
    folder = copied()
    os.truncate(folder / "manifest.json", 1 << 40)  # a hole: it takes no space

    with pytest.raises(BundleError, match=rf"manifest\.json has {1 << 40} bytes, expected at most {MAX_MANIFEST}"):
        open_bundle(folder)


@pytest.mark.parametrize("spelling", ["./model.onnx", "model.onnx/", "x//y"])
def test_a_file_has_one_name(copied, spelling):
    folder = copied()
    document = json.loads((folder / "manifest.json").read_text())
    document["files"].append({"path": spelling, "bytes": 1, "sha256": "0" * 64})
    (folder / "manifest.json").write_text(sealed(document))

    with pytest.raises(BundleError, match="is outside the bundle; refused"):
        open_bundle(folder)


def test_a_manifest_that_lists_a_file_again_and_again_is_refused_before_it_is_hashed_as_often(copied):
    folder = copied()
    document = json.loads((folder / "manifest.json").read_text())
    document["files"] += [document["files"][0]] * 10_000
    (folder / "manifest.json").write_text(sealed(document))

    with pytest.raises(BundleError, match="lists a file twice"):
        open_bundle(folder)


def keep_outside(model: onnx.ModelProto, place: str) -> None:
    """Moves one tensor's data into `weights.bin`."""
    if place == "initializer":
        tensor = next(tensor for tensor in model.graph.initializer if tensor.HasField("raw_data"))
    else:
        node = onnx.helper.make_node("Constant", [], ["c"], value=onnx.numpy_helper.from_array(np.ones(1, np.float32)))
        add = onnx.helper.make_node("Add", ["x", "c"], ["y"])
        imports = [onnx.helper.make_opsetid("", 18)]
        model.functions.append(onnx.helper.make_function("own", "Shift", ["x"], ["y"], [node, add], imports))
        model.opset_import.append(onnx.helper.make_opsetid("own", 1))
        tensor = model.functions[0].node[0].attribute[0].t
    onnx.external_data_helper.set_external_data(tensor, "weights.bin")
    tensor.ClearField("raw_data")


@pytest.mark.parametrize("place", ["initializer", "function"])
@pytest.mark.parametrize("listed", [False, True])
def test_weights_beside_the_graph_are_refused_even_where_the_engine_would_find_them(
    copied, place, listed, tmp_path, monkeypatch
):
    folder = copied()
    model = onnx.load(folder / "model.onnx")
    keep_outside(model, place)
    (folder / "model.onnx").write_bytes(model.SerializeToString())
    for where in (folder, tmp_path):
        (where / "weights.bin").write_bytes(bytes(1 << 16))
    if listed:
        document = json.loads((folder / "manifest.json").read_text())
        document["files"].append({"path": "weights.bin", "bytes": 0, "sha256": ""})
        (folder / "manifest.json").write_text(sealed(document))
    sign_again(folder)
    monkeypatch.chdir(tmp_path)

    with pytest.raises(BundleError, match="keeps weights in another file, which no hash covers"):
        gd.load(folder)


def test_the_word_alone_refuses_nothing(copied):
    folder = copied()
    model = onnx.load(folder / "model.onnx")
    model.graph.node[0].name = "location"
    model.graph.doc_string = "location"
    (folder / "model.onnx").write_bytes(model.SerializeToString())
    sign_again(folder)

    gd.load(folder).close()


def test_the_simulation_of_a_kit_reads_nothing_from_the_working_folder(copied, tmp_path, monkeypatch):
    from ghostdeploy.deploy.export.executor import simulation

    folder = copied("tensorrt", "int8")
    graph = targets.find("tensorrt").simulation
    model = onnx.load(folder / graph)
    keep_outside(model, "initializer")
    (folder / graph).write_bytes(model.SerializeToString())
    (tmp_path / "weights.bin").write_bytes(bytes(1 << 16))
    sign_again(folder)
    monkeypatch.chdir(tmp_path)

    with pytest.raises(BundleError, match="keeps weights in another file"):
        simulation(open_bundle(folder), graph, "no GPU")
