"""What a reader of outside files is, what runs it, and how its files are damaged."""

from __future__ import annotations

import io
import json
import zipfile
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ghostdeploy.cli import main
from ghostdeploy.errors import GhostDeployError
from tests.fuzzing import mutations
from tests.signing import sealed

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

NOISE = np.random.default_rng(0).integers(0, 256, (24, 20, 3), np.uint8)
OURS = (0, 1, 2, 3, 4)
"""Exit codes that a damaged file may lead to: read, another figure, and what is said in one sentence."""


@dataclass(frozen=True, kw_only=True)
class Reader:
    """One kind of file and what takes it."""

    whole: bytes
    """A valid file."""
    damaged: Callable[[int, int], Iterator[bytes]]
    """Count, seed → files."""
    attempt: Callable[[bytes], int]
    """Takes a file; returns the exit code, raises where the answer is none of ours."""
    growth: int = 512 << 20
    """Bytes by which the process may grow: what an archive may claim, twice."""


def command(*words: object) -> int:
    """Runs a command in this process and returns its exit code.

    Raises:
        AssertionError: It says more than one error, shows a traceback or a warning, or passes on control characters.
    """
    out, err, code = io.StringIO(), io.StringIO(), 0
    with redirect_stdout(out), redirect_stderr(err):
        try:
            main([str(word) for word in words])
        except SystemExit as leaving:
            code = int(leaving.code or 0)
    said = err.getvalue()
    assert code in OURS, (code, said)
    assert "Traceback" not in said, said
    assert "Warning" not in said, said
    assert "\x1b" not in out.getvalue() + said, said
    assert sum(line.startswith("error: ") for line in said.splitlines()) == int(code > 1), said
    return code


def called(function: Callable[[], object]) -> int:
    """Returns the exit code that a call of the library leads to; any error that is not ours goes through."""
    found = None
    try:
        function()
    except GhostDeployError as error:
        found = error
    assert found is None or (found.exit_code in OURS and "\n" not in found.message), found
    return 0 if found is None else found.exit_code


def bundle_in(folder: Path, precision: str = "fp32") -> Path:
    from tests.bundles import make_bundle

    return make_bundle(folder, "onnx", precision=precision)


def resealed(document: Any) -> bytes:
    """Returns JSON with the digest that it has now, where one can be computed."""
    try:
        return sealed(document).encode()
    except (ValueError, TypeError, AttributeError, RecursionError):
        return json.dumps(document).encode()


def plain(whole: bytes) -> Callable[[int, int], Iterator[bytes]]:
    """Returns what damages bytes."""
    return lambda count, seed: mutations(whole, count, seed)


def archives(whole: bytes) -> Callable[[int, int], Iterator[bytes]]:
    """Returns what damages an archive: every second one inside, with a right directory and checksums."""

    def damaged(count: int, seed: int) -> Iterator[bytes]:
        with zipfile.ZipFile(io.BytesIO(whole)) as archive:
            members = {name: archive.read(name) for name in archive.namelist()}
        inside = {name: mutations(data, count, seed) for name, data in members.items()}
        names = list(members)
        for number, outside in enumerate(mutations(whole, count, seed)):
            if number % 2:
                yield outside
                continue
            chosen, stream = names[number // 2 % len(names)], io.BytesIO()
            with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
                for name, data in members.items():
                    archive.writestr(name, next(inside[name]) if name == chosen else data)
            yield stream.getvalue()

    return damaged


def archive(**arrays: Any) -> bytes:
    """Returns an `.npz` file."""
    stream = io.BytesIO()
    np.savez_compressed(stream, **arrays)
    return stream.getvalue()
