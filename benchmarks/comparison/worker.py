"""PyTorch or ncnn in a process of its own, with the protocol of `ghostdeploy.deploy.measure.bench_worker`.

Arguments: KIND MODEL_OR_FOLDER THREADS BATCH CORE,…
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from ghostdeploy.deploy.measure.bench_worker import WARM_SECONDS, Answer, Loaded, Order, peak_bytes

Call = Callable[[np.ndarray], np.ndarray]


def main() -> int:
    kind, source, threads, batch, cores = sys.argv[1:6]
    if cores:
        os.sched_setaffinity(0, [int(core) for core in cores.split(",")])
    start = time.perf_counter()
    try:
        if kind == "ncnn":
            size = json.loads((Path(source) / "about.json").read_text())["size"]
            call, version = ncnn_call(source, threads=int(threads)), ncnn_version()
        else:
            call, size, version = torch_call(source, threads=int(threads), compiled=kind == "torch-compile")
        images = np.random.default_rng(0).standard_normal((int(batch), 3, size, size), np.float32)
        call(images)
    except Exception as error:  # whatever the engine raises is its answer
        say(Loaded(error=f"{kind} cannot run {source}: {str(error).splitlines()[0][:200] if str(error) else error!r}"))
        return 0
    say(Loaded(seconds=time.perf_counter() - start, info={"engine": kind, "engine_version": version}))
    end = time.perf_counter() + WARM_SECONDS
    while time.perf_counter() < end:
        call(images)
    for line in sys.stdin.buffer:
        order = msgspec.json.decode(line, type=Order)
        say(Answer(seconds=[timed(call, images) for _ in range(order.count)], peak_bytes=peak_bytes()))
    return 0


def torch_call(spec: str, *, threads: int, compiled: bool) -> tuple[Call, int, str]:
    import torch

    from ghostdeploy.deploy.default_route.model import Named

    torch.set_num_threads(threads)
    model = Named(spec=spec).load()
    module = torch.compile(model.module) if compiled else model.module

    def call(images: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            return module(torch.from_numpy(images)).numpy()

    return call, model.preprocess.size, str(torch.__version__)


def ncnn_call(folder: str, *, threads: int) -> Call:
    """Returns a call that runs image by image: ncnn has no batch."""
    import ncnn

    net = ncnn.Net()
    net.opt.num_threads = threads
    net.load_param(f"{folder}/model.ncnn.param")
    net.load_model(f"{folder}/model.ncnn.bin")

    def one(image: np.ndarray) -> np.ndarray:
        extractor = net.create_extractor()
        extractor.input("in0", ncnn.Mat(image))
        return np.array(extractor.extract("out0")[1])

    def call(images: np.ndarray) -> np.ndarray:
        return np.stack([one(image) for image in images])

    return call


def ncnn_version() -> str:
    from importlib.metadata import version

    return version("ncnn")


def timed(call: Call, images: np.ndarray) -> float:
    start = time.perf_counter()
    call(images)
    return time.perf_counter() - start


def say(answer: Any) -> None:
    sys.__stdout__.buffer.write(msgspec.json.encode(answer) + b"\n")
    sys.__stdout__.buffer.flush()


if __name__ == "__main__":
    sys.exit(main())
