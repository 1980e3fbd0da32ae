"""Damaged manifests, arrays and checkpoints: an answer or one sentence, in seconds and in bounded memory.

`make fuzz` tries 2,000 of each, the normal run the first of each kind.
"""

from __future__ import annotations

import io
import json
import os
import shutil
import struct
import sys
import time
import zipfile

import numpy as np
import pytest
import torch
from safetensors.torch import save as save_safetensors

from ghostdeploy.arrays import ALLOWANCE, parse_arrays
from ghostdeploy.errors import BadInput
from ghostdeploy.models.checkpoint import read_checkpoint
from ghostdeploy.models.identify import read_header
from tests.commands import run
from tests.fuzzing import documents, mutations
from tests.robustness.reading import resealed

resource = pytest.importorskip("resource", reason="memory is measured as POSIX systems do")

MANY = os.environ.get("HYPOTHESIS_PROFILE") == "fuzz"
SECONDS = 10
"""Processor time of one file: far above what any takes, far below a hang."""
MEMORY = 2 * ALLOWANCE
"""Bytes of growth: what an archive may claim, and one copy."""


def peak():
    """Largest memory of this process so far, in bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def hold_limits(attempts, attempt):
    """Runs `attempt` on each; none takes long, and together they do not grow the process."""
    before = peak()
    for number, one in enumerate(attempts):
        begin = time.process_time()
        attempt(one)
        assert time.process_time() - begin < SECONDS, number
    assert peak() - before < MEMORY


@pytest.mark.parametrize("kind", ["bytes", "values"])
@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_a_damaged_manifest_is_read_or_refused(tiny_bundle, precision, kind, tmp_path, capsys):
    folder = shutil.copytree(tiny_bundle("onnx", precision), tmp_path / "copy")
    data = (folder / "manifest.json").read_bytes()
    count, seed = 500 if MANY else 12, precision == "int8"
    found = mutations(data, count, seed) if kind == "bytes" else documents(json.loads(data), count, seed, resealed)
    codes = []

    def attempt(damaged):
        (folder / "manifest.json").write_bytes(damaged)
        for command in ("inspect", "verify"):
            answer = run(capsys, command, folder)
            assert answer.code in (0, 1, 3), (damaged, answer)
            assert "\x1b" not in answer.out + answer.err
            codes.append(answer.code)

    hold_limits(found, attempt)

    assert 3 in codes


def npz(save):
    stream = io.BytesIO()
    save(stream, images=np.arange(2 * 4 * 4 * 3, dtype=np.uint8).reshape(2, 4, 4, 3), labels=np.arange(2))
    return stream.getvalue()


def repacked(count, seed):
    """Yields archives whose members are damaged and whose directory and checksums are right."""
    member = io.BytesIO()
    np.save(member, np.arange(48, dtype=np.float32).reshape(2, 24))
    for damaged in mutations(member.getvalue(), count, seed):
        stream = io.BytesIO()
        with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("images.npy", damaged)
        yield stream.getvalue()


@pytest.mark.parametrize("kind", ["stored", "deflated", "repacked"])
def test_damaged_arrays_are_read_or_refused(kind):
    count, seed = 700 if MANY else 40, ("stored", "deflated", "repacked").index(kind)
    save = np.savez if kind == "stored" else np.savez_compressed
    refused = []

    def attempt(damaged):
        try:
            parse_arrays(damaged)
        except ValueError as error:
            refused.append(str(error))

    hold_limits(repacked(count, seed) if kind == "repacked" else mutations(npz(save), count, seed), attempt)

    assert all(refused)
    assert len(refused) > count / 4


STATE = {"stem.weight": torch.arange(24.0).reshape(2, 3, 4), "stem.bias": torch.zeros(2), "seen": torch.tensor(3)}


def pickled(**options):
    stream = io.BytesIO()
    torch.save(STATE, stream, **options)
    return stream.getvalue()


CHECKPOINTS = {
    "safetensors": lambda: save_safetensors(STATE, metadata={"labels": '["a", "b"]', "model": "ghostnet_050"}),
    "zip": pickled,
    "old pickle": lambda: pickled(_use_new_zipfile_serialization=False),
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", CHECKPOINTS)
def test_a_damaged_checkpoint_is_read_or_refused(kind, tmp_path):
    count, seed = 700 if MANY else 40, list(CHECKPOINTS).index(kind)
    path, refused = tmp_path / "weights", []

    def attempt(damaged):
        path.write_bytes(damaged)
        try:
            read_header(read_checkpoint(path), None)
        except BadInput as error:
            refused.append(error)

    hold_limits(mutations(CHECKPOINTS[kind](), count, seed), attempt)

    assert len(refused) > count / 4
    assert not any("\n" in error.message for error in refused)


@pytest.mark.parametrize("length", [0, 1, 2, 2**31, 2**40, 2**62, 2**64 - 1])
@pytest.mark.parametrize(
    "tensor",
    [
        {"dtype": "F32", "shape": [10**12], "data_offsets": [0, 4 * 10**12]},
        {"dtype": "F32", "shape": [2**62, 4], "data_offsets": [0, 0]},
        {"dtype": "F32", "shape": [10**400], "data_offsets": [0, 4]},
        {"dtype": "F32", "shape": [-1], "data_offsets": [4, 0]},
    ],
)
def test_a_header_that_claims_what_the_file_does_not_hold_is_refused(length, tensor, tmp_path):
    header = json.dumps({"w": tensor}).encode()
    honest = length == 0

    def attempt(data):
        (tmp_path / "weights").write_bytes(data)
        with pytest.raises(BadInput):
            read_checkpoint(tmp_path / "weights")

    hold_limits([struct.pack("<Q", len(header) if honest else length) + header], attempt)
