"""What ships beside the code: trained checkpoints, image sets, photographs, and small example apps.

Everything is in `data/`; its licences are in `data/LICENSES.md`. Importing this package imports no torch.
"""

from __future__ import annotations

import sys
from pathlib import Path

from ghostdeploy.errors import DataError, GhostDeployError, UsageError, did_you_mean
from ghostdeploy.visible import visible_line
from ghostdeploy.wheel import is_device_wheel, not_on_device

_DATA = Path(__file__).parent / "data"


def data_path(name: str) -> Path:
    """Returns the path of a shipped file or folder.

    Raises:
        DataError: It is not there: the installation is incomplete.
        MissingDependency: This is the device wheel.
    """
    path = _DATA / name
    if not path.exists():
        if is_device_wheel():
            raise not_on_device(f"sample data {name}")
        raise DataError(f"shipped file {path} is missing", hint="install ghostdeploy again")
    return path


def photos() -> list[Path]:
    """Returns the shipped colour photographs: golden inputs of models that come without images."""
    return sorted(data_path("photos").glob("*.jpg"))


def example_images() -> list[Path]:
    """Returns one test image per class of the sample models."""
    return sorted(data_path("images").glob("*.png"))


def calibration_set(name: str = "ghostnet_050") -> Path:
    """Returns the calibration images of a sample model: for classifiers 512, from the training split."""
    return data_path(_sets(name)[0])


def evaluation_set(name: str = "ghostnet_050") -> Path:
    """Returns the labelled images of a sample model: for classifiers the 1,000 of the test split."""
    return data_path(_sets(name)[1])


def _sets(name: str) -> tuple[str, str]:
    from ghostdeploy.samples.records import RECORDS

    record = RECORDS.get(name)
    return (
        ("fashion_mnist_calib.npz", "fashion_mnist_eval.npz") if record is None else (record.calibration, record.data)
    )


def checkpoint(name: str = "ghostnet_050") -> Path:
    """Returns the trained checkpoint of a sample model.

    Raises:
        UsageError: No such sample ships.
    """
    known = sorted(path.stem for path in _DATA.glob("*.safetensors"))
    if name not in known:
        hint = did_you_mean(name, known, otherwise=f"sample models are {', '.join(known)}")
        raise UsageError(f"unknown sample model {name!r}", hint=hint)
    return data_path(f"{name}.safetensors")


def report(error: GhostDeployError) -> int:
    """Prints an error and its hint to stderr; returns the exit code of its kind."""
    print(visible_line(f"error: {error.message}"), file=sys.stderr)
    if error.hint:
        print(visible_line(f"hint: {error.hint}"), file=sys.stderr)
    return error.exit_code
