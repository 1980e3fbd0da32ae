"""Tables of a diagnosis: blocks of the payload against a reference, and what the quantizer recorded."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ghostdeploy.deploy.prove.layerwise.records import named
from ghostdeploy.terminal.layout import note, table
from ghostdeploy.terminal.proof_tables import diagnosed as recorded_table

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ghostdeploy.bundle.manifest import TensorSpec
    from ghostdeploy.deploy.prove.diagnose import Diagnosis
    from ghostdeploy.deploy.prove.layerwise.records import Block, Diagnosed, Live


def diagnosed(found: Diagnosed, top: int, outputs: Sequence[TensorSpec]) -> None:
    """Prints a diagnosis; where a block is wrong, nothing comes behind its name and the advice.

    Args:
        found: What is known.
        top: Blocks, and recorded layers, to show.
        outputs: Of the bundle.
    """
    if found.live is not None:
        _live(found.live, found.recorded, top)
    if found.live is not None and found.live.wrong:  # nothing may push its name off the screen
        return
    if found.recorded is not None:
        recorded_table(found.recorded, top, outputs)
    if found.not_live is not None:
        note(f"only what was recorded when it was made: {found.not_live}")


def _live(live: Live, recorded: Diagnosis | None, top: int) -> None:
    before = {} if recorded is None else {layer.module: layer.sqnr_db for layer in recorded.layers}
    wrong = {(one.layers, one.readers) for one in live.wrong}
    rows = [
        (
            named(block.layers, block.readers),
            _db(block.introduced_db),
            _db(block.arriving_db),
            _before(block, before),
            "wrong" if (block.layers, block.readers) in wrong else "",
        )
        for block in live.blocks[:top]
    ]
    title = "–" if recorded is None else f"recorded {recorded.noise}"
    table(("block, by PyTorch modules", ">SQNR introduced", ">arriving", f">{title}", ""), rows)
    by = "" if live.there is None else f" by {live.there.engine}"
    note(
        f"{len(live.blocks)} blocks of {live.engine} against {live.reference}{by} on {live.images} images; outputs "
        f"{_db(live.outputs_db)}",
        style="dim",
    )
    if live.left_out:
        count = len(live.left_out)
        note(
            f"{count} layers have no counterpart and are part of other blocks: {', '.join(live.left_out)}", style="dim"
        )
    if (half := live.halfway) is not None:
        text = f"{half.share:.0%} of the error of the outputs comes from the first {half.blocks_before} of them"
        note(f"{text}, up to {named(half.layers)}", style="dim")
    for one in live.wrong:
        share = "" if one.share is None else f", and {one.share:.0%} of the error of the outputs"
        note(
            f"wrong: {named(one.layers, one.readers)} introduces {_db(one.introduced_db)}, at least "
            f"{one.allowed_db:.0f} dB expected{share}",
            style="bold red",
        )
    note(f"{live.advice}" + ("" if live.flag is None else f" ({live.flag})"))


def _before(block: Block, before: dict[str, float | None]) -> str:
    known = [before[name] for name in block.layers if name in before]
    worst = min((one for one in known if one is not None), default=None)
    return _db(worst) if known else "–"


def _db(value: float | None) -> str:
    return "exact" if value is None else f"{value:.1f} dB"
