"""The proof of one bundle in one process, with what a receipt wants beside the verdict."""

from __future__ import annotations

import hashlib
from importlib.metadata import distribution, version
from typing import TYPE_CHECKING

from ghostdeploy.bundle.record import Record
from ghostdeploy.deploy.measure.bench import Bench  # noqa: TC001 - msgspec resolves annotations at run time
from ghostdeploy.deploy.prove.commands import Verification, verify
from ghostdeploy.device.engines import engine_distributions
from ghostdeploy.runtimes.placement import RuntimePlacement  # noqa: TC001 - likewise

if TYPE_CHECKING:
    import os

    from ghostdeploy.bundle.signature import Trust
    from ghostdeploy.runtimes import Runtime


class Proof(Record, frozen=True, kw_only=True):
    """A verification and what computed it."""

    verification: Verification
    placement: RuntimePlacement
    ghostdeploy: str
    """Its version there."""
    engine_record: str | None
    """SHA-256 of the list of files that pip keeps of the engine, with their hashes."""


class Timed(Record, frozen=True, kw_only=True):
    """A benchmark and its calls."""

    bench: Bench
    blocks_ms: tuple[tuple[tuple[float, ...], ...], ...]
    """Of every call, by bundle and round, in the order in which they were made."""


def prove(path: str | os.PathLike[str], *, trust: Trust | None = None) -> Proof:
    """Verifies a bundle; arguments and errors as for `deploy.prove.commands.verify`."""
    seen: list[RuntimePlacement] = []

    def look(runtime: Runtime) -> None:
        seen.append(runtime.placement())

    found = verify(path, look=look, trust=trust)
    return Proof(
        verification=found,
        placement=seen[0],
        ghostdeploy=version("ghostdeploy"),
        engine_record=engine_record(found.target),
    )


def engine_record(target: str) -> str | None:
    """Returns the SHA-256 of what pip recorded of a target's engine; None where pip did not install it."""
    texts = [distribution(name).read_text("RECORD") for name in engine_distributions(target)]
    if not texts or None in texts:
        return None
    return hashlib.sha256("".join(text for text in texts if text is not None).encode()).hexdigest()
