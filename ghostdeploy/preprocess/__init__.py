"""From image file to model input and back: the `Preprocess` record, what executes it, and where points land.

    decode → EXIF orientation → colour → resize and crop, stretch or letterbox → (x − mean) / std → NCHW float32

`record` says it, `geometry` places it, `pixels` does it. Calibration, golden vectors, evaluation and apps all call this
package, so they cannot disagree; `ghostdeploy.decode` does what comes before. Needs NumPy and Pillow only.
"""

from ghostdeploy.preprocess.geometry import Geometry, geometry
from ghostdeploy.preprocess.pixels import as_input, fill, normalise, prepare, to_pixels
from ghostdeploy.preprocess.record import IMAGE_SUFFIXES, MAX_SIDE, ORDERS, Preprocess, changed, described, pixels_text

__all__ = [
    "IMAGE_SUFFIXES",
    "MAX_SIDE",
    "ORDERS",
    "Geometry",
    "Preprocess",
    "as_input",
    "changed",
    "described",
    "fill",
    "geometry",
    "normalise",
    "pixels_text",
    "prepare",
    "to_pixels",
]
