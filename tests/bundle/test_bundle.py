"""A bundle that was altered, cut or made to point elsewhere is refused before a native parser sees a byte of it."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys

import numpy as np
import pytest

import ghostdeploy as gd
from ghostdeploy import targets
from ghostdeploy.bundle.folder import open_bundle
from ghostdeploy.bundle.writing import write_golden
from ghostdeploy.errors import BundleError
from tests.commands import assert_one_sentence, run
from tests.signing import sealed, sign_again

ROWS = list(targets.TARGETS.values())
FILES = [
    *((row.name, "fp32", name) for row in ROWS for name in (*row.files, "golden.npz", "labels.txt")),
    *((row.name, "int8", "diagnosis.json") for row in ROWS if "int8" in row.precisions),
]


@pytest.fixture
def copied(tiny_bundle, tmp_path):
    """A function: target, precision → a copy of the tiny bundle that the test may damage."""
    return lambda target="onnx", precision="fp32": shutil.copytree(tiny_bundle(target, precision), tmp_path / "copy")


def rewrite(folder, change):
    """Applies `change` to the decoded manifest and writes it back."""
    where = folder / "manifest.json"
    document = json.loads(where.read_text())
    change(document)
    where.write_text(sealed(document))


def flip(path, at):
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize(("target", "precision", "name"), FILES)
@pytest.mark.parametrize("at", [0, -1], ids=["first", "last"])
def test_one_altered_byte_is_refused(copied, target, precision, name, at):
    folder = copied(target, precision)
    flip(folder / name, at)

    with pytest.raises(BundleError, match=f"{name} was altered: its SHA-256 is"):
        gd.load(folder)


@pytest.mark.parametrize("target", targets.TARGETS)
def test_an_altered_payload_is_refused_before_its_engine_is_even_imported(copied, target):
    folder = copied(target)
    row = targets.find(target)
    engines = [name for choice in row.runtime_packages for name in choice.split("|")]
    flip(folder / row.payload, 40)
    code = (
        "import sys, ghostdeploy as gd\n"
        "try:\n    gd.load(sys.argv[1])\n"
        "except gd.GhostDeployError as error:\n    print(type(error).__name__)\n"
        f"print(sorted(set({engines!r}) & set(sys.modules)))\n"
    )

    done = subprocess.run([sys.executable, "-c", code, folder], capture_output=True, text=True, check=True)

    assert done.stdout.split("\n")[:2] == ["BundleError", "[]"]


def test_without_verify_hashes_are_not_compared_but_sizes_are(copied):
    folder = copied()
    flip(folder / "golden.npz", -1)
    gd.load(folder, verify=False).close()
    with (folder / "golden.npz").open("ab") as stream:
        stream.write(b"x")

    with pytest.raises(BundleError, match=r"golden\.npz has \d+ bytes, expected \d+"):
        gd.load(folder, verify=False)


@pytest.mark.parametrize(("target", "precision", "name"), FILES)
def test_a_missing_file_is_named(copied, target, precision, name):
    folder = copied(target, precision)
    (folder / name).unlink()

    with pytest.raises(BundleError, match=f"{name} is missing"):
        gd.load(folder)


def test_a_folder_in_place_of_a_file_is_refused(copied):
    folder = copied()
    (folder / "model.onnx").unlink()
    (folder / "model.onnx").mkdir()

    with pytest.raises(BundleError, match=r"model\.onnx is a folder, expected a regular file"):
        gd.load(folder)


@pytest.mark.parametrize(
    "path",
    [
        "../outside.bin",
        "sub/../../outside.bin",
        "sub/../labels.txt",
        "/etc/hostname",
        "..\\outside.bin",
        "C:\\outside.bin",
        "..",
        "",
        "a\0b",
    ],
    ids=repr,
)
def test_a_path_that_leaves_the_bundle_is_refused(copied, path):
    folder = copied()
    (folder.parent / "outside.bin").write_bytes(b"secret")
    rewrite(folder, lambda m: m["files"].append({"path": path, "bytes": 6, "sha256": "0" * 64}))

    with pytest.raises(BundleError, match="is outside the bundle; refused"):
        gd.load(folder)


def test_a_link_out_of_the_bundle_is_refused(copied):
    folder = copied()
    payload = folder / "model.onnx"
    payload.rename(folder.parent / "elsewhere.onnx")
    payload.symlink_to(folder.parent / "elsewhere.onnx")

    with pytest.raises(BundleError, match=r"model\.onnx is a link, which leads out of the bundle"):
        gd.load(folder)


@pytest.mark.parametrize("kind", ["loop of links", "endless name"])
def test_a_file_that_the_system_cannot_open_is_one_sentence(copied, kind):
    folder = copied()
    name = "loop" if kind == "loop of links" else "x" * 5000
    if name == "loop":
        (folder / name).symlink_to(name)
    rewrite(folder, lambda m: m["files"].append({"path": name, "bytes": 6, "sha256": "0" * 64}))

    with pytest.raises(BundleError, match=r"(loop is a link|xxx cannot be read)"):
        gd.load(folder)


def test_a_bundle_reached_through_a_link_is_fine(copied, tmp_path):
    (tmp_path / "link").symlink_to(copied())

    gd.load(tmp_path / "link").close()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda m: m.update(target="onxx"), "names target 'onxx', expected onnx, openvino"),
        (lambda m: m.update(precision="fp16"), "has precision fp16, onnx bundles come in fp32, int8"),
        (lambda m: m.update(payload="labels.txt"), r"names payload 'labels\.txt'"),
        (lambda m: m.update(files=m["files"][1:]), r"does not list model\.onnx"),
        (lambda m: m.update(files=[]), r"does not list model\.onnx, golden\.npz, labels\.txt"),
        (lambda m: m.update(schema=2), "has schema 2, expected 1"),
        (lambda m: m.update(surprise=1), "surprise"),
        (lambda m: m.update(name=1), r"\$\.name"),
        (lambda m: m.update(inputs=[]), "no inputs"),
        (lambda m: m["inputs"][0].update(shape=[]), "expected a batch"),
        (lambda m: m["inputs"][0].update(dtype="float13"), "float13"),
    ],
    ids=[
        "target",
        "precision",
        "payload",
        "one file",
        "no files",
        "schema",
        "unknown",
        "type",
        "inputs",
        "scalar",
        "dtype",
    ],
)
def test_a_manifest_that_makes_no_sense_is_refused(copied, change, words):
    folder = copied()
    rewrite(folder, change)

    with pytest.raises(BundleError, match=words):
        gd.load(folder)


@pytest.mark.parametrize("content", [b"", b"not json", b'{"schema": 1', b"\xff\xfe\x00"], ids=repr)
def test_a_manifest_that_is_no_json_is_refused(copied, content):
    folder = copied()
    (folder / "manifest.json").write_bytes(content)

    with pytest.raises(BundleError, match=r"manifest\.json is not"):
        gd.load(folder)


def test_what_is_no_bundle_is_told_apart(tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").write_text("x")

    for name, words in (("none", "does not exist"), ("empty", "is not a bundle"), ("file", "is not a bundle")):
        with pytest.raises(BundleError, match=words):
            open_bundle(tmp_path / name)


def test_labels_that_are_not_text_are_refused(copied):
    folder = copied()
    (folder / "labels.txt").write_bytes(b"\xff\xfe\n" * 10)
    sign_again(folder)

    with pytest.raises(BundleError, match=r"labels\.txt cannot be read"):
        open_bundle(folder).labels()


@pytest.mark.parametrize("kind", ["cut", "objects", "lacking", "text"])
def test_golden_vectors_that_are_damaged_are_refused_and_never_unpickled(copied, kind):
    folder = copied()
    golden = folder / "golden.npz"
    if kind == "cut":
        golden.write_bytes(golden.read_bytes()[:200])
    elif kind == "objects":
        np.savez(golden, input=np.array([print], dtype=object), logits=np.zeros(1))
    elif kind == "lacking":
        np.savez(golden, input=np.zeros((1, 3, 16, 16), np.float32))
    else:
        golden.write_text("golden")
    sign_again(folder)

    with pytest.raises(BundleError, match=r"golden\.npz (is not a readable \.npz file|lacks logits)"):
        open_bundle(folder).golden()


@pytest.mark.parametrize(
    ("target", "precision"), [(row.name, precision) for row in ROWS for precision in row.precisions]
)
def test_the_size_of_a_bundle_is_that_of_its_payload_without_what_proves_it(tiny_bundle, target, precision):
    folder = tiny_bundle(target, precision)
    beside = {"manifest.json", "golden.npz", "labels.txt", "diagnosis.json"}

    payload = [path for path in folder.rglob("*") if path.is_file() and path.name not in beside]
    assert open_bundle(folder).size == sum(path.stat().st_size for path in payload)
    assert {folder / name for name in targets.find(target).files} <= set(payload)


def test_the_simulation_counts_only_when_every_output_has_it(copied, tiny_bundle):
    whole = open_bundle(tiny_bundle("onnx", "int8", side=True))
    folder = copied("onnx", "int8")
    write_golden(folder, *open_bundle(folder).golden(), {"features": np.zeros((3, 8), np.float32)})
    sign_again(folder)

    assert set(whole.simulated()) == {"logits", "features"}
    assert open_bundle(folder).simulated() is None


@pytest.mark.parametrize("command", ["verify", "inspect", "run"])
def test_every_command_says_it_in_one_sentence_and_exit_3(copied, command, capsys):
    folder = copied()
    flip(folder / "model.onnx", 40)

    answer = run(capsys, command, folder, *(["cat.jpg"] if command == "run" else []))

    assert_one_sentence(answer, 3, "model.onnx was altered", "copy the bundle again")
