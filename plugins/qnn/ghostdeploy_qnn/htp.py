"""Sessions of ONNX Runtime whose nodes run on a Hexagon NPU, or here on Qualcomm's simulator of it.

The execution provider is a library of its own that ONNX Runtime loads once per process. `soc_model` is always set: what
one session sets stays for those after it, and what is not set is taken from them. The library greets on standard
output, where a program's answers may be; the greeting goes to standard error.
"""

from __future__ import annotations

import os
import sys
from contextlib import contextmanager
from functools import cache
from typing import TYPE_CHECKING, Any

from ghostdeploy.errors import UnsupportedHardware
from ghostdeploy.streams import hushed
from ghostdeploy.telemetry import silent

with silent():
    import onnxruntime
    import onnxruntime_qnn

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from ghostdeploy_qnn.chips import Chip

_ERRORS_ONLY = 3


@cache
def _devices() -> list[Any]:
    name = str(onnxruntime_qnn.get_ep_name())
    onnxruntime.register_execution_provider_library(name, onnxruntime_qnn.get_library_path())
    return [one for one in onnxruntime.get_ep_devices() if one.ep_name == name]


def session(source: bytes | str, chip: Chip, *, context: Path | None = None) -> Any:
    """Returns a session.

    Args:
        source: A graph, or the path of one.
        chip: It is compiled for.
        context: File that receives the compiled graph; what the NPU lacks is then left to the processor. Without it,
            such a node is an error.

    Raises:
        UnsupportedHardware: The provider finds neither an NPU nor its simulator.
        Exception: Whatever ONNX Runtime raises.
    """
    options = onnxruntime.SessionOptions()
    options.log_severity_level = _ERRORS_ONLY
    if context is None:
        options.add_session_config_entry("session.disable_cpu_ep_fallback", "1")
    else:
        options.add_session_config_entry("ep.context_enable", "1")
        options.add_session_config_entry("ep.context_embed_mode", "1")
        options.add_session_config_entry("ep.context_file_path", str(context))
    settings = {
        "backend_path": onnxruntime_qnn.get_qnn_htp_path(),
        "soc_model": str(chip.number),
        "htp_graph_finalization_optimization_mode": "3",
        "offload_graph_io_quantization": "0",
    }
    with hushed(), _standard_output_kept():
        devices = _devices()
        if not devices:
            raise UnsupportedHardware("onnxruntime-qnn finds neither a Hexagon NPU nor its simulator on this machine")
        options.add_provider_for_devices(devices[:1], settings)
        return onnxruntime.InferenceSession(source, sess_options=options)


@contextmanager
def _standard_output_kept() -> Iterator[None]:
    """What native code writes to standard output in the block goes to standard error."""
    sys.stdout.flush()
    saved = os.dup(1)
    os.dup2(2, 1)
    try:
        yield
    finally:
        os.dup2(saved, 1)
        os.close(saved)
