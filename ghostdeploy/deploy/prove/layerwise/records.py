"""The records of a live diagnosis: what `diagnose --json` prints, and a report embeds."""

from __future__ import annotations

from ghostdeploy.bundle.record import Record


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
