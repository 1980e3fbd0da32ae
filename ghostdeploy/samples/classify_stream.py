"""Classifies a stream of frames with several inferences under way at once.

    python -m ghostdeploy.samples.classify_stream --bundle BUNDLE --source SOURCE

SOURCE is a folder of images, a quoted pattern (`"clip/frame_*.jpg"`), a video file, or the number of a camera. Folders
and patterns need Pillow only; videos and cameras need OpenCV: pip install "ghostdeploy[camera]".

While the engine works on a frame, the next ones are read and prepared. At most `--in-flight` results are outstanding:
memory stays bounded, and a camera never runs further ahead. Each frame prints one line, in the order of the stream; its
latency runs from the decoded frame to the result. A damaged frame is named and left out, then the exit code is 3.
Ctrl-C ends the stream and prints the summary.
"""

from __future__ import annotations

import argparse
import glob
import re
import sys
import time
from collections import deque
from pathlib import Path
from typing import TYPE_CHECKING, Any

import ghostdeploy as gd
from ghostdeploy.bundle.folder import open_bundle
from ghostdeploy.decode import open_image
from ghostdeploy.errors import DataError, InputError, MissingDependency
from ghostdeploy.preprocess import IMAGE_SUFFIXES, Preprocess, prepare
from ghostdeploy.samples import report
from ghostdeploy.tasks.ranking import rank
from ghostdeploy.visible import visible_line

if TYPE_CHECKING:
    from collections.abc import Iterator
    from concurrent.futures import Future

    from numpy.typing import NDArray

IN_FLIGHT = 4


class Frame:
    """A frame on its way through the engine.

    Args:
        name: File name, or number in the video.
        begin: When it was decoded, by `time.perf_counter`, in seconds.
        future: Its logits, (1, classes).
    """

    def __init__(self, name: str, begin: float, future: Future[NDArray[Any]]) -> None:
        self.name, self.begin, self.future = name, begin, future
        self._end: float | None = None
        future.add_done_callback(self._stamp)

    def result(self) -> tuple[NDArray[Any], float]:
        """Waits; returns the logits (classes,) and the latency in seconds."""
        logits = self.future.result()[0]
        end = self._end or time.perf_counter()  # a waiter may wake up before the callback has run
        return logits, end - self.begin

    def _stamp(self, _: Future[NDArray[Any]]) -> None:
        self._end = time.perf_counter()


def frames(source: str) -> Iterator[tuple[str, Any]]:
    """Yields (name, image) of each frame; images are what `ghostdeploy.preprocess.prepare` takes.

    In place of a damaged image stands its `InputError`.

    Raises:
        DataError: No such folder, no image in it, or a video or camera that cannot be opened.
        MissingDependency: A video or camera, and OpenCV is not installed.
    """
    if source.isdecimal():
        return _captured(int(source), f"camera {source}")
    if Path(source).is_file() and Path(source).suffix.lower() not in IMAGE_SUFFIXES:
        return _captured(source, f"video {source}")
    return _decoded(source)


def _decoded(source: str) -> Iterator[tuple[str, Any]]:
    folder = Path(source)
    found = folder.iterdir() if folder.is_dir() else map(Path, glob.glob(source))  # noqa: PTH207 - takes absolute patterns
    paths = sorted((path for path in found if path.suffix.lower() in IMAGE_SUFFIXES), key=_frame_order)
    if not paths:
        hint = "give a folder of images, a quoted pattern, a video file, or the number of a camera"
        raise DataError(f"source {source!r} holds no image, expected files such as frame_1.jpg", hint=hint)
    for path in paths:
        try:
            image: Any = open_image(path)
        except InputError as error:
            image = error
        yield path.name, image


def _frame_order(path: Path) -> list[tuple[bool, int, str]]:
    """Sorts frame_2 before frame_10."""
    return [
        (not part.isdecimal(), int(part) if part.isdecimal() else 0, part) for part in re.split(r"(\d+)", path.name)
    ]


def _captured(source: int | str, name: str) -> Iterator[tuple[str, Any]]:
    try:
        import cv2
    except ImportError as error:
        hint = 'pip install "ghostdeploy[camera]", or give a folder of images'
        raise MissingDependency(f"{name} needs OpenCV, not installed here: {error}", hint=hint) from error
    capture = cv2.VideoCapture(source)
    try:
        if not capture.isOpened():
            raise DataError(f"{name} cannot be opened by OpenCV", hint="check its number, file and permissions")
        number = 0
        while True:
            there, image = capture.read()
            if not there:
                return
            number += 1
            yield f"{number:06d}", cv2.cvtColor(image, cv2.COLOR_BGR2RGB)
    finally:
        capture.release()


def classify(bundle: str, source: str, in_flight: int) -> int:
    """Prints one line per frame, and the summary; returns the exit code: that of a damaged frame, else 0."""
    bad: list[int] = []
    with gd.load(bundle, profile="throughput") as model:
        opened = open_bundle(bundle, check_hashes=False)  # just checked
        labels, spec, scores = opened.labels(), opened.manifest.preprocess, opened.manifest.scores
        model.warmup()
        begin, count = time.perf_counter(), 0
        try:
            for frame in _run(model, source, spec, in_flight, bad):
                values, latency = frame.result()
                label, probability = rank(values, labels, 1, where=bundle, scores=scores)[0]
                print(visible_line(f"{frame.name}: {label} {probability:.1%} {1000 * latency:.1f} ms"), flush=True)
                count += 1
        except KeyboardInterrupt:
            print("stopped", file=sys.stderr)
        seconds = time.perf_counter() - begin
        print(f"{count} frames in {seconds:.2f} s: {count / seconds:.1f} frames/s")
    return max(bad, default=0)


def _run(model: gd.Runtime, source: str, spec: Preprocess, in_flight: int, bad: list[int]) -> Iterator[Frame]:
    """Yields the frames in order, each as soon as it is done or the limit requires it; reports damaged ones."""
    waiting: deque[Frame] = deque()
    for name, image in frames(source):
        if isinstance(image, InputError):
            bad.append(report(image))
            continue
        begin = time.perf_counter()
        while waiting and (len(waiting) >= in_flight or waiting[0].future.done()):
            yield waiting.popleft()
        waiting.append(Frame(name, begin, model.submit(prepare([image], spec))))
    yield from waiting


def main(arguments: list[str] | None = None) -> int:
    """Runs the sample; returns the exit code."""
    parser = argparse.ArgumentParser(prog="classify_stream", description="Classify a stream of frames with a bundle.")
    parser.add_argument("--bundle", required=True, metavar="DIR", help="folder that `ghostdeploy export` wrote")
    parser.add_argument(
        "--source", required=True, metavar="SOURCE", help="folder, quoted pattern, video, camera number"
    )
    parser.add_argument(
        "--in-flight", type=int, default=IN_FLIGHT, metavar="N", help=f"outstanding results (default {IN_FLIGHT})"
    )
    options = parser.parse_args(arguments)
    if options.in_flight < 1:
        parser.error(f"--in-flight is {options.in_flight}, expected at least 1")
    try:
        return classify(options.bundle, options.source, options.in_flight)
    except gd.GhostDeployError as error:
        return report(error)
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main())
