"""The fold passes, in the order in which they run.

`FOLDS` make the graph smaller for every engine, or rewrite what some engine lacks, or computes differently, into a form
that all read alike. `FORMS` do so for one target: its row names them, and they run at every precision. `REWRITES`
change how the same numbers are computed; whether one pays off depends on the engine, so each row of the target table
names those that do (docs/performance.md has the figures).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ghostdeploy.errors import UsageError, did_you_mean

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

    from ghostdeploy.deploy.fold.passes.base import Pass

FOLDS = (
    "RemoveNoOps",
    "CanonicalizeHardSigmoid",
    "FoldBatchNorm",
    "ReparameterizeBranches",
    "FoldScaleShift",
    "MergeLayers",
    "PoolBeforeConcat",
    "ResizeLast",
    "FixResizeSize",
    "WriteResizes",
    "UnwrapPadding",
    "WritePowers",
    "PlainPooling",
    "BalanceChannels",
)
FORMS = ("CropDeconvolution",)
REWRITES = ("DepthwiseConcat", "SplitConcat", "SplitSlices", "VectorLayers")
EVERY = (*FOLDS, *FORMS, *REWRITES)
BLOCKS = (8,)
"""Channels per block, for the parameter of `DepthwiseConcat` and `SplitConcat`."""


def default_passes(*, skip: Collection[str] = ()) -> tuple[Pass, ...]:
    """Returns the passes of a fold.

    The order matters: gates are recognised before constants move into weights, BatchNorm reaches its convolution once
    dropout and slices between them are gone, branches can be summed once their BatchNorms are weights, a scale behind a
    sum folds once the sum is one layer, and layers merge once nothing is left between them.

    Args:
        skip: Names of passes to leave out.
    """
    return named_passes(name for name in FOLDS if name not in skip)


def named_passes(names: Iterable[str]) -> tuple[Pass, ...]:
    """Returns passes by name; `SplitConcat-8` is the pass with a parameter, see `base_name`.

    Raises:
        UsageError: There is no such pass.
    """
    from ghostdeploy.deploy.fold.passes.balance_channels import BalanceChannels
    from ghostdeploy.deploy.fold.passes.canonicalize_hard_sigmoid import CanonicalizeHardSigmoid
    from ghostdeploy.deploy.fold.passes.crop_deconvolution import CropDeconvolution
    from ghostdeploy.deploy.fold.passes.depthwise_concat import DepthwiseConcat
    from ghostdeploy.deploy.fold.passes.fix_resize_size import FixResizeSize
    from ghostdeploy.deploy.fold.passes.fold_batch_norm import FoldBatchNorm
    from ghostdeploy.deploy.fold.passes.fold_scale_shift import FoldScaleShift
    from ghostdeploy.deploy.fold.passes.merge_layers import MergeLayers
    from ghostdeploy.deploy.fold.passes.plain_pooling import PlainPooling
    from ghostdeploy.deploy.fold.passes.pool_before_concat import PoolBeforeConcat
    from ghostdeploy.deploy.fold.passes.remove_no_ops import RemoveNoOps
    from ghostdeploy.deploy.fold.passes.reparameterize_branches import ReparameterizeBranches
    from ghostdeploy.deploy.fold.passes.resize_last import ResizeLast
    from ghostdeploy.deploy.fold.passes.split_concat import SplitConcat
    from ghostdeploy.deploy.fold.passes.split_slices import SplitSlices
    from ghostdeploy.deploy.fold.passes.unwrap_padding import UnwrapPadding
    from ghostdeploy.deploy.fold.passes.vector_layers import VectorLayers
    from ghostdeploy.deploy.fold.passes.write_powers import WritePowers
    from ghostdeploy.deploy.fold.passes.write_resizes import WriteResizes

    made: tuple[Pass, ...] = (
        RemoveNoOps(),
        CanonicalizeHardSigmoid(),
        FoldBatchNorm(),
        ReparameterizeBranches(),
        FoldScaleShift(),
        MergeLayers(),
        PoolBeforeConcat(),
        ResizeLast(),
        FixResizeSize(),
        WriteResizes(),
        UnwrapPadding(),
        WritePowers(),
        PlainPooling(),
        BalanceChannels(),
        CropDeconvolution(),
        DepthwiseConcat(),
        SplitConcat(),
        SplitSlices(),
        VectorLayers(),
    )
    known = {one.name: one for one in made}
    for block in BLOCKS:
        known |= {f"{one.name}-{block}": one for one in (DepthwiseConcat(block), SplitConcat(block))}
    wanted = list(names)
    check_names(base_name(name) for name in wanted)
    return tuple(known[name] for name in wanted)


def base_name(name: str) -> str:
    """Returns the name of a pass without its parameter: `SplitConcat` for `SplitConcat-8`."""
    return name.partition("-")[0]


def check_names(names: Iterable[str]) -> None:
    """Checks names of passes; imports no torch.

    Raises:
        UsageError: There is no such pass.
    """
    for name in names:
        if name not in EVERY:
            hint = did_you_mean(name, EVERY, otherwise=f"passes are {', '.join(EVERY)}")
            raise UsageError(f"unknown pass {name!r}", hint=hint)
