"""Random networks in C under sanitizers: nothing is read or written beyond a block, nothing races, nothing overflows.

`make fuzz` takes thousands, with every kind of build and instruction set; `make test` a seeded few for memory alone.
Others are taken by `python -m tests.native_batches COUNT SEED`.
"""

from __future__ import annotations

import os

import pytest

from tests.conftest import refuse, require, require_program

MANY = os.environ.get("HYPOTHESIS_PROFILE") == "fuzz"
COUNT = int(os.environ.get("FUZZ_NETWORKS", "4000")) if MANY else 40
SEED = int(os.environ.get("FUZZ_SEED", "1000"))


@pytest.fixture(scope="module")
def kernels(tmp_path_factory):
    require("native")
    require("executorch")  # its reader of ONNX graphs is what PyTorch computes here
    compiler, folder = require_program("cc"), tmp_path_factory.mktemp("kernels")
    from tests.native_batches import Kernels, all_kernels, levels, start_of

    if start_of("memory", [compiler], folder) is None:
        refuse("cc", "cc has no sanitizers here")
    level = levels()[0]
    return all_kernels(folder) if MANY else [Kernels([compiler], "memory", level, folder / level)]


def test_random_networks_keep_to_their_memory_and_give_what_pytorch_gives(kernels, tmp_path):
    from tests.native_batches import BATCH, run

    found = []
    for first in range(SEED, SEED + COUNT, BATCH):
        found.append(run(range(first, min(first + BATCH, SEED + COUNT)), kernels, tmp_path))
    print(f"{COUNT} networks from seed {SEED} on: {', '.join(f'{one.kind} {one.level}' for one in kernels)}")

    assert not any(found), "\n".join(filter(None, found))
