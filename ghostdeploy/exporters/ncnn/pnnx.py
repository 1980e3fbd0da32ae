"""Runs pnnx in a temporary folder.

It writes seven files beside its input, stores weights in half precision by default, and exits with 0 even if it left
operators in the file that ncnn does not have. So: a temporary folder, always `fp16=0`, and the output is checked for
layers that ncnn lacks.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from ghostdeploy.convert.base import RefusedError, listed
from ghostdeploy.runtimes.ncnn import param
from ghostdeploy.runtimes.ncnn.engine import VERSION, unknown_kinds

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence


def convert(
    write: Callable[[Path], None], suffix: str, shapes: Sequence[tuple[int, ...]], *, half: bool = False
) -> tuple[list[param.Layer], bytes]:
    """Returns layers and weights of a converted file.

    Args:
        write: Writes the file to convert.
        suffix: Of that file: `.onnx`, or `.pt` for TorchScript.
        shapes: Of the inputs, float32, in order, with batch.
        half: Let pnnx store the weights in half precision.

    Raises:
        RefusedError: pnnx fails, or gives layers that ncnn does not have.
    """
    with tempfile.TemporaryDirectory(prefix="ghostdeploy-pnnx-") as name:
        folder = Path(name)
        write(folder / f"model{suffix}")
        sizes = ",".join(f"[{','.join(map(str, shape))}]f32" for shape in shapes)
        command = [str(_program()), f"model{suffix}", f"inputshape={sizes}", f"fp16={int(half)}"]
        done = subprocess.run(command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False)
        said = done.stdout.decode("utf-8", "replace")
        text, weights = folder / "model.ncnn.param", folder / "model.ncnn.bin"
        if done.returncode or not (text.is_file() and weights.is_file()):
            print(said, flush=True)
            last = next((line.strip() for line in reversed(said.splitlines()) if line.strip()), "no output")
            raise RefusedError(f"pnnx wrote no ncnn file, exit code {done.returncode}: {last[:200]}")
        try:
            layers = param.parse(text.read_text("utf-8"))
        except ValueError as error:
            raise RefusedError(f"pnnx wrote an invalid ncnn file: {error}") from error
        if unknown := unknown_kinds(layers):
            raise RefusedError(f"ncnn {VERSION} has no layer for {listed(unknown)}")
        return layers, weights.read_bytes()


def _program() -> Path:
    """Returns the path of pnnx; importing its package would import torch."""
    found = find_spec("pnnx")
    if found is None or found.origin is None:
        raise ModuleNotFoundError("pnnx is not installed", name="pnnx")
    return Path(found.origin).with_name("pnnx.exe" if sys.platform == "win32" else "pnnx")


def named(layers: Sequence[param.Layer], inputs: Sequence[str], outputs: Sequence[str]) -> list[param.Layer]:
    """Returns the layers with the blobs that pnnx calls in0, in1, …, out0, out1, … under their own names.

    Raises:
        RefusedError: A name is not allowed in an ncnn file, or an output is missing.
    """
    wanted = {f"in{place}": name for place, name in enumerate(inputs)}
    wanted |= {f"out{place}": name for place, name in enumerate(outputs)}
    made = {name for layer in layers for name in layer.outputs}
    if odd := [name for name in wanted.values() if not name or len(name) > 255 or len(name.split()) != 1]:
        raise RefusedError(f"ncnn takes no name with spaces or more than 255 letters: {odd[0]!r}")
    if absent := [name for blob, name in wanted.items() if blob not in made]:
        raise RefusedError(f"pnnx left out {listed(absent)}: an unused input, or an output that is an input")
    inner = {name: f"{name}_" for name in made - wanted.keys() if name in wanted.values()}
    new = wanted | inner
    return [
        layer._replace(
            inputs=tuple(new.get(name, name) for name in layer.inputs),
            outputs=tuple(new.get(name, name) for name in layer.outputs),
        )
        for layer in layers
    ]
