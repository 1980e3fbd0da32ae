"""A runtime of three hooks in pure NumPy, for what the base class promises whatever the backend does."""

from __future__ import annotations

import threading

import numpy as np

from ghostdeploy.bundle.manifest import TensorSpec
from ghostdeploy.preprocess import Preprocess
from ghostdeploy.runtimes.base import Runtime
from ghostdeploy.runtimes.interface import Engine, Interface, Settings

LABELS = ["a", "b", "c"]


class Means(Runtime):
    """Gives the mean of each channel; `before` runs inside each native call."""

    engine = "numpy"

    def __init__(
        self, *, batch=None, streams=1, queue=None, before=lambda inputs: None, opening=lambda: None, **changes
    ):
        self.before = before
        self.opening = opening
        self.streams = streams
        self.calls = []
        self.closed = 0
        inputs = (TensorSpec(name="x", dtype="float32", shape=(batch, 3, 4, 4), layout="nchw"),)
        outputs = (TensorSpec(name="y", dtype="float32", shape=(batch, 3)),)
        preprocess = Preprocess(size=4, crop_fraction=1.0)
        facts = {"labels": LABELS, "inputs": inputs, "outputs": outputs, "preprocess": preprocess} | changes
        super().__init__(
            Interface(
                name="means",
                where="out/means",
                target="numpy",
                precision="fp32",
                **facts,
            ),
            Settings(queue=queue),
        )

    def _open(self):
        self.opening()
        return Engine(
            version="1",
            device="CPU",
            threads=1,
            streams=self.streams,
            precision="float32",
            inputs=self._interface.inputs,
            outputs=(TensorSpec(name="y", dtype="float32", shape=(self._interface.inputs[0].shape[0], 3)),),
        )

    def _run(self, inputs):
        self.before(inputs)
        self.calls.append(len(inputs["x"]))
        return [inputs["x"].mean(axis=(2, 3))]

    def _close(self):
        self.closed += 1


def images(count):
    return np.random.default_rng(count).normal(size=(count, 3, 4, 4)).astype(np.float32)


def means(count):
    """What the runtime gives for `images(count)`."""
    return images(count).mean(axis=(2, 3))


def assert_nothing_is_held(runtime):
    """All slots of the queue are free, and nobody is inside: close does not wait for ever."""
    slots = [runtime._submissions._slots.acquire(timeout=0) for _ in range(runtime.info()["queue"])]
    assert all(slots)
    for _ in slots:
        runtime._submissions._slots.release()
    closer = threading.Thread(target=runtime.close, daemon=True)
    closer.start()
    closer.join(20)
    assert not closer.is_alive()
    assert runtime.closed == 1
