"""Makes the shipped image sets from the IDX files of Fashion-MNIST.

    python -m ghostdeploy.samples.prepare_fashion_mnist --source /usr/share/datasets/fashion-mnist --out FOLDER

The Debian package `dataset-fashion-mnist` installs the files (MIT licence, Zalando SE 2017). Written are 1,000 test
images, 512 calibration images from the training split (none from the test split), both class-balanced by a seeded draw,
and one PNG per class. Source: Xiao, Rasul and Vollgraf, "Fashion-MNIST", arXiv 1708.07747; the IDX layout is LeCun's.
"""

from __future__ import annotations

import argparse
import gzip
import zlib
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from ghostdeploy.errors import DataError

if TYPE_CHECKING:
    from numpy.typing import NDArray

LABELS = (
    "T-shirt/top",
    "trouser",
    "pullover",
    "dress",
    "coat",
    "sandal",
    "shirt",
    "sneaker",
    "bag",
    "ankle boot",
)
_MAGIC = {2051: (3, "images"), 2049: (1, "labels")}
EVAL_COUNT = 1000
CALIBRATION_COUNT = 512


def read_idx(path: Path) -> NDArray[np.uint8]:
    """Reads a gzipped IDX file of bytes.

    Raises:
        DataError: Missing, truncated, or not an IDX file of images or labels.
    """
    try:
        data = gzip.decompress(path.read_bytes())
    except (OSError, EOFError, zlib.error) as error:
        hint = "apt-get install dataset-fashion-mnist"
        raise DataError(f"{path} cannot be read: {error}", hint=hint) from error
    magic = int.from_bytes(data[:4], "big")
    if magic not in _MAGIC:
        raise DataError(f"{path} starts with {magic}, expected the IDX numbers 2051 (images) or 2049 (labels)")
    dims = _MAGIC[magic][0]
    if len(data) < 4 + 4 * dims:
        raise DataError(f"{path} ends inside its header")
    shape = tuple(int.from_bytes(data[4 + 4 * i : 8 + 4 * i], "big") for i in range(dims))
    body = np.frombuffer(data, np.uint8, offset=4 + 4 * dims)
    if body.size != int(np.prod(shape)):
        raise DataError(f"{path} holds {body.size} bytes of data, its header declares {shape}")
    return body.reshape(shape)


def read_split(source: Path, split: str) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Returns images uint8 (N, 28, 28, 3) and labels int64 (N,) of the split `train` or `t10k`."""
    gray = read_idx(source / f"{split}-images-idx3-ubyte.gz")
    labels = read_idx(source / f"{split}-labels-idx1-ubyte.gz")
    return np.repeat(gray[..., None], 3, axis=3), labels.astype(np.int64)


def balanced(labels: NDArray[np.int64], count: int, *, seed: int) -> NDArray[np.int64]:
    """Returns the sorted indices of `count` images, class counts equal up to one."""
    rng = np.random.default_rng(seed)
    classes = len(LABELS)
    chosen = []
    for index in range(classes):
        take = count // classes + (index < count % classes)
        chosen.append(rng.choice(np.flatnonzero(labels == index), take, replace=False))
    return np.sort(np.concatenate(chosen))


def main(arguments: list[str] | None = None) -> None:
    """Writes the sets."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--source", type=Path, default=Path("/usr/share/datasets/fashion-mnist"))
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "data")
    options = parser.parse_args(arguments)
    (options.out / "images").mkdir(parents=True, exist_ok=True)
    for split, name, count in (("t10k", "eval", EVAL_COUNT), ("train", "calib", CALIBRATION_COUNT)):
        images, labels = read_split(options.source, split)
        chosen = balanced(labels, count, seed=0)
        np.savez_compressed(options.out / f"fashion_mnist_{name}.npz", images=images[chosen], labels=labels[chosen])
        if split == "t10k":
            for index, label in enumerate(LABELS):
                first = chosen[labels[chosen] == index][0]
                file = label.lower().replace("/", "_").replace(" ", "_").replace("-", "_")
                Image.fromarray(images[first]).save(options.out / "images" / f"{file}.png")


if __name__ == "__main__":
    main()
