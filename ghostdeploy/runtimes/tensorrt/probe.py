"""Looking inside a TensorRT kit.

A built engine shows no tensor that was not marked as an output when it was built, and marking one changes what fuses.
So it is the kit's graph that is looked into, the one an engine is built from, executed in float by ONNX Runtime: wrong
weights and scales show, kernels of a GPU do not.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ghostdeploy.runtimes.onnx.probe import OnnxProbe

if TYPE_CHECKING:
    from ghostdeploy.bundle.folder import Bundle


class KitProbe(OnnxProbe):
    """The graph of one kit."""

    engine = f"the kit's graph in float by {OnnxProbe.engine}"


def open_probe(bundle: Bundle) -> KitProbe:
    """Opens the kit of a bundle."""
    return KitProbe(bundle.read(bundle.manifest.payload), simulate=True)
