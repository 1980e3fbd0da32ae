"""A runtime belongs to the process that loaded it: what a forked child may do, and that a spawned one is as good."""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import sys

import numpy as np
import pytest

import ghostdeploy as gd
from ghostdeploy import targets
from ghostdeploy.bundle.folder import open_bundle
from ghostdeploy.errors import UsageError
from tests.bundles import Tiny
from tests.conftest import require

USES = {
    "call": lambda r, batch: r(batch),
    "infer": lambda r, batch: r.infer({"input": batch}),
    "submit": lambda r, batch: r.submit(batch, timeout=0),
    "warmup": lambda r, _: r.warmup(),
    "classify": lambda r, _: r.classify(Tiny().images(1)[0]),
}

SEVERAL_THREADS = {"OMP_THREAD_LIMIT": "8"}
"""`make test` allows OpenMP one."""

LOADS_AGAIN = """
import os, signal, sys
import numpy as np
import ghostdeploy as gd

path, threads, profile = sys.argv[1], int(sys.argv[2]), sys.argv[3]
model = gd.load(path, threads=threads, profile=profile)
batch = np.ones([2, *model.info()["inputs"][0]["shape"][1:]], np.float32)
expected = model(batch)
model.submit(batch).result()
child = os.fork()
if child == 0:
    signal.alarm(60)
    model = gd.load(path, threads=threads, profile=profile)  # drops the parent's
    found = model(batch), model.submit(batch).result()
    model.close()
    os._exit(0 if all(np.array_equal(one, expected) for one in found) else 1)
ended = os.waitpid(child, 0)[1]
assert ended == 0, f"the child ended with {ended}"
assert np.array_equal(model(batch), expected)
assert np.array_equal(model.submit(batch).result(), expected)
"""


def one_image(path):
    return open_bundle(path).golden()[0]["input"][:1]


@pytest.fixture(params=targets.TARGETS)
def path(request, tiny_bundle):
    require(request.param, execution=True)
    return tiny_bundle(request.param)


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
@pytest.mark.parametrize("use", USES)
def test_a_forked_child_is_told_to_load_its_own(path, use):
    batch = one_image(path)
    with gd.load(path, threads=2) as opened:
        expected = opened.submit(batch).result(60)
        read, write = os.pipe()
        child = os.fork()
        if child == 0:  # nothing here may reach pytest: its state was copied too
            try:
                USES[use](opened, batch)
                said = "no error"
            except UsageError as error:
                said = f"{error.message} | {error.hint} | {opened.info()['name']}"
            opened.close()
            os.write(write, said.encode())
            os._exit(0)
        os.close(write)
        with os.fdopen(read) as stream:
            said = stream.read()
        os.waitpid(child, 0)
        assert np.array_equal(opened(batch), expected)

    assert "forked" in said
    assert "ghostdeploy.load in the child" in said
    assert "tiny" in said


@pytest.mark.parametrize("profile", ["latency", "throughput"])
def test_a_forked_child_may_load_its_own_and_drop_its_parents(path, profile):
    done = subprocess.run(
        [sys.executable, "-W", "ignore::DeprecationWarning", "-c", LOADS_AGAIN, path, "2", profile],
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
        env=os.environ | SEVERAL_THREADS,
    )

    assert done.returncode == 0, done.stderr


ENDS = """
import sys
import ghostdeploy as gd
from ghostdeploy.bundle.folder import open_bundle

batch = open_bundle(sys.argv[1]).golden()[0]["input"][:1]
model = gd.load(sys.argv[1], threads=2, profile=sys.argv[2], queue=100)
futures = [model.submit(batch) for _ in range(100)]
for future in futures:
    future.add_done_callback(lambda done: done.exception())
"""


@pytest.mark.parametrize("profile", ["latency", "throughput"])
def test_a_process_that_ends_without_close_ends_well(path, profile):
    command = [sys.executable, "-c", ENDS, path, profile]
    for _ in range(3):
        done = subprocess.run(
            command, capture_output=True, text=True, check=False, timeout=300, env=os.environ | SEVERAL_THREADS
        )

        assert done.returncode == 0, done.stderr
        assert "Traceback" not in done.stderr


def answer(path):
    with gd.load(path, threads=1) as opened:
        return opened.submit(one_image(path)).result(60)


def test_a_spawned_child_loads_its_own(path):
    with gd.load(path, threads=1) as opened, multiprocessing.get_context("spawn").Pool(1) as pool:
        assert np.array_equal(pool.apply_async(answer, (path,)).get(120), opened(one_image(path)))
