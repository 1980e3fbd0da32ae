"""Where LiteRT's time goes: `python benchmarks/litert_layers.py MODEL.tflite… [--sweeps 5]`.

The delegate of LiteRT is one call to the interpreter's profiler, so layers are timed in place by prefixes: the file is
cut behind its n-th operator, for every n, and

    time of operator n = time of the first n operators − time of the first n − 1

with what later operators would read as outputs of the prefix. Each prefix is timed in several sweeps over all of them,
each by the lower decile of its calls; a figure is the median over the sweeps. The delegate folds a PAD into the
convolution behind it, which a prefix that ends between them cannot, so the two count together. Sums by kind are good to
a few per cent of the whole; a single layer is not.
"""

from __future__ import annotations

import os
import time
from collections import defaultdict
from pathlib import Path
from statistics import median
from typing import Any

import click
import numpy as np
from ai_edge_litert.interpreter import Interpreter
from ai_edge_litert.tools import flatbuffer_utils
from rich.console import Console
from rich.table import Table

WARM_SECONDS, SECONDS = 0.02, 0.08


class File:
    """A TFLite file that can be cut behind any operator.

    Args:
        path: The file; its first input and its one graph are used.
    """

    def __init__(self, path: Path) -> None:
        self._data = path.read_bytes()
        model = self._read()
        graph = model.subgraphs[0]
        self.kinds = [str(flatbuffer_utils.opcode_to_name(model, one.opcodeIndex)) for one in graph.operators]
        self._reads = [{int(place) for place in one.inputs} for one in graph.operators]
        self._makes = [{int(place) for place in one.outputs} for one in graph.operators]
        self._results = {int(place) for place in graph.outputs}

    def prefix(self, count: int) -> bytes:
        """Returns a file of the first `count` operators, with all that is read later as outputs."""
        model = self._read()
        graph = model.subgraphs[0]
        later = self._results.union(*self._reads[count:])
        graph.operators = graph.operators[:count]
        graph.outputs = np.array(sorted(later & set().union(*self._makes[:count])), dtype=np.int32)
        model.signatureDefs = []
        return bytes(flatbuffer_utils.convert_object_to_bytearray(model))

    def owner(self, place: int) -> int:
        """Returns the operator that an operator's time counts for: the reader of a PAD, else itself."""
        if self.kinds[place] != "PAD":
            return place
        return next((n for n, reads in enumerate(self._reads) if reads & self._makes[place]), place)

    def _read(self) -> Any:
        return flatbuffer_utils.read_model_from_bytearray(bytearray(self._data))


def seconds(data: bytes) -> float:
    """Returns the lower decile of the calls of a file, one thread."""
    interpreter = Interpreter(model_content=data, num_threads=1)
    interpreter.allocate_tensors()
    rng = np.random.default_rng(0)
    for one in interpreter.get_input_details():
        interpreter.set_tensor(one["index"], rng.standard_normal(one["shape"]).astype(one["dtype"]))
    found: list[float] = []
    end = time.perf_counter() + WARM_SECONDS + SECONDS
    while (start := time.perf_counter()) < end:
        interpreter.invoke()
        if start > end - SECONDS:
            found.append(time.perf_counter() - start)
    return float(np.quantile(found, 0.1))


def measure(path: Path, sweeps: int) -> dict[str, tuple[int, float]]:
    """Returns how many operators of each kind there are, and their microseconds together; `all` is the whole."""
    file = File(path)
    counts = range(1, len(file.kinds) + 1)
    prefixes = [file.prefix(count) for count in counts]
    times = [[seconds(prefix) for prefix in prefixes] for _ in range(sweeps)]
    found: dict[str, list[float]] = defaultdict(list)
    for place in range(len(prefixes)):
        spent = median(one[place] - (one[place - 1] if place else 0.0) for one in times)
        found[file.kinds[file.owner(place)]].append(1e6 * spent)
    sizes = {kind: sum(file.kinds[n] == kind for n in range(len(prefixes))) for kind in found}
    rows = {kind: (sizes[kind], sum(values)) for kind, values in found.items()}
    return rows | {"all": (len(prefixes), 1e6 * median(one[-1] for one in times))}


@click.command(help=__doc__, context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("paths", nargs=-1, required=True, type=click.Path(path_type=Path, exists=True, dir_okay=False))
@click.option("--sweeps", default=5, show_default=True)
def main(paths: tuple[Path, ...], sweeps: int) -> None:
    """See the module."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    found = [measure(path, sweeps) for path in paths]
    kinds = sorted(set().union(*found), key=lambda kind: -max(one.get(kind, (0, 0.0))[1] for one in found))
    table = Table("operators, µs (how many)", *(str(path) for path in paths))
    for kind in kinds:
        cells = (f"{one[kind][1]:.0f} ({one[kind][0]})" if kind in one else "–" for one in found)
        table.add_row(kind, *cells)
    Console().print(table)


if __name__ == "__main__":
    main()
