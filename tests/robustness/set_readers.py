"""Readers of arrays and labelled sets."""

from __future__ import annotations

import io
import json
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from tests.fuzzing import mixed
from tests.robustness.reading import NOISE, Reader, archive, archives, bundle_in, called, command, plain

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


def inputs(folder: Path) -> Reader:
    """An `.npz` of ready inputs: `run --inputs`."""
    bundle, path = bundle_in(folder), folder / "given.npz"
    whole = archive(input=np.zeros((2, 3, 16, 16), np.float32))

    def attempt(data: bytes) -> int:
        path.write_bytes(data)
        return command("run", bundle, "--inputs", path)

    return Reader(whole=whole, damaged=archives(whole), attempt=attempt)


def labelled_images(folder: Path) -> Reader:
    """An `.npz` of labelled images: `eval --data`."""
    bundle, path = bundle_in(folder), folder / "given.npz"
    whole = archive(images=np.stack([NOISE] * 6), labels=np.arange(6))

    def attempt(data: bytes) -> int:
        path.write_bytes(data)
        return command("eval", bundle, "--data", path)

    return Reader(whole=whole, damaged=archives(whole), attempt=attempt)


def _labelled(folder: Path, name: str, whole: bytes, read: Callable[[Path], object], how: Any = mixed) -> Reader:
    """A labelled set with two images beside it."""
    for image in ("a.png", "b.png"):
        Image.fromarray(NOISE).save(folder / image)

    def attempt(data: bytes) -> int:
        (folder / name).write_bytes(data)
        return called(lambda: read(folder / name))

    return Reader(whole=whole, damaged=how(whole), attempt=attempt)


def boxes(folder: Path) -> Reader:
    """COCO's JSON."""
    from ghostdeploy.tasks.detect.data import read_coco

    document = {
        "images": [
            {"id": i, "file_name": name, "width": 20, "height": 24} for i, name in enumerate(("a.png", "b.png"))
        ],
        "categories": [{"id": 3, "name": "cat"}, {"id": 7, "name": "dog"}],
        "annotations": [{"image_id": i % 2, "category_id": 3, "bbox": [1.5, i, 4, 5], "iscrowd": 0} for i in range(4)],
    }
    return _labelled(folder, "labels.json", json.dumps(document).encode(), read_coco)


def points(folder: Path) -> Reader:
    """Landmarks in JSON."""
    from ghostdeploy.tasks.landmarks.data import read_points

    document = {"a.png": [[1.5, 2], [3, 4.25]], "b.png": [[5, 6], [7, 8]]}
    return _labelled(folder, "points.json", json.dumps(document).encode(), read_points)


def point_arrays(folder: Path) -> Reader:
    """Landmarks in `.npz`."""
    from ghostdeploy.tasks.landmarks.data import read_points

    whole = archive(images=np.stack([NOISE] * 2), points=np.full((2, 3, 2), 5.5))
    return _labelled(folder, "points.npz", whole, read_points, archives)


def pairs(folder: Path) -> Reader:
    """Pairs in CSV."""
    from ghostdeploy.tasks.embed.data import read_pairs

    rows = "a,b,same,fold\n" + "".join(f"a.png,b.png,{i % 2},{i // 2}\n" for i in range(6))
    return _labelled(folder, "pairs.csv", rows.encode(), read_pairs, plain)


def pair_arrays(folder: Path) -> Reader:
    """Pairs in `.npz`."""
    from ghostdeploy.tasks.embed.data import read_pairs

    whole = archive(
        images=np.stack([NOISE] * 2), pairs=np.array([[0, 1]] * 6), same=np.arange(6) % 2, fold=np.arange(6) // 2
    )
    return _labelled(folder, "pairs.npz", whole, read_pairs, archives)


def masks(folder: Path) -> Reader:
    """A PNG mask beside its image."""
    from ghostdeploy.tasks.segment.data import read_masks

    for name in ("images", "masks"):
        (folder / name).mkdir()
    Image.fromarray(NOISE).save(folder / "images" / "a.png")
    stream = io.BytesIO()
    Image.fromarray(NOISE[:, :, 0] % 3).save(stream, "PNG")

    def attempt(data: bytes) -> int:
        (folder / "masks" / "a.png").write_bytes(data)
        return called(lambda: read_masks(folder).for_classes(3).mask(0))

    return Reader(whole=stream.getvalue(), damaged=plain(stream.getvalue()), attempt=attempt)


def priors(folder: Path) -> Reader:
    """Priors of an SSD head: `decode` on the command line names the file."""
    from ghostdeploy.tasks.detect.record import parse

    whole = archive(priors=np.full((5, 4), 0.5, np.float32))

    def attempt(data: bytes) -> int:
        (folder / "priors.npz").write_bytes(data)
        return called(lambda: parse(f"ssd:priors={folder / 'priors.npz'}"))

    return Reader(whole=whole, damaged=archives(whole), attempt=attempt)
