"""Receipts of commands on this machine: the same as those of a device."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any

from ghostdeploy.bundle.folder import open_bundle
from ghostdeploy.deploy.prove.commands import verify
from ghostdeploy.device.probe import probe
from ghostdeploy.device.proof import Proof, Timed, prove
from ghostdeploy.device.receipt import latency_of, mark, receipt, write
from ghostdeploy.device.supervise import Watch
from ghostdeploy.errors import GhostDeployError

if TYPE_CHECKING:
    import os
    from collections.abc import Sequence
    from pathlib import Path

    from ghostdeploy.bundle.signature import Trust
    from ghostdeploy.deploy.measure.bench import Bench
    from ghostdeploy.deploy.prove.commands import Verification
    from ghostdeploy.deploy.prove.evaluate import Evaluation
    from ghostdeploy.deploy.prove.task_evaluation import TaskEvaluation
    from ghostdeploy.device.receipt import Command, Receipt


class Home:
    """Proves bundles here; where a receipt is wanted, watches this machine meanwhile and writes it.

    Args:
        command: Whose receipt is wanted.
        file: Where it goes; None wants none.
        trust: Signatures that bundles must have; None requires none.
    """

    def __init__(self, command: Command, file: Path | None, *, trust: Trust | None = None) -> None:
        self._command: Command = command
        self._trust = trust
        self._file = file
        self._watch: Watch | None = None
        self._proofs: dict[str, Proof] = {}
        self._blocks: list[tuple[tuple[float, ...], ...]] = []

    def __enter__(self) -> Home:
        """Starts watching."""
        if self._file is not None:
            self._device, self._watch = probe(), Watch()
            self._watch.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        """Looks for the last time."""
        if self._watch is not None:
            self._watch.__exit__()

    def verify(self, path: str | os.PathLike[str]) -> Verification:
        """Verifies a bundle; see `deploy.prove.commands.verify`."""
        if self._file is None:
            return verify(path, trust=self._trust)
        self._proofs[str(path)] = prove(path, trust=self._trust)
        return self._proofs[str(path)].verification

    def prove(self, paths: Sequence[Path]) -> None:
        """Verifies the bundles of another command, where a receipt is wanted; that command tells what is wrong."""
        for path in paths if self._file is not None else ():
            with suppress(GhostDeployError):
                self.verify(path)

    def keep(self, blocks_ms: tuple[tuple[float, ...], ...]) -> None:
        """Keeps the calls of a bundle; see `deploy.measure.bench.bench`."""
        self._blocks.append(blocks_ms)

    def write_verified(self) -> None:
        """Writes the receipts of all that were verified."""
        self._write([self._receipt(path) for path in self._proofs])

    def write_evaluated(self, found: Sequence[Evaluation | TaskEvaluation]) -> None:
        """Writes the receipts of what `eval` measured."""
        there = [one for one in found if one.bundle in self._proofs]
        self._write([self._receipt(one.bundle, evaluation=one) for one in there])

    def write_benched(self, found: Bench, paths: Sequence[Path]) -> None:
        """Writes the receipts of what `bench` measured."""
        timed = Timed(bench=found, blocks_ms=tuple(self._blocks))
        there = [(number, str(path)) for number, path in enumerate(paths) if str(path) in self._proofs]
        self._write([self._receipt(path, latency=latency_of(timed, number)) for number, path in there])

    def _write(self, receipts: list[Receipt]) -> None:
        if self._file is not None and receipts:
            write(self._file, receipts)

    def _receipt(self, path: str, **measured: Any) -> Receipt:
        assert self._watch is not None
        marked = mark(path, open_bundle(path, check_hashes=False).manifest)
        return receipt(self._command, marked, self._device, self._watch.states, self._proofs[path], **measured)
