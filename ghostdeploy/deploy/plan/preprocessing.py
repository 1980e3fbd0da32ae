"""The preprocessing of an export: the model's record with what the request says."""

from __future__ import annotations

from typing import Any

import msgspec

from ghostdeploy.errors import UsageError
from ghostdeploy.preprocess import Preprocess, changed

LARGEST_STD = 2.0
"""Standard deviation of pixels scaled to 0 … 1; those of pixels of 0 … 255 are some 60."""

OPTIONS = tuple(name for name in Preprocess.__struct_fields__ if name not in ("layout", "dtype", "ready"))
"""Fields that the command line sets; `--input` sets two of the others, `--calib` the third."""


def from_options(options: dict[str, Any]) -> dict[str, Any]:
    """Takes the fields of `Preprocess` out of a command's options, and returns those that were given."""
    found = {name: value for name in OPTIONS if (value := options.pop(name)) is not None}
    return found | ({"channels": int(found["channels"])} if "channels" in found else {})


def apply_overrides(preprocess: Preprocess, overrides: dict[str, Any]) -> Preprocess:
    """Returns the model's record with the given fields replaced.

    Raises:
        UsageError: A field is unknown, has an impossible value, or is in units of pixels from 0 to 255.
    """
    if overrides.get("ready"):
        raise UsageError("preprocess has no option ready", hint="give ready inputs: an .npz with an array per input")
    try:
        found = changed(preprocess, overrides)
    except msgspec.ValidationError as error:
        hint = "give --mean and --std one value per channel" if "one per channel" in str(error) else None
        raise UsageError(f"invalid preprocessing: {error}", hint=hint) from error
    _refuse_other_unit(found)
    return found


def _refuse_other_unit(spec: Preprocess) -> None:
    """Raises `UsageError` where mean or std are clearly for pixels of the other unit."""
    if spec.unit == "0-255":
        if min(spec.std) < 1:
            said = ",".join(f"{value:g}" for value in spec.std)
            hint = "give --mean and --std in the unit of --unit"
            raise UsageError(f"std is {said}, expected values for pixels of 0 … 255", hint=hint)
        return
    for name, values, most in (("mean", spec.mean, 1.0), ("std", spec.std, LARGEST_STD)):
        if max(map(abs, values)) > most:
            said = ",".join(f"{value:g}" for value in values)
            scaled = ",".join(f"{value / 255:.4g}" for value in values)
            raise UsageError(
                f"{name} is {said}, expected values for pixels scaled to 0 … 1",
                hint=f"divide values for pixels of 0 … 255 by 255: --{name} {scaled}, or add --unit 0-255",
            )
