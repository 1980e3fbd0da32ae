"""Which images an export uses.

Golden vectors come from the evaluation set, else the calibration set, else the photographs that ship with ghostdeploy.
The trained sample models have their own sets. Ready inputs take the place of all of them.
"""

from __future__ import annotations

import codecs
import logging
import re
import unicodedata
from collections import Counter
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from ghostdeploy import samples
from ghostdeploy.deploy.intake.originals import originals_of
from ghostdeploy.deploy.plan.preprocessing import apply_overrides
from ghostdeploy.deploy.plan.steps import JUDGED_ON_IMAGES, QUANTIZED
from ghostdeploy.deploy.prove.images import ImageSet, from_arrays, open_images
from ghostdeploy.deploy.prove.measuring import images_of, read
from ghostdeploy.deploy.prove.pixel_range import look
from ghostdeploy.deploy.quantize.apart import shared_with, without
from ghostdeploy.deploy.quantize.ready import ReadySet, ready_inputs
from ghostdeploy.errors import DataError, UsageError
from ghostdeploy.preprocess import prepare
from ghostdeploy.tasks import table as tasks

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from ghostdeploy.batches import Batch
    from ghostdeploy.deploy.intake.protocol import Described, ExportedModel, ReferenceModel
    from ghostdeploy.deploy.plan.config import ExportConfig
    from ghostdeploy.preprocess import Preprocess
    from ghostdeploy.tasks.measure import Labelled

GOLDEN_COUNT = 16

_log = logging.getLogger("ghostdeploy")


@dataclass(frozen=True, slots=True)
class Inputs:
    """The image sets of one export."""

    golden_images: ImageSet | ReadySet
    data: ImageSet | None
    """Labelled set for the accuracy gate."""
    calibration: ImageSet | ReadySet | None
    """Set for the quantizer, there for every precision with one; without labelled images it judges as well."""
    originals: tuple[NDArray[np.uint8], ...] = ()
    """Images (H, W, 3) that take the place of the first golden ones, see `originals_of`."""
    labelled: Labelled | None = None
    """Labelled set of a task that has a measure of its own."""
    labelled_path: Path | None = None
    """Where it was read from."""

    @classmethod
    def choose(cls, model: Described, config: ExportConfig) -> Inputs:
        """Picks the sets.

        Raises:
            DataError: A given set is unusable.
            UsageError: A quantized precision without calibration images.
        """
        if (ready := ready_inputs(config.calibration, model.input_names)) is not None:
            _refuse_images(config, ready)
            return cls(ready.sample(GOLDEN_COUNT), None, ready)
        _, _, sample = model.source.partition("sample:")
        data_path = config.data or (samples.evaluation_set(sample) if sample else None)
        own = None if model.task is None else model.task.name
        name = own if config.task is None else config.task.partition(":")[0]
        named = None if name is None else tasks.find(name)
        labelled = read(named.name, data_path) if data_path and named is not None and named.data else None
        data = open_images(data_path, labelled=True) if data_path and labelled is None else None
        calibration = _calibration(config, sample=sample)
        if labelled is not None and calibration is not None:
            calibration = _without_judges(calibration, images_of(labelled))
        photos = ImageSet("the shipped photographs", samples.photos(), None, None)
        golden = data or (None if labelled is None else images_of(labelled)) or calibration or photos
        spec = apply_overrides(model.preprocess, config.preprocess)
        chosen = golden.sample(GOLDEN_COUNT, usable_for=spec if config.skip_bad else None)
        originals = originals_of(chosen.images, spec)
        return cls(chosen, data, calibration, originals, labelled, data_path if labelled else None)

    def look(self, spec: Preprocess) -> None:
        """Warns of pixels that prove little; raises `DataError` where they are black: they were scaled to 0 to 1."""
        if isinstance(self.golden_images, ReadySet):
            return
        notes = look(self.golden_images, spec)
        for note in notes if self.data is not None else ():  # of a calibration set `calibration.select` speaks
            _log.warning("%s", note)

    def preprocess_of(self, model: ExportedModel, config: ExportConfig) -> Preprocess:
        """Returns how the model takes an image; see `ExportedModel.preprocess_for`."""
        ready = self.golden_images
        return ready.preprocess if isinstance(ready, ReadySet) else model.preprocess_for(config)

    def names(self, reference: ReferenceModel) -> list[str]:
        """Returns the names of the inputs."""
        ready = self.golden_images
        return list(ready.arrays) if isinstance(ready, ReadySet) else [reference.input_name]

    def golden(self, spec: Preprocess) -> Batch:
        """Returns the golden inputs, at most `GOLDEN_COUNT` images: the originals, and the rest of the golden ones."""
        if isinstance(self.golden_images, ReadySet):
            return self.golden_images.batch
        rest = self.golden_images.images[len(self.originals) :]
        others = replace(self.golden_images, images=rest, labels=None, whole=self.golden_images)
        begin = [prepare(self.originals, spec)] if self.originals else []
        return np.concatenate([*begin, *others.batches(spec)])


def _refuse_images(config: ExportConfig, ready: ReadySet) -> None:
    """Raises `UsageError` for what only images can be asked."""
    given = (
        ("--data", config.data, "its rows judge the outputs, see --min-sqnr"),
        (f"--input {config.input}", config.input != "float32-nchw" or None, "leave it out"),
        (" and ".join(f"--{name.replace('_', '-')}" for name in config.preprocess), config.preprocess or None, None),
    )
    for option, value, hint in given:
        if value is not None:
            raise UsageError(
                f"{option} has no effect on the ready inputs of {ready.source}",
                hint=hint or "leave it out: they are not preprocessed",
            )


def _without_judges(calibration: ImageSet, judging: ImageSet) -> ImageSet:
    """Returns the calibration set without the images that judge.

    Raises:
        DataError: All of them judge.
    """
    shared = shared_with(calibration, judging.images)
    if not shared.any():
        return calibration
    if shared.all():
        raise DataError(
            f"all {len(calibration)} images of {calibration.source} are labelled ones that judge",
            hint="give different images with --calib and --data",
        )
    _log.warning("%d images of %s are kept for judging and not used for calibration", shared.sum(), calibration.source)
    return without(calibration, shared, "images kept for judging")


def _calibration(config: ExportConfig, *, sample: str) -> ImageSet | None:
    given = config.calibration
    if isinstance(given, dict):
        raise UsageError(
            "the calibration arrays are no ready inputs of this network", hint="give uint8 images as one array"
        )
    if isinstance(given, np.ndarray):
        return from_arrays(given, source="the calibration array")
    if given is not None:
        return open_images(given)
    if config.precision not in JUDGED_ON_IMAGES:
        return None
    if not sample and config.precision not in QUANTIZED:
        return None
    if not sample:
        raise UsageError(
            f"{config.precision} needs calibration images", hint="add --calib with a folder of images or an .npz"
        )
    return open_images(samples.calibration_set(sample))


def read_labels(path: Path | None, own: list[str] | None, num_classes: int | None) -> list[str]:
    """Returns one name per class: from the file, else the checkpoint's, else class numbers.

    Without a number of classes any number of names in a file will do, and without a file there are none.

    Raises:
        DataError: The file is unreadable or its line count is not the model's class count.
    """
    if path is None:
        return own if own is not None and len(own) == num_classes else [str(i) for i in range(num_classes or 0)]
    lines = _lines(path)
    names = [line for line in lines if line]
    if num_classes is not None and len(names) != num_classes:
        raise _wrong_count(path, lines, len(names), num_classes)
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice:
        how_many = f"{len(twice)} name{'s' * (len(twice) != 1)}"
        _log.warning("label file %s has %s more than once, such as %r", path, how_many, twice[0])
    return names


_MARKS = {codecs.BOM_UTF8: "utf-8", codecs.BOM_UTF32_LE: "utf-32", codecs.BOM_UTF32_BE: "utf-32"} | {
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}
"""Byte-order marks of Windows' editors, and the encoding each stands for; the longer ones come first."""


def _wrong_count(path: Path, lines: list[str], found: int, wanted: int) -> DataError:
    empty = [str(number) for number, line in enumerate(lines, 1) if not line]
    if len(lines) == wanted:
        which = f"line {empty[0]} is empty" if len(empty) == 1 else f"lines {', '.join(empty[:5])} are empty"
        if len(empty) > 5:
            which = f"{len(empty)} of its lines are empty, the first is line {empty[0]}"
        return DataError(
            f"label file {path} names {found} of {wanted} classes: {which}", hint="write one class name on every line"
        )
    blank = f" and {len(empty)} empty ones" if empty else ""
    return DataError(
        f"label file {path} has {found} line{'s' * (found != 1)}{blank}, the model has {wanted} classes",
        hint="write one class name on each line, in the order of the model's outputs",
    )


def _lines(path: Path) -> list[str]:
    """Returns the lines of a text file in Unicode's composed form, without the blank ones at its end."""
    try:
        data = path.read_bytes()
        text = data.decode(next((name for mark, name in _MARKS.items() if data.startswith(mark)), "utf-8"))
    except OSError as error:
        hint = "give a text file with one class name on each line"
        raise DataError(f"label file {path} cannot be read: {error.strerror}", hint=hint) from error
    except UnicodeDecodeError as error:
        raise DataError(f"label file {path} cannot be read: not UTF-8 text", hint="save it as UTF-8") from error
    if "\0" in text:
        raise DataError(f"label file {path} holds zero bytes, expected UTF-8 text", hint="save it as UTF-8")
    lines = [line.replace("\ufeff", "").strip() for line in re.split(r"\r\n|\r|\n", text)]
    while lines and not lines[-1]:
        lines.pop()
    return [unicodedata.normalize("NFC", line) for line in lines]
