"""Where the error of a quantized bundle comes from: `diagnosis.json`, measured when it was made, hash-checked now."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from ghostdeploy import bundle as bundles
from ghostdeploy.deploy.quantize.spec import Diagnosis
from ghostdeploy.errors import BundleError, UsageError

if TYPE_CHECKING:
    import os


def diagnose(path: str | os.PathLike[str]) -> Diagnosis:
    """Reads the diagnosis of a quantized bundle.

    Args:
        path: The bundle.

    Raises:
        BundleError: Damaged, altered, or without the diagnosis that its precision comes with.
        UsageError: The bundle is not quantized.
    """
    bundle = bundles.open_bundle(path)
    if bundle.manifest.quantization is None:
        raise UsageError(
            f"{path} is {bundle.manifest.precision}: it has no quantized layers to diagnose",
            hint=f"ghostdeploy verify {path}",
        )
    where = bundle.path / bundles.DIAGNOSIS
    if bundles.DIAGNOSIS not in {record.path for record in bundle.manifest.files}:
        raise BundleError(f"{path} lists no {bundles.DIAGNOSIS}", hint="export the bundle again")
    try:
        return msgspec.json.decode(bundle.read(bundles.DIAGNOSIS), type=Diagnosis)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise BundleError(f"{where} is not a valid diagnosis: {error}", hint="export the bundle again") from error
