"""Exports one model to ncnn with pnnx, and compares the two: `python -m comparison.ncnn_export MODEL FOLDER`.

A process of its own, because pnnx traces the module and writes a dozen files beside it.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pnnx
import torch

from comparison.worker import ncnn_call
from ghostdeploy.deploy.default_route.model import Named

COSINE = 0.999


def main() -> int:
    spec, folder = sys.argv[1], Path(sys.argv[2])
    model = Named(spec=spec).load()
    size = model.preprocess.size
    example = torch.randn((1, 3, size, size), generator=torch.Generator().manual_seed(0))
    pnnx.export(model.module, str(folder / "model.pt"), (example,))
    with torch.inference_mode():
        wanted = model.module(example).numpy().reshape(-1)
    given = ncnn_call(str(folder), threads=1)(example.numpy()).reshape(-1)
    cosine = float(wanted @ given / (np.linalg.norm(wanted) * np.linalg.norm(given)))
    (folder / "about.json").write_text(json.dumps({"size": size, "cosine": cosine}))
    if cosine < COSINE:
        print(f"ncnn's outputs have cosine {cosine:.4f} to PyTorch's, expected {COSINE}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
