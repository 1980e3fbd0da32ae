"""`bench --against default`: bundles beside the default exports of the same models, made on the fly.

The manifest names the model: a sample model or an untrained zoo network is rebuilt from that name. A checkpoint or a
factory must be given, because a manifest must not decide which files are read and which code runs. The loaded model is
compared with the golden vectors first: the ratio to a different model would be meaningless.
"""

from __future__ import annotations

import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np

from ghostdeploy.bundle.folder import Bundle, open_bundle, sha256
from ghostdeploy.deploy.default_route.model import Named
from ghostdeploy.deploy.default_route.route import DefaultRoute
from ghostdeploy.deploy.measure.bench import Bench, bench, require_latency, require_sense
from ghostdeploy.deploy.prove import parity
from ghostdeploy.errors import BundleError, UsageError
from ghostdeploy.models.zoo import ZOO
from ghostdeploy.preprocess import ORDERS, normalise
from ghostdeploy.progress import Stages

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from ghostdeploy.preprocess import Preprocess
    from ghostdeploy.progress import Listener

_UNTRAINED = " with random weights"


def compare_with_default(
    paths: Sequence[Path],
    *,
    model: str | None = None,
    weights: Path | None = None,
    threads: int = 1,
    batch: int = 1,
    rounds: int = 20,
    listener: Listener | None = None,
) -> Bench:
    """Measures bundles, each against the default export of its model to the same target.

    Args:
        paths: Bundle folders.
        model: MODEL as on the command line, for bundles whose manifest does not name one that can be built again.
        weights: Its checkpoint.
        threads: See `bench`.
        batch: See `bench`; a default export has the batch of its bundle, where that is free this one.
        rounds: See `bench`.
        listener: Receives the progress.

    Raises:
        BundleError: The model is not the bundle's, or see `bench`.
        UsageError: No model is known, or the target has no default route.
        GhostDeployError: See `DefaultRoute`.
    """
    require_sense(threads=threads, rounds=rounds)
    stages = Stages(listener)
    logs = paths[0].resolve().parent
    with tempfile.TemporaryDirectory(prefix="ghostdeploy-bench-") as folder:
        made = _Made(Path(folder), logs, batch, stages)
        bundles = [open_bundle(path) for path in paths]
        for bundle in bundles:
            require_latency(bundle)
        partners = [made.partner(bundle, model, weights) for bundle in bundles]
        defaults = list(dict.fromkeys(partners))
        baselines = [*range(len(defaults)), *(defaults.index(partner) for partner in partners)]
        return bench(
            [*defaults, *paths], threads=threads, batch=batch, rounds=rounds, baselines=baselines, listener=listener
        )


@dataclass(slots=True)
class _Made:
    """The default exports of one run, each made once."""

    folder: Path
    logs: Path
    batch: int
    stages: Stages
    routes: dict[tuple[Named, Preprocess], DefaultRoute] = field(default_factory=dict)
    bundles: dict[tuple[Named, Preprocess, str, int], Path] = field(default_factory=dict)

    def partner(self, bundle: Bundle, model: str | None, weights: Path | None) -> Path:
        """Returns the default bundle to compare with."""
        manifest = bundle.manifest
        if manifest.preprocess.ready:
            raise UsageError(
                f"{bundle.path} takes ready arrays, the default export an image", hint="leave out --against default"
            )
        named = name_model(bundle, model, weights)
        spec = msgspec.structs.replace(manifest.preprocess, layout="nchw", dtype=None)
        inputs, golden = bundle.golden()
        images = float_images(next(iter(inputs.values())), manifest.preprocess)
        if (named, spec) not in self.routes:
            with self.stages.stage("load model"):
                self.routes[named, spec] = DefaultRoute(named, preprocess=spec, images=images)
        route = self.routes[named, spec]
        require_same_model(bundle, route, images, golden)
        batch = manifest.inputs[0].shape[0] or self.batch
        key = (named, spec, manifest.target, batch)
        if key not in self.bundles:
            with self.stages.stage(f"default export to {manifest.target}"):
                name = f"{route.model.name}-{manifest.target}-default"
                out = self.folder / str(len(self.bundles))
                self.bundles[key] = route.export(manifest.target, out, name=name, batch=batch, logs=self.logs).path
        return self.bundles[key]


def name_model(bundle: Bundle, model: str | None, weights: Path | None) -> Named:
    """Returns the model of a bundle: what was given, else what its manifest names.

    Raises:
        BundleError: The checkpoint is another one than the bundle's.
        UsageError: Nothing was given, and the manifest names no sample model or untrained zoo network.
    """
    facts = bundle.manifest.model
    if weights is not None and facts.weights_sha256 not in (None, found := _sha256(weights)):
        raise BundleError(
            f"{bundle.path} was made from weights with SHA-256 {(facts.weights_sha256 or '')[:12]}…, {weights} has "
            f"{found[:12]}…",
            hint="give the checkpoint it was exported from",
        )
    if model is not None or weights is not None:
        classes = facts.num_classes if model in ZOO else None
        key = None if weights is None else facts.weights_key
        return Named(
            spec=model, weights=None if weights is None else str(weights), weights_key=key, num_classes=classes
        )
    if facts.source.startswith("sample:"):
        return Named(spec=facts.source)
    name = facts.source.removesuffix(_UNTRAINED)
    if name in ZOO:
        return Named(spec=name, num_classes=facts.num_classes)
    raise UsageError(
        f"{bundle.path} was made from {facts.source}, which cannot be loaded from the manifest alone",
        hint="add --model MODEL, --weights FILE or both, as you gave them to export",
    )


def float_images(golden: NDArray[Any], preprocess: Preprocess) -> NDArray[Any]:
    """Returns golden inputs as the untouched module takes them: normalised float32 (N, C, H, W)."""
    nhwc = preprocess.layout == "nhwc"
    if preprocess.takes_pixels:
        return normalise(golden if nhwc else golden.transpose(ORDERS["nhwc"]), preprocess)
    return np.ascontiguousarray(golden.transpose(ORDERS["nchw"]) if nhwc else golden, np.float32)


def require_same_model(bundle: Bundle, route: DefaultRoute, images: NDArray[Any], golden: dict[str, Any]) -> None:
    """Raises `BundleError` when the module does not give the golden outputs of the bundle."""
    outputs, source = route.run(images), route.model.source
    hint = "give the model it was exported from: --model MODEL, --weights FILE"
    shapes = [[array.shape for array in arrays.values()] for arrays in (outputs, golden)]
    if shapes[0] != shapes[1]:
        given, wanted = (", ".join(map(str, one)) for one in shapes)
        raise BundleError(f"{source} has outputs {given}, the golden vectors of {bundle.path} have {wanted}", hint=hint)
    found = parity.compare(dict(zip(golden, outputs.values(), strict=True)), golden, "fp32")
    if found.verdict == "failed":
        raise BundleError(
            f"{source} is not the model of {bundle.path}: its outputs differ from the golden ones, at most "
            f"{found.reference_max_abs:.2g}, by {found.max_abs:.2g}",
            hint=hint,
        )


def _sha256(path: Path) -> str:
    try:
        return sha256(path)
    except OSError as error:
        raise BundleError(f"checkpoint {path} cannot be read: {error.strerror}") from error
