"""The records of a live diagnosis: what `diagnose --json` prints, and a report embeds.

The device wheel has them and not what fills them: there `diagnose` tells what was recorded.
"""

from __future__ import annotations

from typing import Any

import msgspec

from ghostdeploy.bundle.record import Record
from ghostdeploy.deploy.prove.diagnose import Diagnosis  # noqa: TC001 - msgspec resolves annotations at run time

SCHEMA = 1
"""Of the document, whose first key tells what it is."""


class Block(Record, frozen=True, kw_only=True):
    """The layers between tensors whose right values are known, and what comes out of them."""

    layers: tuple[str, ...]
    """PyTorch names of the layers that run in it; none where only operators without weights do."""
    readers: tuple[str, ...]
    """Who reads the result: PyTorch names of layers, or names of outputs."""
    arriving_db: float | None
    """SQNR of the result in the payload as it runs: all that went wrong before is in it. None is no error at all."""
    introduced_db: float | None
    """SQNR of the result where the block alone ran, on what the reference feeds it. None is no error at all."""


class Finding(Record, frozen=True, kw_only=True):
    """A block that computes something else than the reference."""

    layers: tuple[str, ...]
    """PyTorch names; where there are several, their results meet before any other layer reads them."""
    readers: tuple[str, ...]
    introduced_db: float | None
    allowed_db: float
    """What rounding in this precision leaves at least."""
    share: float | None
    """Part of the error of the outputs that is gone when this block alone is replaced by the reference; None where the
    outputs have none."""


class Halfway(Record, frozen=True, kw_only=True):
    """Bisection: the reference computes up to a block, the payload the rest."""

    layers: tuple[str, ...]
    """The first block with which at least half of the error of the outputs is in the reference's part."""
    blocks_before: int
    """Blocks that the reference computed, this one included."""
    share: float
    """Part of the error that is gone then."""
    runs: int


class There(Record, frozen=True, kw_only=True):
    """The device that computed what a payload is held against."""

    where: str
    """As the user gave it."""
    engine: str
    """What ran there, with its version."""
    same_bundle: bool
    """Whether it ran the bundle that ran here."""


class Live(Record, frozen=True, kw_only=True):
    """A payload, run by its engine, against a reference."""

    bundle: str
    reference: str
    """What it was held against."""
    engine: str
    """What ran the payload."""
    images: int
    outputs_db: float | None
    """SQNR of the worst output; None is no error."""
    blocks: tuple[Block, ...]
    """Worst introduced error first."""
    wrong: tuple[Finding, ...] = ()
    """Blocks that rounding does not explain, worst first; none in a sound bundle."""
    halfway: Halfway | None = None
    """None where the outputs have next to no error."""
    left_out: tuple[str, ...] = ()
    """PyTorch modules whose inputs cannot be aligned: their layers are part of the blocks around them."""
    advice: str = ""
    """One sentence."""
    flag: str | None = None
    """Option of `ghostdeploy export` that applies it; None where there is nothing to apply."""
    there: There | None = None
    """The device of the reference; None where it was computed here."""


class Diagnosed(Record, frozen=True, kw_only=True):
    """What is known of where a bundle's error comes from."""

    bundle: str
    digest: str | None
    """Of its manifest; None in bundles of early versions."""
    recorded: Diagnosis | None
    """What the quantizer measured when the bundle was made; None for bundles that are not quantized."""
    live: Live | None
    not_live: str | None = None
    """Why the payload was not looked into."""

    def document(self) -> dict[str, Any]:
        """Returns the JSON document: the fields of what was recorded, `live` beside them."""
        fields = {} if self.recorded is None else msgspec.to_builtins(self.recorded)
        first = {"diagnosis": SCHEMA, "bundle": self.bundle, "digest": self.digest}
        return {**first, **fields, "live": self.live, "not_live": self.not_live}


def named(layers: tuple[str, ...], readers: tuple[str, ...] = ()) -> str:
    """Returns the layers of a block for a sentence."""
    if not layers:
        return f"what {' and '.join(readers[:2])} read" if readers else "an operator without weights"
    return layers[0] if len(layers) == 1 else f"{', '.join(layers[:-1])} or {layers[-1]}"
