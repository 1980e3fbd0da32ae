"""A bundle's payload, opened, run and held against a reference; the reference is another bundle or what a model reads.

Golden inputs are what both get. Two bundles are of one model when their golden outputs agree: these come from the
untouched float model, whatever was exported. No more images are taken than `HELD_BYTES` of tensors allow.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np

from ghostdeploy import targets
from ghostdeploy.bundle.folder import DIAGNOSIS
from ghostdeploy.deploy.prove import diagnose
from ghostdeploy.deploy.prove.layerwise.advice import advise
from ghostdeploy.deploy.prove.layerwise.align import Tap, align, read_by_layers
from ghostdeploy.deploy.prove.layerwise.introduced import ALLOWED, Comparison, decibel, noise
from ghostdeploy.deploy.prove.layerwise.records import Live
from ghostdeploy.errors import BundleError, GhostDeployError, MissingDependency, UsageError
from ghostdeploy.runtimes.base import reason

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from numpy.typing import NDArray

    from ghostdeploy.bundle.folder import Arrays, Bundle
    from ghostdeploy.deploy.prove.diagnose import Diagnosis
    from ghostdeploy.deploy.prove.layerwise.align import Factors, Reads
    from ghostdeploy.runtimes.probe import Probe
    from ghostdeploy.targets import Target

HELD_BYTES = 256 << 20
"""Tensors of one payload held at a time."""
SAME_MODEL = 1e-3
"""Largest distance of golden outputs of one model, of the largest number: the float model's own on two machines."""
_EQUALIZED = "EqualizeChannels"


@dataclass(frozen=True, slots=True)
class Reference:
    """What a payload is held against.

    Args:
        name: For people.
        reads: Given a number of golden images: what the layers of each module read.
        precision: Of what it computes in.
    """

    name: str
    reads: Callable[[int], Reads]
    precision: str = "fp32"


class Opened:
    """A bundle, opened to be looked into.

    Args:
        bundle: Its hashes are compared.

    Raises:
        UsageError: Its target shows nothing inside.
        BundleError: The engine refuses it, or export equalized its channels and did not record how.
        MissingDependency: What opens it is not installed.
    """

    def __init__(self, bundle: Bundle) -> None:
        self.bundle, self.manifest = bundle, bundle.manifest
        self.row = targets.find(self.manifest.target)
        if self.row.probe is None:
            raise UsageError(
                f"{bundle.path} cannot be looked into: {self.row.why_opaque}", hint=f"ghostdeploy verify {bundle.path}"
            )
        open_probe = resolve_probe(self.row)
        self.recorded = _recorded(bundle)
        self.factors: Factors = {} if self.recorded is None else self.recorded.factors
        if not self.factors and any(one.name == _EQUALIZED and one.sites for one in self.manifest.passes):
            raise BundleError(
                f"{bundle.path} has equalized channels and no record of their factors: it is of an earlier version",
                hint="export the bundle again",
            )
        self.inputs, golden = bundle.golden()
        self.probe: Probe = self._engine(lambda: open_probe(bundle))
        self.golden = _by_tensor(self.probe, golden)

    def count(self) -> int:
        """Returns how many golden images are taken."""
        own = self.own(1)
        return max(1, min(len(next(iter(self.inputs.values()))), HELD_BYTES // sum(a.nbytes for a in own.values())))

    def given(self, count: int) -> Arrays:
        """Returns the first golden inputs."""
        return {name: array[:count] for name, array in self.inputs.items()}

    def own(self, count: int) -> dict[str, NDArray[Any]]:
        """Returns what the layers read, and the outputs, for the first golden images."""
        reads = (step.reads[0] for step in self.probe.layers)
        wanted = dict.fromkeys(name for name in (*reads, *self.golden) if name not in self.probe.inputs)
        given: dict[str, NDArray[Any]] = self.given(count)
        return given | dict(self._engine(lambda: self.probe.run(given, list(wanted))))

    def reads(self, count: int) -> Reads:
        """Returns what the layers of each module read, as a reference."""
        return read_by_layers(self.probe, self.own(count), self.factors)

    def as_reference(self) -> Reference:
        """Returns the bundle as what another one is held against."""
        return Reference(str(self.bundle.path), self.reads, self.manifest.precision)

    def against(self, reference: Reference, *, limit: int | None = None) -> Live:
        """Compares.

        Args:
            reference: Of the same model.
            limit: Most images.

        Raises:
            BundleError: The engine fails, or nothing of the two can be aligned.
        """
        count = min(self.count(), limit or len(next(iter(self.inputs.values()))))
        own = self.own(count)
        taps, left_out = align(self.probe, own, reference.reads(count), self.factors)
        if not taps and len(self.probe.layers) > 1:
            raise BundleError(
                f"no layer of {self.bundle.path} has a counterpart in {reference.name}",
                hint="give the model it was exported from, or another bundle of it",
            )
        outputs = [
            Tap(tensor=tensor, readers=(name,), wanted=_like(golden[:count], own[tensor]))
            for tensor, (name, golden) in self.golden.items()
        ]
        work = Comparison(probe=self.probe, inputs=self.given(count), taps=taps, outputs=outputs, own=own)
        found: Live = self._engine(lambda: self._live(work, reference, count, left_out))
        return found

    def _live(self, work: Comparison, reference: Reference, count: int, left_out: list[str]) -> Live:
        precision = min((self.manifest.precision, reference.precision), key=lambda name: ALLOWED[name])
        blocks = work.blocks()
        wrong = work.wrong(blocks, precision)
        errors = [decibel(tap.wanted, work.own[tap.tensor]) for tap in work.outputs]
        worst = min((one for one in errors if one is not None), default=None)
        found = Live(
            bundle=str(self.bundle.path),
            reference=reference.name,
            engine=self.probe.engine,
            images=count,
            outputs_db=worst,
            blocks=tuple(sorted(blocks, key=lambda one: (one.introduced_db is None, one.introduced_db))),
            wrong=tuple(wrong),
            halfway=work.halfway(blocks),
            left_out=tuple(left_out),
        )
        advice, flag = advise(found, self.manifest, self.recorded)
        return msgspec.structs.replace(found, advice=advice, flag=flag)

    def _engine(self, work: Callable[[], Any]) -> Any:
        try:
            return work()
        except (GhostDeployError, MemoryError):
            raise
        except Exception as error:
            raise BundleError(
                f"{self.bundle.path} cannot be looked into: {reason(error)}",
                hint=f"ghostdeploy verify {self.bundle.path}",
            ) from error


def resolve_probe(row: Target) -> Any:
    """Returns the function that opens payloads of a row.

    Raises:
        MissingDependency: A package is absent; it may be one that running needs not.
    """
    assert row.probe is not None  # rows without one were refused
    try:
        return targets.resolve(row.probe, requirement=row.runtime_requirement)
    except MissingDependency as error:
        raise MissingDependency(
            f"looking into {row.name} payloads: {error.message}", hint=targets.pip_install(row.export_requirement)
        ) from error


def require_one_model(first: Bundle, second: Bundle) -> None:
    """Refuses bundles of two models.

    Raises:
        BundleError: Their golden outputs differ.
    """
    arrays = [list(one.golden()[1].values()) for one in (first, second)]
    shapes = [[array.shape for array in some] for some in arrays]
    alike = shapes[0] == shapes[1] and all(_near(a, b) for a, b in zip(*arrays, strict=True))
    if not alike:
        raise BundleError(
            f"{first.path} and {second.path} are of different models: their golden outputs differ",
            hint="give two bundles of one model, exported with the same weights and images",
        )


def _near(one: NDArray[Any], other: NDArray[Any]) -> bool:
    scale = float(np.abs(one).max()) or 1.0
    return bool(np.abs(one.astype(np.float64) - other).max() <= SAME_MODEL * scale)


def _recorded(bundle: Bundle) -> Diagnosis | None:
    listed = {record.path for record in bundle.manifest.files}
    quantized = bundle.manifest.quantization is not None and DIAGNOSIS in listed
    return diagnose.diagnose(bundle.path) if quantized else None


def _by_tensor(probe: Probe, golden: Arrays) -> dict[str, tuple[str, NDArray[Any]]]:
    """Returns name and golden array of each output by its tensor; a file without the names has them in order."""
    known = probe.outputs
    tensors: Iterable[str] = [known[name] for name in golden] if golden.keys() <= known.keys() else known.values()
    return dict(zip(tensors, golden.items(), strict=True))


def _like(golden: NDArray[Any], own: NDArray[Any]) -> NDArray[Any]:
    """Returns a golden output in the order of the payload's: maps may have their channels last."""
    orders = [golden, np.moveaxis(golden, -1, 1)] if golden.ndim == 4 else [golden]
    same = [one for one in orders if one.shape == own.shape]
    return min(same or [golden.reshape(own.shape)], key=lambda one: noise(one, own))
