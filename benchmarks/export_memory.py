"""Peak memory of `export`: the sum over its process and all converters, sampled while it runs.

    python benchmarks/export_memory.py [MODEL …] [-t TARGET …] [--int8] [--json]

Each figure is the sum of PSS (`/proc/PID/smaps_rollup`: memory of a process, pages shared with others counted by their
share) over the process tree, so libraries mapped by several processes count once. Aim: at most four times the size of
the float32 weights plus 1 GB (10⁹ bytes). Linux only; nothing is taken from the cache of conversions. The second table
says which process held what at the peak. A sampled peak is a lower bound: what lives for less than 20 ms may be missed.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

PAUSE_S = 0.02
GB = 1e9
WEIGHT_BYTES = 4


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="*", default=["sample:ghostnet_050"])
    parser.add_argument("-t", "--target", action="append", dest="targets", metavar="TARGET")
    parser.add_argument("--int8", action="store_true")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    rows = []
    for model in options.models:
        for target in options.targets or ["openvino"]:
            rows.append(measure(model, target, int8=options.int8))
            if not options.json:
                show(rows[-1])
    if options.json:
        print(json.dumps(rows))


def measure(model: str, target: str, *, int8: bool) -> dict[str, Any]:
    """Exports once and returns peak, limit and seconds."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "ghostdeploy", "export", model, "-t", target, "-o", folder, "--json"]
        begin = time.monotonic()
        with tempfile.TemporaryFile() as talk, tempfile.TemporaryFile() as answer:
            process = subprocess.Popen(
                command + ["--int8"] * int8, env={**os.environ, "GHOSTDEPLOY_CACHE": ""}, stdout=answer, stderr=talk
            )
            peak, parts, when = watch(process, begin)
            talk.seek(0)
            answer.seek(0)
            said, document = talk.read().decode(), json.loads(answer.read())
        if "error" in document:
            raise SystemExit(said)
    params = document["bundles"][0]["manifest"]["model"]["params"]
    limit = 4 * params * WEIGHT_BYTES + GB
    return {
        "model": model,
        "target": target,
        "precision": "int8" if int8 else "fp32",
        "weights_mb": params * WEIGHT_BYTES / 1e6,
        "peak_mb": peak / 1e6,
        "limit_mb": limit / 1e6,
        "within": peak <= limit,
        "peak_at_s": when,
        "seconds": time.monotonic() - begin,
        "stages": document["seconds"],
        "parts_mb": {name: size / 1e6 for name, size in sorted(parts.items(), key=lambda item: -item[1])},
    }


def watch(process: subprocess.Popen[bytes], begin: float) -> tuple[int, dict[str, int], float]:
    """Samples until the process ends; returns the peak in bytes, who held it, and after how many seconds."""
    peak, parts, when = 0, {}, 0.0
    while process.poll() is None:
        now = {}
        for pid in tree(process.pid):
            size = pss(pid)
            if size:
                now[f"{name_of(pid)} ({pid})"] = size
        if sum(now.values()) > peak:
            peak, parts, when = sum(now.values()), now, time.monotonic() - begin
        time.sleep(PAUSE_S)
    return peak, parts, when


def tree(pid: int) -> list[int]:
    """Returns a process and all its descendants."""
    try:
        threads = [path.read_text() for path in Path(f"/proc/{pid}/task").glob("*/children")]
    except OSError:
        return [pid]
    return [pid, *(below for text in threads for child in text.split() for below in tree(int(child)))]


def pss(pid: int) -> int:
    """Returns the proportional set size of a process in bytes, 0 when it is gone."""
    try:
        text = Path(f"/proc/{pid}/smaps_rollup").read_text("ascii")
    except OSError:
        return 0
    return next((int(line.split()[1]) * 1024 for line in text.splitlines() if line.startswith("Pss:")), 0)


def name_of(pid: int) -> str:
    """Returns what a process of an export does: its exporter, or `export` itself."""
    try:
        words = Path(f"/proc/{pid}/cmdline").read_text("utf-8").split("\0")
    except OSError:
        return "gone"
    return next((word for word in words if word.startswith("ghostdeploy.") and ":" in word), "export")


def show(row: dict[str, Any]) -> None:
    """Prints one measurement."""
    verdict = "within" if row["within"] else "ABOVE"
    print(
        f"{row['model']} to {row['target']} {row['precision']}: weights {row['weights_mb']:.0f} MB, "
        f"peak {row['peak_mb']:.0f} MB after {row['peak_at_s']:.1f} of {row['seconds']:.1f} s, "
        f"limit {row['limit_mb']:.0f} MB: {verdict}"
    )
    for name, size in row["parts_mb"].items():
        print(f"    {size:7.0f} MB  {name}")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
