"""`verify http://…`: a bundle's golden vectors through an endpoint, judged as at home.

The reference is the bundle on this computer: its golden inputs go to the endpoint, after its preprocessing was run here
on its original images, and what comes back is held against its golden outputs. Whether the endpoint serves this very
bundle is compared by digest, where the endpoint tells one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from ghostdeploy.bundle.folder import open_bundle
from ghostdeploy.deploy.prove import preparation
from ghostdeploy.deploy.prove.commands import Verification, verification_of
from ghostdeploy.deploy.prove.endpoint import SECONDS, Endpoint
from ghostdeploy.errors import BundleError
from ghostdeploy.open_inference import DATATYPES
from ghostdeploy.runtimes.ports import chunks
from ghostdeploy.visible import visible_line

if TYPE_CHECKING:
    import os
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from ghostdeploy.bundle.folder import Arrays
    from ghostdeploy.bundle.manifest import Manifest, TensorSpec
    from ghostdeploy.bundle.signature import Trust
    from ghostdeploy.deploy.prove.endpoint import Metadata

_TOGETHER = 8
"""Images of a request; a payload that is built for a number of images gets that number."""


class EndpointVerification(Verification, frozen=True, kw_only=True):
    """What `verify` found for one endpoint; `bundle` is its URL."""

    reference: str
    """The bundle whose golden vectors were replayed."""
    digest: str | None
    """Of the bundle, as the endpoint tells it; None where it tells none."""
    binary: bool
    """Whether tensors travelled as binary data."""


def verify_endpoint(
    url: str, reference: str | os.PathLike[str], *, seconds: float = SECONDS, trust: Trust | None = None
) -> EndpointVerification:
    """Replays a bundle's golden vectors through an endpoint of the Open Inference Protocol v2.

    Args:
        url: See `Endpoint`.
        reference: The bundle that is served there.
        seconds: Time limit of each answer.
        trust: Signatures that the bundle must have; None requires none.

    Raises:
        BadInput: The endpoint has no such model, or does not speak the protocol.
        BundleError: The bundle is damaged, or another one is served.
        UnsupportedHardware: The endpoint cannot be reached, or is too slow.
        UsageError: `url` is none of a model.
    """
    with Endpoint(url, seconds=seconds) as endpoint:
        bundle = open_bundle(reference, hold=True)
        signature = None if trust is None else trust.require(bundle)
        inputs, outputs = bundle.golden()
        prepared, inputs = preparation.check(bundle, inputs)
        told, engine = endpoint.metadata(), endpoint.server()
        _require_same(told, bundle.manifest, url, str(reference))
        executed = _replayed(endpoint, inputs, outputs, bundle.manifest.inputs[0].shape[0] or _TOGETHER)
    found = verification_of(bundle, url, executed, outputs, prepared, engine=engine, isa="the server")
    return EndpointVerification(
        **{name: getattr(found, name) for name in found.__struct_fields__ if name != "signature"},
        signature=signature,
        reference=str(reference),
        digest=told.digest,
        binary=endpoint.binary,
    )


def _replayed(endpoint: Endpoint, inputs: Arrays, golden: Arrays, size: int) -> Arrays:
    count = len(next(iter(inputs.values())))
    per_image = sum(array.size // max(len(array), 1) for array in golden.values())
    pieces = []
    for piece in chunks(inputs, size):
        found = endpoint.infer(piece, most=2 * per_image * size)
        _require_outputs(found, golden, size, endpoint.url)
        pieces.append(found)
    return {name: np.concatenate([piece[name] for piece in pieces])[:count] for name in golden}


def _require_outputs(found: dict[str, NDArray[Any]], golden: Arrays, size: int, url: str) -> None:
    for name, wanted in golden.items():
        shape = (size, *wanted.shape[1:])
        if name not in found:
            names = visible_line(", ".join(found))[:200] or "none"
            raise BundleError(f"{url} gave outputs {names}, expected {', '.join(golden)}")
        if found[name].shape != shape or found[name].dtype.kind != wanted.dtype.kind:
            got = f"{found[name].dtype} {found[name].shape}"
            raise BundleError(f"{url} gave output {name!r} as {got}, expected {wanted.dtype} {shape}")


def _require_same(told: Metadata, manifest: Manifest, url: str, reference: str) -> None:
    """Raises `BundleError` where the endpoint says that it serves something else."""
    if told.digest is not None and told.digest != manifest.digest:
        raise BundleError(
            f"{url} serves a bundle of digest {visible_line(told.digest)[:12]}…, and {reference} has "
            f"{(manifest.digest or 'none')[:12]}…",
            hint="give the bundle that is served there with --bundle",
        )
    for kind, ours, theirs in (
        ("inputs", manifest.inputs, told.inputs),
        ("outputs", manifest.outputs, told.outputs),
    ):
        want = {spec.name: DATATYPES.get(spec.dtype, spec.dtype) for spec in ours}
        got = {one.name: one.datatype for one in theirs}
        if want != got or not all(_fits(spec, told_shape.shape) for spec, told_shape in _pairs(ours, theirs)):
            listed = ", ".join(f"{one.name} {one.datatype} {one.shape}" for one in theirs)
            raise BundleError(
                f"{url} has {kind} {visible_line(listed)[:200] or 'none'}, which are not those of {reference}",
                hint="give the bundle that is served there with --bundle",
            )


def _pairs(ours: Sequence[TensorSpec], theirs: Sequence[Metadata.Tensor]) -> list[tuple[TensorSpec, Metadata.Tensor]]:
    by_name = {one.name: one for one in theirs}
    return [(spec, by_name[spec.name]) for spec in ours]


def _fits(spec: TensorSpec, shape: list[int]) -> bool:
    """Tells whether a shape can be that of a tensor; the batch is the server's business."""
    pairs = zip(spec.shape[1:], shape[1:], strict=False)
    return len(shape) == len(spec.shape) and all(b in {-1, a} or a is None for a, b in pairs)
