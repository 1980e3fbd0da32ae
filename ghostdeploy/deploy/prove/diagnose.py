"""Where the error of a quantized bundle comes from: `diagnosis.json`, measured when it was made, hash-checked now."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import msgspec

from ghostdeploy.bundle import folder as bundles
from ghostdeploy.bundle.manifest import Record
from ghostdeploy.bundle.whole_numbers import refuse_huge
from ghostdeploy.errors import BundleError, UsageError

if TYPE_CHECKING:
    import os

    from ghostdeploy.bundle.manifest import Manifest


class LayerNoise(Record, frozen=True, kw_only=True):
    """One weighted layer, quantized alone."""

    module: str
    """PyTorch name."""
    role: str
    """Its place in a Ghost network: primary, cheap, depthwise, pointwise, convolution, linear."""
    unit: str
    """Layers that go back to float together share this name."""
    sqnr_db: float | None
    """Of the layer's output, see `Diagnosis.noise`; None when there is no error."""
    clipped: float
    """Share of its input's values outside the quantized range."""
    dead: float
    """Share of the input's integer steps that hardly any value reaches."""
    input_range: tuple[float, float] | None = None
    """Of the input, as calibrated: what the integers stand for; None in bundles of early versions."""


class UnitGain(Record, frozen=True, kw_only=True):
    """The gain of returning one unit to float, by what it costs where it alone is quantized."""

    unit: str
    sqnr_gain_db: float
    """Of the worst output, where all others stay quantized and errors are independent."""
    agreement_gain: float
    """Share of decisions that it changes alone."""


class Diagnosis(Record, frozen=True, kw_only=True):
    """Where the error of a quantized graph comes from; `diagnosis.json` of a bundle."""

    images: int
    sqnr_db: float | None
    """Logits of the simulated graph against the float one."""
    agreement: float | None
    """Share of images with the same top-1 class; None where it proves nothing, see `parity.names_classes`."""
    layers: tuple[LayerNoise, ...]
    """Worst first."""
    noise: Literal["alone", "arriving"] = "alone"
    """`alone`: only the layer's own input and weights are quantized. `arriving`: all layers before it are, too."""
    gains: tuple[UnitGain, ...] = ()
    """Best first; measured when the gate was missed."""
    float_units: tuple[str, ...] = ()
    """Returned to float, in this order."""
    notes: tuple[str, ...] = ()
    """The choices that were tried, and the result of each."""
    factors: dict[str, tuple[float, ...]] = {}  # noqa: RUF012 - msgspec copies defaults
    """By PyTorch module: factor of each channel that it reads, where channels were equalized; see
    `deploy.fold.passes.equalize_channels`."""


def is_measured(manifest: Manifest) -> bool:
    """Returns whether a quantizer measured layers: `hybrid` rounds weights alone, and none does."""
    return manifest.quantization is not None and manifest.precision == "int8"


def diagnose(path: str | os.PathLike[str]) -> Diagnosis:
    """Reads the diagnosis of a quantized bundle.

    Args:
        path: The bundle.

    Raises:
        BundleError: Damaged, altered, or without the diagnosis that its precision comes with.
        UsageError: The bundle is not quantized, or only its weights are.
    """
    bundle = bundles.open_bundle(path)
    if not is_measured(bundle.manifest):
        raise UsageError(
            f"{path} is {bundle.manifest.precision}: it has no quantized layers to diagnose",
            hint=f"ghostdeploy verify {path}",
        )
    where = bundle.path / bundles.DIAGNOSIS
    if bundles.DIAGNOSIS not in {record.path for record in bundle.manifest.files}:
        raise BundleError(f"{path} lists no {bundles.DIAGNOSIS}", hint="export the bundle again")
    data = bundle.read(bundles.DIAGNOSIS)
    try:
        found = msgspec.json.decode(data, type=Diagnosis)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise BundleError(f"{where} is not a valid diagnosis: {error}", hint="export the bundle again") from error
    refuse_huge(data, where=str(where))
    return found
