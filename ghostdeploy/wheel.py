"""Which of the three wheels is installed, and the message for what a smaller one lacks.

The device wheel (`make device-wheel`, version ending in `+device`) runs, verifies, evaluates and diagnoses bundles.
The app wheel (`make app-wheel`, `+app`) loads and runs them. The exporting code, and the sample models and images, are
only in the full wheel.
"""

from __future__ import annotations

from importlib.util import find_spec

from ghostdeploy.errors import MissingDependency


def is_device_wheel() -> bool:
    """Returns whether the exporting half of ghostdeploy is absent."""
    return find_spec("ghostdeploy.models") is None


def not_on_device(what: str) -> MissingDependency:
    """Returns the error for something that only the whole wheel has.

    Args:
        what: The subject of the sentence.
    """
    wheel = "device wheel of ghostdeploy, which runs bundles and has no exporters, models or samples"
    if find_spec("ghostdeploy.deploy") is None:
        wheel = "app wheel of ghostdeploy, which loads and runs bundles and has no commands"
    return MissingDependency(
        f"{what} is not in the {wheel}",
        hint='pip uninstall --yes ghostdeploy && pip install "ghostdeploy[openvino]"',
    )
