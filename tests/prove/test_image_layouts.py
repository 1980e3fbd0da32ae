"""One set in every layout gives the same pixels and labels; what cannot be read rightly is one sentence."""

from __future__ import annotations

import importlib
import io
import json
import pickle
import tarfile

import numpy as np
import pytest
from PIL import Image

from ghostdeploy import samples
from ghostdeploy.deploy.prove import measuring
from ghostdeploy.deploy.prove.images import open_images
from ghostdeploy.encoded import Slice
from ghostdeploy.errors import DataError
from ghostdeploy.preprocess import Preprocess
from tests.commands import assert_one_sentence, run
from tests.conftest import require_package

SPEC = Preprocess(size=32, crop_fraction=1.0)
NAMES = ("ant", "bee", "cat")


def photographs(count=9):
    """Returns the bytes of real photographs, each with its class."""
    found = []
    for index, path in zip(range(count), sorted(samples.photos()), strict=False):
        stream = io.BytesIO()
        Image.open(path).resize((48 + index, 40)).save(stream, "JPEG", quality=90)
        found.append((stream.getvalue(), index % 3))
    return found


PHOTOS = photographs()


def write_tar(path, members):
    with tarfile.open(path, "w") as archive:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return path


def as_folders(root):
    for index, (data, label) in enumerate(PHOTOS):
        folder = root / NAMES[label]
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{index}.jpg").write_bytes(data)
    return root


def as_tar(root):
    members = [
        one for i, (data, label) in enumerate(PHOTOS) for one in ((f"a/{i}.jpg", data), (f"a/{i}.cls", b"%d" % label))
    ]
    return write_tar(root / "set.tar", members)


def as_named_tar(root):
    members = []
    for index, (data, label) in enumerate(PHOTOS):
        members += [(f"{index}.json", json.dumps({"label": NAMES[label]}).encode()), (f"{index}.JPG", data)]
    return write_tar(root / "set.tar", members)


def as_shards(root):
    for number in range(3):
        members = []
        for index, (data, label) in list(enumerate(PHOTOS))[3 * number : 3 * number + 3]:
            members += [(f"{index}.jpg", data), (f"{index}.cls", b"%d\n" % label), (f"{index}.txt", b"a caption")]
        write_tar(root / f"shard-{number:03}.tar", members)
    return root


def arrow():
    require_package("pyarrow")
    return importlib.import_module("pyarrow"), importlib.import_module("pyarrow.parquet")


def as_parquet(root, *, features=True, **options):
    pa, parquet = arrow()
    images = [{"bytes": data, "path": None} for data, _ in PHOTOS]
    table = pa.table({"image": images, "label": pa.array([label for _, label in PHOTOS], pa.int64()), "x": [1.5] * 9})
    names = {"info": {"features": {"label": {"names": list(NAMES), "_type": "ClassLabel"}}}}
    if features:
        table = table.replace_schema_metadata({"huggingface": json.dumps(names)})
    (root / "data").mkdir(exist_ok=True)
    parquet.write_table(table, root / "data" / "test-00000-of-00001.parquet", **options)
    return root


def as_groups(root):
    return as_parquet(root, features=False, row_group_size=2) / "data" / "test-00000-of-00001.parquet"


def as_table(root, suffix="csv"):
    rows = []
    (root / "more").mkdir()
    for index, (data, label) in enumerate(PHOTOS):
        name = f"more/{index}.jpg"
        (root / name).write_bytes(data)
        rows.append({"file_name": name, "label": NAMES[label]})
    if suffix == "csv":
        lines = [",".join(("file_name", "label")), *(f"{row['file_name']},{row['label']}" for row in rows)]
        (root / "metadata.csv").write_text("\n".join(lines))
    elif suffix == "jsonl":
        (root / "metadata.jsonl").write_text("".join(json.dumps({**row, "text": "x"}) + "\n" for row in rows))
    else:
        pa, parquet = arrow()
        parquet.write_table(pa.Table.from_pylist(rows), root / "metadata.parquet")
    return root


LAYOUTS = {
    "folders": as_folders,
    "tar": as_tar,
    "named tar": as_named_tar,
    "shards": as_shards,
    "huggingface": as_parquet,
    "row groups": as_groups,
    "csv": as_table,
    "jsonl": lambda root: as_table(root, "jsonl"),
    "metadata.parquet": lambda root: as_table(root, "parquet"),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_gives_the_same_pixels_and_labels(layout, tmp_path):
    found = open_images(LAYOUTS[layout](tmp_path), labelled=True)

    batch = np.concatenate(list(found.batches(SPEC, size=4)))
    pairs = sorted((label, pixels.tobytes()) for label, pixels in zip(found.labels.tolist(), batch, strict=True))
    folders = tmp_path / "again"
    expected = open_images(as_folders(folders), labelled=True)
    whole = np.concatenate(list(expected.batches(SPEC)))
    assert pairs == sorted((label, one.tobytes()) for label, one in zip(expected.labels.tolist(), whole, strict=True))
    assert found.classes in (None, NAMES)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_set_without_its_labels_is_read_too(layout, tmp_path):
    assert len(open_images(LAYOUTS[layout](tmp_path))) == len(PHOTOS)


@pytest.mark.parametrize("layout", ["tar", "shards", "row groups"])
def test_eval_reads_it(layout, tiny_bundle, tmp_path, capsys):
    answer = run(capsys, "eval", tiny_bundle("onnx"), "--data", LAYOUTS[layout](tmp_path), "--json")

    assert answer.code == 0, answer.err
    assert answer.document[0]["count"] == len(PHOTOS)


@pytest.mark.parametrize("ending", ["pyd", "pkl", "target.pickle", "pth"])
def test_a_pickle_refuses_the_archive(ending, tmp_path):
    path = write_tar(tmp_path / "set.tar", [("0.jpg", PHOTOS[0][0]), (f"0.{ending}", pickle.dumps(1))])

    with pytest.raises(DataError, match="runs code when it is read"):
        open_images(path, labelled=True)


@pytest.mark.parametrize("cut", [100, 600, 1500, 5000, -1100])
def test_a_cut_archive_is_not_a_shorter_set(cut, tmp_path):
    path = as_tar(tmp_path)
    whole = path.read_bytes().rstrip(b"\0")
    path.write_bytes(whole[:cut])

    with pytest.raises(DataError, match="not a readable tar archive"):
        open_images(path, labelled=True)


def test_a_damaged_header_is_not_the_end(tmp_path):
    path = as_tar(tmp_path)
    data = bytearray(path.read_bytes())
    place = bytes(data).index(b"a/3.jpg")
    data[place + 148 : place + 156] = b"9999999\0"
    path.write_bytes(data)

    with pytest.raises(DataError, match="not a readable tar archive"):
        open_images(path, labelled=True)


def test_links_of_an_archive_are_not_followed(tmp_path):
    path = tmp_path / "set.tar"
    with tarfile.open(path, "w") as archive:
        for name, kind in (("0.jpg", tarfile.SYMTYPE), ("1.jpg", tarfile.LNKTYPE)):
            info = tarfile.TarInfo(name)
            info.type, info.linkname = kind, "/etc/passwd"
            archive.addfile(info)
        info = tarfile.TarInfo("../../2.jpg")
        info.size = len(PHOTOS[0][0])
        archive.addfile(info, io.BytesIO(PHOTOS[0][0]))

    found = open_images(path)

    assert [image.name for image in found.images] == ["../../2.jpg"]  # a name, never a path
    assert isinstance(found.images[0], Slice)
    assert found.images[0].path == path
    assert [(one.reason, one.count) for one in found.left_out] == [("links", 2)]


@pytest.mark.parametrize(
    ("members", "words"),
    [
        ([("0.jpg", b"x"), ("0.png", b"x")], "several images"),
        ([("0.jpg", b"x"), ("0.cls", b"")], "is empty"),
        ([("0.jpg", b"x"), ("0.cls", b"\xff")], "is no text"),
        ([("0.jpg", b"x"), ("0.json", b"[1]")], "not a JSON object"),
        ([("0.jpg", b"x"), ("0.json", b'{"label": 1.5}')], "expected a class index or name"),
        ([("0.jpg", b"x"), ("0.cls", b"-1")], "has label -1"),
        ([("0.jpg", b"x"), ("0.cls", b"1"), ("1.jpg", b"x"), ("1.cls", b"ant")], "numbers and names as labels"),
        ([("0.jpg", b"x")], "no labels"),
        ([("0.txt", b"x")], "holds no images"),
    ],
)
def test_labels_that_are_none_are_told(members, words, tmp_path):
    with pytest.raises(DataError, match=words):
        open_images(write_tar(tmp_path / "set.tar", members), labelled=True)


def test_a_sample_without_a_label_is_left_out_and_counted(tmp_path):
    path = write_tar(tmp_path / "set.tar", [("0.jpg", b"x"), ("1.jpg", b"x"), ("1.cls", b"0")])

    found = open_images(path, labelled=True)

    assert len(found) == 1
    assert [(one.reason, one.count, one.examples) for one in found.left_out] == [
        ("images without a label", 1, ("0.jpg",))
    ]


def test_a_damaged_member_is_named(tmp_path):
    path = write_tar(tmp_path / "set.tar", [("0.jpg", PHOTOS[0][0]), ("1.jpg", b"no image")])

    with pytest.raises(DataError, match=r"image 1 of .*set\.tar, 1\.jpg"):
        list(open_images(path).batches(SPEC))


@pytest.mark.parametrize("name", ["set.tar.gz", "set.tgz"])
def test_a_compressed_archive_is_refused(name, tmp_path):
    (tmp_path / name).write_bytes(b"\x1f\x8b")

    with pytest.raises(DataError, match="compressed archive"):
        open_images(tmp_path / name)


@pytest.mark.parametrize("claim", [1 << 21, 1 << 40])
def test_a_header_that_claims_too_much_is_refused(claim, tmp_path):
    info = tarfile.TarInfo("pax")
    info.type, info.size = tarfile.XHDTYPE, claim
    (tmp_path / "set.tar").write_bytes(info.tobuf(tarfile.GNU_FORMAT) + bytes(4096))

    with pytest.raises(DataError, match="not a readable tar archive"):
        open_images(tmp_path / "set.tar")


def test_an_extension_type_of_arrow_is_refused(tmp_path):
    pa, parquet = arrow()
    field = pa.field("image", pa.binary(), metadata={"ARROW:extension:name": "ray.data.arrow_pickled_object"})
    parquet.write_table(pa.table([pa.array([b"x"])], schema=pa.schema([field])), tmp_path / "set.parquet")

    with pytest.raises(DataError, match="may run code"):
        open_images(tmp_path / "set.parquet")


@pytest.mark.parametrize(
    ("columns", "words"),
    [
        ({"text": ["a"]}, "expected image with bytes"),
        ({"a": [b"x"], "b": [b"y"]}, "expected image with bytes"),
        ({"image": [b"x"], "label": [1.5]}, "expected class indices or names"),
        ({"image": [b"x"]}, "no labels"),
    ],
)
def test_tables_of_another_form_are_told(columns, words, tmp_path):
    pa, parquet = arrow()
    parquet.write_table(pa.table(columns), tmp_path / "set.parquet")

    with pytest.raises(DataError, match=words):
        open_images(tmp_path / "set.parquet", labelled=True)


def test_tables_of_several_splits_are_told(tmp_path):
    as_parquet(tmp_path)
    table = tmp_path / "data" / "test-00000-of-00001.parquet"
    table.with_name("train-00000-of-00001.parquet").write_bytes(table.read_bytes())

    with pytest.raises(DataError, match="several splits: test, train"):
        open_images(tmp_path)


def test_a_damaged_table_is_told(tmp_path):
    require_package("pyarrow")
    (tmp_path / "set.parquet").write_bytes(b"PAR1 and nothing else")

    with pytest.raises(DataError, match="not a readable Parquet file"):
        open_images(tmp_path / "set.parquet")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("file_name,label\n../0.jpg,0\n", "expected a path inside the folder"),
        ("file_name,label\n/etc/0.jpg,0\n", "expected a path inside the folder"),
        ("file_name,label\n0.pkl,0\n", "expected image files"),
        ("file_name,label\n0.jpg,0\n0.jpg,1\n", "twice"),
        ("file_name,label\n0.jpg,0\n1.jpg,1\n", "are not in"),
        ("file_name,text\n0.jpg,x\n", "no column label"),
        ("name,label\n0.jpg,0\n", "file_name is absent"),
    ],
)
def test_tables_of_labels_are_checked(text, words, tmp_path):
    (tmp_path / "0.jpg").write_bytes(PHOTOS[0][0])
    (tmp_path / "metadata.csv").write_text(text)

    with pytest.raises(DataError, match=words):
        open_images(tmp_path, labelled=True)


@pytest.mark.parametrize("task", ["detect", "landmarks", "embed", "segment"])
@pytest.mark.parametrize("layout", ["tar", "shards", "csv", "huggingface"])
def test_a_layout_without_labels_of_a_task_is_told(task, layout, tmp_path):
    with pytest.raises(DataError, match=f"no labels for task {task}"):
        measuring.read(task, LAYOUTS[layout](tmp_path))


def test_without_pyarrow_the_command_says_what_to_install(tiny_bundle, tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "pyarrow", None)
    (tmp_path / "set.parquet").write_bytes(b"x")

    answer = run(capsys, "eval", tiny_bundle("onnx"), "--data", tmp_path / "set.parquet")

    assert_one_sentence(answer, 4, "needs pyarrow", 'pip install "ghostdeploy[parquet]"')
