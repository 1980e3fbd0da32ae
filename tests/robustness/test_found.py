"""What damaged files brought to light once, each kept as a small case: it is refused, in one sentence."""

from __future__ import annotations

import io
import json
import shutil
import threading

import numpy as np
import pytest
from onnx import TensorProto

from ghostdeploy.bundle.manifest import decode
from ghostdeploy.bundle.staging import staging
from ghostdeploy.bundle.workspaces import MARKER
from ghostdeploy.deploy.intake.onnx.model import open_onnx
from ghostdeploy.errors import BundleError, CheckpointError, DataError
from ghostdeploy.files import write_whole
from ghostdeploy.tasks.detect.data import read_coco
from ghostdeploy.tasks.detect.priors import read_priors
from ghostdeploy.tasks.landmarks.data import read_points
from tests.commands import assert_one_sentence, run
from tests.onnx_files import saved, small
from tests.robustness.image_readers import HEADS, detector
from tests.robustness.reading import NOISE, resealed
from tests.signing import sealed
from tests.staged import names, write


@pytest.mark.parametrize("text", [b'{"images": "\xfe"}', b'{"a":' * 5000], ids=["no UTF-8", "nested"])
def test_a_labelled_set_that_is_no_json_is_refused(text, tmp_path):
    (tmp_path / "labels.json").write_bytes(text)

    with pytest.raises(DataError, match="is not COCO JSON"):
        read_coco(tmp_path / "labels.json")


def test_a_set_that_names_what_no_file_can_be_called_is_refused(tmp_path):
    (tmp_path / "points.json").write_text(json.dumps({"x" * 5000: [[1, 2]]}))

    with pytest.raises(DataError, match="1 of 1 images"):
        read_points(tmp_path / "points.json")


@pytest.mark.parametrize("kind", ["cut", "text", "claims"])
def test_priors_that_are_no_array_are_refused(kind, tmp_path):
    stream = io.BytesIO()
    np.savez(stream, priors=np.full((5, 4), 0.5, np.float32))
    claim = io.BytesIO()
    np.lib.format.write_array_header_1_0(claim, {"descr": "<f4", "fortran_order": False, "shape": (10**9, 4)})
    data = {"cut": stream.getvalue()[:-9], "text": b"PK and no archive", "claims": claim.getvalue()}[kind]
    (tmp_path / "priors.npz").write_bytes(data)

    with pytest.raises(DataError, match="is no NumPy array"):
        read_priors(str(tmp_path / "priors.npz"))


@pytest.mark.parametrize("field", ["inputs", "outputs"])
def test_a_tensor_without_a_batch_is_refused(field, tiny_bundle):
    manifest = json.loads((tiny_bundle("onnx") / "manifest.json").read_bytes())
    manifest[field][0]["shape"] = []

    with pytest.raises(BundleError, match="is empty, expected a batch first"):
        decode(sealed(manifest).encode(), where="manifest.json")


def test_names_of_a_graph_that_are_no_text_are_refused(tmp_path):
    data = small().SerializeToString().replace(b"BatchNormalization", b"BatchNormalizatio\xff", 1)
    (tmp_path / "net.onnx").write_bytes(data)

    with pytest.raises(CheckpointError, match=r"NodeProto.op_type is .* expected UTF-8"):
        open_onnx(tmp_path / "net.onnx")


def test_an_input_of_an_unknown_type_is_refused(tmp_path):
    model = small()
    model.graph.input[0].type.tensor_type.elem_type = max(TensorProto.DataType.values()) + 1

    with pytest.raises(CheckpointError, match="of an unknown type"):
        open_onnx(saved(model, tmp_path / "net.onnx"))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"outputs": ["boxes"]}, "no output 'boxes'"),
        ({"outputs": []}, "names 0 outputs"),
        ({"layout": "ncp"}, "expected that of layout ncp"),
        ({"classes": 0}, "10 columns per point"),
        ({"strides": [4]}, "4 points, expected 16"),
        ({"arrangement": "scores-boxes"}, "as many of scores as of boxes"),
    ],
)
def test_a_decode_record_that_contradicts_the_outputs_is_refused(change, words, tmp_path, capsys):
    bundle, image = detector(tmp_path), tmp_path / "image.png"
    from PIL import Image

    Image.fromarray(NOISE).save(image)
    manifest = json.loads((bundle / "manifest.json").read_bytes())

    def answer(head):
        (bundle / "manifest.json").write_bytes(resealed(manifest | {"task": {"name": "detect", "decode": head}}))
        return run(capsys, "run", bundle, image)

    assert answer(HEADS[0]).code == 0
    assert_one_sentence(answer(HEADS[0] | change), 3, "contradicts itself", words)


def test_a_task_that_is_unknown_here_is_verified_and_no_answer_is_given(tiny_bundle, tmp_path, capsys):
    """As where the plugin that brings it is missing: golden outputs are what they are, answers need the task."""
    bundle, image = shutil.copytree(tiny_bundle("onnx"), tmp_path / "copy"), tmp_path / "image.png"
    from PIL import Image

    Image.fromarray(NOISE).save(image)
    manifest = json.loads((bundle / "manifest.json").read_bytes())
    (bundle / "manifest.json").write_bytes(resealed(manifest | {"task": {"name": "count\x1b[2J"}}))

    assert run(capsys, "inspect", bundle).code == run(capsys, "verify", bundle).code == 0
    assert_one_sentence(run(capsys, "run", bundle, image), 3, r"names task 'count\x1b[2J', which is unknown here")


def test_a_record_that_its_task_refuses_is_the_bundles_fault(tmp_path, capsys):
    bundle = detector(tmp_path)
    manifest = json.loads((bundle / "manifest.json").read_bytes())
    (bundle / "manifest.json").write_bytes(resealed(manifest | {"task": {"name": "detect"}}))

    assert_one_sentence(run(capsys, "run", bundle, tmp_path / "image.png"), 3, "task detect:")


def test_a_deeply_nested_field_is_refused_or_read(tmp_path, capsys):
    bundle = detector(tmp_path)
    manifest = json.loads((bundle / "manifest.json").read_bytes())
    nested = json.loads("[" * 450 + "]" * 450)
    (bundle / "manifest.json").write_bytes(resealed(manifest | {"task": {"name": "raw", "settings": {"a": nested}}}))

    assert run(capsys, "inspect", bundle).code in (0, 3)


@pytest.mark.parametrize("marker", [None, b""], ids=["none", "empty"])
def test_a_workspace_that_was_just_begun_is_swept(marker, tmp_path):
    begun = tmp_path / ".net.tmp-12345-0123abcd"
    begun.mkdir()
    if marker is not None:
        (begun / MARKER).write_bytes(marker)

    with staging(tmp_path, "net") as folder:
        write(folder)

    assert names(tmp_path) == ["net"]


def test_a_folder_of_others_with_such_a_name_is_left(tmp_path):
    theirs = tmp_path / ".net.tmp-12345-0123abcd"
    theirs.mkdir()
    (theirs / "thesis.tex").write_text("years of work")

    with staging(tmp_path, "net") as folder:
        write(folder)

    assert (theirs / "thesis.tex").exists()


def test_an_export_begins_again_where_another_swept_its_workspace(tmp_path, monkeypatch):
    from ghostdeploy.bundle import staging as module

    mark, swept = module.mark, []

    def swept_before(folder):
        if not swept:
            swept.append(folder)
            folder.rmdir()
        mark(folder)

    monkeypatch.setattr(module, "mark", swept_before)
    with staging(tmp_path, "net") as folder:
        write(folder)

    assert names(tmp_path) == ["net"]
    assert swept


def test_what_a_killed_writer_left_is_taken_by_the_next(tmp_path):
    (tmp_path / ".receipt.json.part").write_bytes(b"half" * 1000)

    write_whole(tmp_path / "receipt.json", b"whole", what="the receipt")

    assert names(tmp_path) == ["receipt.json"]
    assert (tmp_path / "receipt.json").read_bytes() == b"whole"


def test_writers_of_one_file_never_mix(tmp_path):
    texts = [bytes([65 + number]) * (1 << 20) for number in range(8)]

    def work(text):
        for _ in range(20):
            write_whole(tmp_path / "receipt.json", text, what="the receipt")

    threads = [threading.Thread(target=work, args=(text,)) for text in texts]
    for one in threads:
        one.start()
    for one in threads:
        one.join()

    assert (tmp_path / "receipt.json").read_bytes() in texts
    assert names(tmp_path) == ["receipt.json"]


def test_a_record_that_no_page_can_show_differs(tiny_bundle, tmp_path, capsys, monkeypatch):
    from ghostdeploy.deploy.report import check

    page = tmp_path / "report.html"
    assert run(capsys, "report", tiny_bundle("onnx"), "-o", page).code == 0

    def cannot(*_):
        raise ZeroDivisionError

    monkeypatch.setattr(check, "render", cannot)
    answer = run(capsys, "report", page, "--check", "--json")
    assert answer.code == 1
    assert "that cannot be shown (ZeroDivisionError)" in answer.document["differences"][0]
