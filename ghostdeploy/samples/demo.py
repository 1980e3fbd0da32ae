"""`make demo`: the whole pipeline on the included trained model, command by command.

    export → verify → eval → run → one table of parity, accuracy, latency and size → the report of it all

Each step is the command a user would type, printed before it runs. Latency is the median of single-image calls with one
thread, the bundles taking turns so that noise affects all of them alike.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import time
from contextlib import ExitStack
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

import ghostdeploy as gd
from ghostdeploy import samples
from ghostdeploy.bundle.folder import open_bundle
from ghostdeploy.isolation import child_command, child_environment

OUT = Path("build") / "demo"
TARGETS = ("onnx", "openvino")
ROUNDS = 200


def command(*arguments: str | Path) -> None:
    """Prints a ghostdeploy command and runs it; a failure ends the demo with its exit code."""
    words = [os.path.relpath(word) if isinstance(word, Path) else word for word in arguments]
    Console().print(f"\n[bold]$ ghostdeploy {' '.join(words)}[/bold]", highlight=False, soft_wrap=True)
    sys.stdout.flush()
    code = subprocess.run(child_command("ghostdeploy.cli", *words), env=child_environment(), check=False).returncode
    if code:
        sys.exit(code)


def latencies(bundles: list[Path]) -> dict[Path, float]:
    """Returns the median milliseconds of one image through each bundle, one thread, interleaved."""
    times: dict[Path, list[float]] = {path: [] for path in bundles}
    with ExitStack() as stack:
        runtimes = {path: stack.enter_context(gd.load(path, threads=1)) for path in bundles}
        inputs = {path: next(iter(open_bundle(path).golden()[0].values()))[:1] for path in bundles}
        for runtime in runtimes.values():
            runtime.warmup()
        for _ in range(ROUNDS):
            for path, runtime in runtimes.items():
                begin = time.perf_counter()
                runtime(np.asarray(inputs[path]))
                times[path].append(time.perf_counter() - begin)
    return {path: 1000 * statistics.median(values) for path, values in times.items()}


def summary(bundles: list[Path]) -> Table:
    """Returns the closing table."""
    table = Table(title="The shipped model on this machine", title_justify="left", box=None, padding=(0, 2, 0, 0))
    for title in ("bundle", "verdict", "max error", "cosine", "top-1", "PyTorch", "latency", "size"):
        table.add_column(title, justify="left" if title in {"bundle", "verdict"} else "right")
    times = latencies(bundles)
    for path in bundles:
        bundle = open_bundle(path)
        m = bundle.manifest
        if m.parity is None or m.accuracy is None:
            sys.exit(f"{path} has no parity or accuracy in its manifest")
        table.add_row(
            m.name,
            m.verdict,
            f"{m.parity.max_abs / m.parity.reference_max_abs:.1e}",
            f"{m.parity.cosine:.7f}",
            f"{m.accuracy.top1:.2%}",
            f"{m.accuracy.reference_top1:.2%}",
            f"{times[path]:.2f} ms",
            f"{bundle.size / 1e6:.2f} MB",
        )
    return table


def main() -> int:
    """Runs the demo."""
    targets = [word for name in TARGETS for word in ("-t", name)]
    command("export", *targets, "--out", OUT, "--force")
    bundles = [OUT / f"ghostnet_050-{name}-fp32" for name in TARGETS]
    command("verify", *bundles, "--receipt", OUT / "verified.json")
    command("eval", *bundles, "--data", samples.evaluation_set(), "--reference", bundles[0])
    command("run", bundles[-1], samples.example_images()[0])
    console = Console()
    console = console if console.is_terminal else Console(width=110)
    console.print()
    console.print(summary(bundles))
    command("report", OUT, "-o", OUT / "report.html", "--force")
    return 0


if __name__ == "__main__":
    sys.exit(main())
