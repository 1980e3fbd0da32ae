"""Which task an export is for.

--task                                               what it says
samples that are no classifiers                      what their record says
zoo names, timm, samples, labels of the checkpoint,
--labels, labelled --data                            classify
else                                                 raw: nobody said what the outputs mean
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import msgspec

from ghostdeploy.deploy.plan.steps import JUDGED_ON_IMAGES
from ghostdeploy.errors import DataError, UsageError
from ghostdeploy.tasks import table
from ghostdeploy.tasks.base import TaskInfo

if TYPE_CHECKING:
    from ghostdeploy.bundle.folder import Arrays
    from ghostdeploy.deploy.intake.inputs import Inputs
    from ghostdeploy.deploy.intake.protocol import Described
    from ghostdeploy.deploy.plan.config import ExportConfig
    from ghostdeploy.preprocess import Preprocess
    from ghostdeploy.tasks.base import Task

_log = logging.getLogger("ghostdeploy")


def choose_task(
    model: Described, inputs: Inputs, outputs: Arrays, config: ExportConfig, preprocess: Preprocess
) -> Task:
    """Returns the task, with what the outputs leave no doubt of filled in.

    Args:
        model: What was loaded.
        inputs: The image sets of the export.
        outputs: What the reference gives for the golden images, by name.
        config: The request.
        preprocess: How the network takes an image.

    Raises:
        DataError: The outputs prove that the request describes another network.
        UsageError: The outputs are not those of the task that was named, or that images are to judge.
    """
    info = requested(config, model.task)
    known = info is not None or model.classifies or config.labels is not None or inputs.data is not None
    info = info or TaskInfo(name="classify" if known else "raw")
    task = table.task_of(info, preprocess.sides)
    judged = config.precision in JUDGED_ON_IMAGES and (inputs.calibration is not None or inputs.data is not None)
    if not known and judged:
        _log.warning(
            "nobody said what the outputs mean, so every output is judged by its values (task raw); "
            "--task classify judges by the top-1 class"
        )
    refusal = task.refusal(outputs) if config.task is not None or judged or inputs.data is not None else None
    if refusal is not None:
        raise UsageError(refusal, hint="name another task with --task, or raw, which takes any outputs")
    try:
        return task.fitted(outputs, None if model.labels is None else len(model.labels))
    except ValueError as error:
        raise DataError(f"task {info.name}: {error}", hint="correct --decode, see docs/tasks.md") from error


def requested(config: ExportConfig, own: TaskInfo | None) -> TaskInfo | None:
    """Returns the task that was named, else the model's own; None where neither is.

    Args:
        config: The request.
        own: Of the model; its settings hold unless others are given.

    Raises:
        UsageError: Its settings, or the decode record, cannot be read.
    """
    if config.decode is None and (config.task is None or (own is not None and config.task == own.name)):
        return own
    if config.task is None:
        if config.decode is not None:
            raise UsageError("--decode needs --task detect", hint="add --task detect")
        return None
    name, _, rest = config.task.partition(":")
    table.find(name)
    settings: dict[str, Any] = {}
    for pair in filter(None, rest.split(",")):
        key, separator, value = pair.partition("=")
        if not separator:
            raise UsageError(f"task {name}: {pair!r} is no setting", hint=f"write --task {name}:key=value")
        settings[key] = value
    decode = None
    if config.decode is not None:
        from ghostdeploy.tasks.detect.record import parse

        if not table.find(name).decodes:
            raise UsageError(f"--decode has no effect on task {name}", hint="leave it out, or add --task detect")
        try:
            decode = msgspec.to_builtins(parse(config.decode))
        except ValueError as error:
            raise UsageError(str(error), hint="see docs/tasks.md for the kinds and their keys") from error
    return TaskInfo(name=name, decode=decode, settings=settings)
