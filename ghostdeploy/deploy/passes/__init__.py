"""The fold passes, in the order in which they run."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ghostdeploy.deploy.passes.base import Pass


def default_passes() -> tuple[Pass, ...]:
    """Returns the passes of a fold.

    The order matters: gates are recognised before constants move into weights, BatchNorm reaches its convolution once
    dropout and slices between them are gone, branches can be summed once their BatchNorms are weights, and a scale
    behind a sum folds once the sum is one layer.
    """
    from ghostdeploy.deploy.passes.canonicalize_hard_sigmoid import CanonicalizeHardSigmoid
    from ghostdeploy.deploy.passes.fix_resize_size import FixResizeSize
    from ghostdeploy.deploy.passes.fold_batch_norm import FoldBatchNorm
    from ghostdeploy.deploy.passes.fold_scale_shift import FoldScaleShift
    from ghostdeploy.deploy.passes.pool_before_concat import PoolBeforeConcat
    from ghostdeploy.deploy.passes.remove_no_ops import RemoveNoOps
    from ghostdeploy.deploy.passes.reparameterize_branches import ReparameterizeBranches

    return (
        RemoveNoOps(),
        CanonicalizeHardSigmoid(),
        FoldBatchNorm(),
        ReparameterizeBranches(),
        FoldScaleShift(),
        PoolBeforeConcat(),
        FixResizeSize(),
    )
