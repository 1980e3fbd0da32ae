"""Readers of checkpoints and ONNX files."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

import numpy as np

from tests.fuzzing import mixed, mutations
from tests.robustness.reading import Reader, archives, called

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path


def safetensors(folder: Path) -> Reader:
    """A `.safetensors` checkpoint whose header is JSON with odd values."""
    import struct

    import torch
    from safetensors.torch import save

    data = save(
        {"a.weight": torch.arange(24.0).reshape(2, 3, 4), "a.bias": torch.zeros(2)}, metadata={"labels": '["a"]'}
    )
    (length,) = struct.unpack("<Q", data[:8])
    header, rest = data[8 : 8 + length], data[8 + length :]

    def damaged(count: int, seed: int) -> Iterator[bytes]:
        for one in mixed(header)(count, seed):
            yield struct.pack("<Q", len(one)) + one + rest

    return Reader(whole=data, damaged=damaged, attempt=_checkpoint(folder))


def torch_archive(folder: Path) -> Reader:
    """A `.pt` checkpoint whose members are damaged inside an archive that is right."""
    import torch

    stream = io.BytesIO()
    torch.save({"a.weight": torch.arange(24.0).reshape(2, 3, 4), "a.bias": torch.zeros(2)}, stream)
    return Reader(whole=stream.getvalue(), damaged=archives(stream.getvalue()), attempt=_checkpoint(folder))


def _checkpoint(folder: Path) -> Callable[[bytes], int]:
    import warnings

    from ghostdeploy.models.checkpoint import read_checkpoint
    from ghostdeploy.models.identify import read_header

    def attempt(data: bytes) -> int:
        (folder / "weights").write_bytes(data)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return called(lambda: read_header(read_checkpoint(folder / "weights"), None))

    return attempt


def graph(folder: Path) -> Reader:
    """An ONNX file of a user: opened, checked, run as the reference, and rewritten as an export does."""
    from ghostdeploy.batches import as_batch
    from ghostdeploy.deploy.intake.onnx import branches, difference, interface, opset, plain_forms, prepare, rewrite
    from ghostdeploy.deploy.intake.onnx.model import open_onnx
    from tests.onnx_files import small
    from tests.robustness.graphs import changed

    path = folder / "net.onnx"
    model = small(batch=1, size=16)
    whole = model.SerializeToString()
    images = np.random.default_rng(1).normal(size=(1, 3, 16, 16)).astype(np.float32)

    def damaged(count: int, seed: int) -> Iterator[bytes]:
        yield from changed(model, count - count // 4, seed)
        yield from mutations(whole, count // 4, seed)

    def run() -> None:
        opened = open_onnx(path)
        batch = as_batch(dict.fromkeys(opened.input_names, images))
        outputs = opened.reference().outputs(batch)
        sizes = interface.sizes_of(opened.proto, batch)
        decided = branches.decide(opened.proto, opened.name, 1, sizes)
        shaped = plain_forms.write_plainly(interface.with_shape(opset.upgrade(decided, opened.name), 1, sizes))
        difference.require_same(shaped, batch, outputs, 1, opened)
        folded, _ = rewrite.rewrite(shaped, batch)
        prepare.describe(opened, "net", 0, folded)

    def attempt(data: bytes) -> int:
        path.write_bytes(data)
        return called(run)

    return Reader(whole=whole, damaged=damaged, attempt=attempt)
