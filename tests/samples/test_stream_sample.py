"""The stream sample: frames in order, a bounded number under way, every kind of source, a clean end."""

from __future__ import annotations

import re
import shutil
import signal
import subprocess
import sys
import threading
from concurrent.futures import Future

import numpy as np
import pytest
from PIL import Image

import ghostdeploy as gd
from ghostdeploy import samples
from ghostdeploy.preprocess import Preprocess
from ghostdeploy.samples import classify_stream

LINE = re.compile(r"(?P<name>\S+): (?P<label>.+) (?P<probability>\d+\.\d)% (?P<latency>\d+\.\d) ms")
SUMMARY = re.compile(r"(?P<count>\d+) frames in \d+\.\d\d s: (?P<rate>\d+\.\d) frames/s")


@pytest.fixture
def clip(tmp_path):
    """A folder of numbered frames, and a file that is none."""
    folder = tmp_path / "clip"
    folder.mkdir()
    for number in range(1, 13):
        shutil.copy(samples.example_images()[number % 10], folder / f"frame_{number}.png")
    (folder / "notes.txt").write_text("no frame")
    return folder


def run(bundle, source, *more):
    return classify_stream.main(["--bundle", str(bundle), "--source", str(source), *more])


@pytest.mark.parametrize("in_flight", ["1", "3", "50"])
def test_frames_come_in_the_order_of_their_numbers_with_the_classes_of_classify(tiny_bundle, clip, capsys, in_flight):
    bundle = tiny_bundle("onnx")

    assert run(bundle, clip, "--in-flight", in_flight) == 0

    *lines, summary = capsys.readouterr().out.splitlines()
    found = [LINE.fullmatch(line) for line in lines]
    with gd.load(bundle) as model:
        expected = [model.classify(clip / f"frame_{number}.png", k=1)[0] for number in range(1, 13)]
    assert [match["name"] for match in found] == [f"frame_{number}.png" for number in range(1, 13)]
    assert [(match["label"], match["probability"]) for match in found] == [(n, f"{100 * p:.1f}") for n, p in expected]
    assert SUMMARY.fullmatch(summary)["count"] == "12"


def test_a_pattern_chooses_frames(tiny_bundle, clip, capsys):
    assert run(tiny_bundle("onnx"), clip / "frame_1*.png") == 0

    lines = capsys.readouterr().out.splitlines()
    assert [line.partition(":")[0] for line in lines[:-1]] == [f"frame_{n}.png" for n in (1, 10, 11, 12)]


class Slow:
    """A runtime of the test's own: its results come when the test says so."""

    def __init__(self):
        self.futures = []

    def submit(self, batch):
        self.futures.append(Future())
        return self.futures[-1]


def test_no_more_frames_are_under_way_than_asked_for(clip):
    model = Slow()
    results = classify_stream._run(model, str(clip), Preprocess(size=16), 3, [])
    threading.Timer(0.2, lambda: model.futures[0].set_result(np.zeros((1, 10)))).start()

    first = next(results)

    assert first.name == "frame_1.png"
    assert len(model.futures) == 3
    assert first.result()[1] >= 0.15


def test_a_finished_frame_is_given_out_before_the_limit_is_reached(clip):
    model = Slow()
    results = classify_stream._run(model, str(clip), Preprocess(size=16), 8, [])
    read = classify_stream.frames(str(clip))
    for name, _ in read:
        if name == "frame_2.png":
            break
    model.submit = lambda batch: model.futures.append(done := Future()) or done.set_result(np.zeros((1, 10))) or done

    assert next(results).name == "frame_1.png"
    assert len(model.futures) == 1


def test_a_video_is_read_by_opencv(tiny_bundle, tmp_path, capsys):
    cv2 = pytest.importorskip("cv2", reason="OpenCV is not installed here")
    path = tmp_path / "clip.avi"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), 10, (64, 48))
    red = np.zeros((48, 64, 3), np.uint8)
    red[..., 2] = 255  # OpenCV's order is BGR
    for _ in range(7):
        writer.write(red)
    writer.release()
    bundle = tiny_bundle("onnx")

    assert run(bundle, path) == 0

    *lines, summary = capsys.readouterr().out.splitlines()
    with gd.load(bundle) as model:
        (label, probability), *_ = model.classify(Image.new("RGB", (64, 48), (254, 0, 0)))
    assert [line.partition(":")[0] for line in lines] == [f"{number:06d}" for number in range(1, 8)]
    assert {LINE.fullmatch(line)["label"] for line in lines} == {label}
    assert float(LINE.fullmatch(lines[0])["probability"]) == pytest.approx(100 * probability, abs=2)
    assert summary.startswith("7 frames")


def test_without_opencv_a_camera_names_the_extra(tiny_bundle, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "cv2", None)

    assert run(tiny_bundle("onnx"), "0") == 4

    assert 'pip install "ghostdeploy[camera]"' in capsys.readouterr().err


@pytest.mark.parametrize(("name", "words"), [("none", "holds no image"), ("clip/*.webp", "holds no image")])
def test_a_source_without_frames_is_one_sentence(tiny_bundle, clip, capsys, name, words):
    assert run(tiny_bundle("onnx"), clip.parent / name) == 3
    assert words in capsys.readouterr().err


def test_damaged_frames_are_named_and_left_out(tiny_bundle, clip, capsys):
    (clip / "frame_3.png").write_bytes(b"\x89PNG")
    (clip / "frame_12.png").write_bytes(b"")

    assert run(tiny_bundle("onnx"), clip) == 3

    said = capsys.readouterr()
    *lines, summary = said.out.splitlines()
    assert [line.partition(":")[0] for line in lines] == [f"frame_{n}.png" for n in range(1, 12) if n != 3]
    assert SUMMARY.fullmatch(summary)["count"] == "10"
    errors = [line for line in said.err.splitlines() if line.startswith("error: ")]
    assert ["frame_3.png" in errors[0], "frame_12.png" in errors[1], len(errors)] == [True, True, 2]


def test_a_file_that_is_no_video_is_one_sentence(tiny_bundle, tmp_path, capfd):
    pytest.importorskip("cv2", reason="OpenCV is not installed here")
    (tmp_path / "clip.mp4").write_bytes(b"no video")

    assert run(tiny_bundle("onnx"), tmp_path / "clip.mp4") == 3
    assert "clip.mp4 cannot be opened" in capfd.readouterr().err


def test_a_limit_below_one_is_a_usage_error(tiny_bundle, clip, capsys):
    with pytest.raises(SystemExit) as caught:
        run(tiny_bundle("onnx"), clip, "--in-flight", "0")

    assert caught.value.code == 2
    assert "--in-flight is 0" in capsys.readouterr().err


def test_ctrl_c_ends_with_the_summary(tiny_bundle, clip):
    for number in range(13, 20_000):
        (clip / f"frame_{number}.png").symlink_to(clip / "frame_1.png")
    module = "ghostdeploy.samples.classify_stream"
    command = [sys.executable, "-m", module, "--bundle", tiny_bundle("onnx"), "--source", clip]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        head = [process.stdout.readline() for _ in range(20)]
        process.send_signal(signal.SIGINT)
        rest, errors = process.stdout.read(), process.stderr.read()  # communicate() would skip what was read ahead

    lines = [line.strip() for line in head + rest.splitlines()]
    assert process.returncode == 0, errors
    assert errors == "stopped\n"
    assert 20 <= len(lines) - 1 < 19_999
    assert (
        abs(int(SUMMARY.fullmatch(lines[-1])["count"]) - (len(lines) - 1)) <= 1
    )  # the signal may fall between the two
