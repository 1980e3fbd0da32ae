"""A bundle's payload held against a reference: another bundle, what a model reads, or what a device computed.

Golden inputs are what both get. Two bundles are of one model when their golden outputs agree: these come from the
untouched float model, whatever was exported.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np

from ghostdeploy.bundle.folder import DIAGNOSIS
from ghostdeploy.deploy.prove import diagnose
from ghostdeploy.deploy.prove.layerwise.advice import advise
from ghostdeploy.deploy.prove.layerwise.align import Tap, align, read_by_layers
from ghostdeploy.deploy.prove.layerwise.introduced import Comparison, decibel, limits, noise
from ghostdeploy.deploy.prove.layerwise.payload import Payload
from ghostdeploy.deploy.prove.layerwise.records import Live
from ghostdeploy.errors import BundleError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from numpy.typing import NDArray

    from ghostdeploy.bundle.folder import Bundle
    from ghostdeploy.deploy.prove.diagnose import Diagnosis
    from ghostdeploy.deploy.prove.layerwise.align import Factors, Reads
    from ghostdeploy.deploy.prove.layerwise.records import There

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
        outputs: Given a number of golden images: its outputs, in the order of the bundle's; None where the golden ones
            are to be held against.
        there: The device that computed it; None where it was computed here.
    """

    name: str
    reads: Callable[[int], Reads]
    precision: str = "fp32"
    outputs: Callable[[int], Sequence[NDArray[Any]]] | None = None
    there: There | None = None

    @property
    def same_bundle(self) -> bool:
        """Whether it is of the bundle itself: then channels stand in it as there."""
        return self.there is not None and self.there.same_bundle


class Opened(Payload):
    """A payload that is compared, or is what another one is held against.

    Args:
        bundle: Its hashes are compared.

    Raises:
        GhostDeployError: See `Payload`.
    """

    def __init__(self, bundle: Bundle) -> None:
        super().__init__(bundle)
        self.recorded = _recorded(bundle)

    @property
    def factors(self) -> Factors:
        """What equalization multiplied channels with, by module.

        Raises:
            BundleError: Export equalized them and did not record how.
        """
        found: Factors = {} if self.recorded is None else self.recorded.factors
        if not found and any(one.name == _EQUALIZED and one.sites for one in self.manifest.passes):
            raise BundleError(
                f"{self.bundle.path} has equalized channels and no record of their factors: it is of an earlier "
                "version",
                hint="export the bundle again",
            )
        return found

    def reads(self, count: int) -> Reads:
        """Returns what the layers of each module read, as a reference."""
        return read_by_layers(self.probe, self.own(count), self.factors)

    def as_reference(self) -> Reference:
        """Returns the bundle as what another one is held against."""
        return Reference(str(self.bundle.path), self.reads, self.manifest.precision)

    def computed(self, tensors: Mapping[str, NDArray[Any]], there: There) -> Reference:
        """Returns what a device computed of this bundle as what one is held against.

        Args:
            tensors: What `own` gives there, without the inputs.
            there: The device.

        Raises:
            BundleError: Tensors are missing: the payload was read otherwise there.
        """
        missing = [name for name in self.wanted if name not in tensors]
        if missing:
            raise BundleError(
                f"{self.bundle.path} on {there.where} gave no tensor {missing[0]}, which it has here",
                hint="install the same version of the engine there",
            )

        def reads(count: int) -> Reads:
            first = {name: array[:count] for name, array in tensors.items()}
            return read_by_layers(self.probe, self.given(count) | first, factors)

        factors: Factors = {} if there.same_bundle else self.factors
        name = f"{self.bundle.path} on {there.where}"
        outputs = [tensors[tensor] for tensor in self.golden]
        return Reference(name, reads, self.manifest.precision, lambda count: [one[:count] for one in outputs], there)

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
        factors = {} if reference.same_bundle else self.factors
        taps, left_out = align(self.probe, own, reference.reads(count), factors)
        if not taps and len(self.probe.layers) > 1:
            raise BundleError(
                f"no layer of {self.bundle.path} has a counterpart in {reference.name}",
                hint="give the model it was exported from, or another bundle of it",
            )
        golden = [one for _, one in self.golden.values()]
        right = golden if reference.outputs is None else reference.outputs(count)
        outputs = [
            Tap(tensor=tensor, readers=(name,), wanted=_like(wanted[:count], own[tensor]))
            for (tensor, (name, _)), wanted in zip(self.golden.items(), right, strict=True)
        ]
        work = Comparison(probe=self.probe, inputs=self.given(count), taps=taps, outputs=outputs, own=own)
        found: Live = self.engine(lambda: self._live(work, reference, count, left_out))
        return found

    def _live(self, work: Comparison, reference: Reference, count: int, left_out: list[str]) -> Live:
        blocks = work.blocks()
        allowed = limits((self.manifest.precision, reference.precision), same_bundle=reference.same_bundle)
        wrong = work.wrong(blocks, allowed)
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
            there=reference.there,
        )
        advice, flag = advise(found, self.manifest, self.recorded)
        return msgspec.structs.replace(found, advice=advice, flag=flag)


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


def _like(golden: NDArray[Any], own: NDArray[Any]) -> NDArray[Any]:
    """Returns a golden output in the order of the payload's: maps may have their channels last."""
    orders = [golden, np.moveaxis(golden, -1, 1)] if golden.ndim == 4 else [golden]
    same = [one for one in orders if one.shape == own.shape]
    return min(same or [golden.reshape(own.shape)], key=lambda one: noise(one, own))
