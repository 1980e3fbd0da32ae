"""No word to anybody: `import openvino` alone reports to Intel where `openvino-telemetry` is, which it requires.

No setting of the library turns that off before the first report; its own code goes on without the package where the
package is absent. So it is absent while OpenVINO is imported by us. What the application did before, or asks OpenVINO
for itself, is its own business.
"""

from __future__ import annotations

import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator


@contextmanager
def absent(package: str = "openvino_telemetry") -> Iterator[None]:
    """Makes an import of `package` fail while the block runs, as if it was not installed; one imported before stays."""
    if package in sys.modules:
        yield
        return
    sys.modules[package] = None  # type: ignore[assignment]  # how Python marks a module that shall not be found
    try:
        yield
    finally:
        sys.modules.pop(package, None)
