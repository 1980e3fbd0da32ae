"""How long the first report of bundles takes, and how large it is: each repetition in a fresh process.

    python benchmarks/report_time.py BUNDLE… [--repeat 5] [--json]

Wall time is that of the command, start of Python included; processor time shows what a busy computer adds.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from ghostdeploy.isolation import child_command, child_environment


def measure(bundles: list[str]) -> dict[str, float]:
    """Returns seconds of wall and processor time, and the bytes of the page, of one report."""
    with tempfile.TemporaryDirectory() as folder:
        page = Path(folder) / "report.html"
        words = child_command("ghostdeploy.cli", "report", *bundles, "-o", str(page))
        before, begin = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
        subprocess.run(words, env=child_environment(), check=True, capture_output=True)
        wall, after = time.perf_counter() - begin, resource.getrusage(resource.RUSAGE_CHILDREN)
        spent = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        return {"wall_s": wall, "processor_s": spent, "bytes": page.stat().st_size}


def main() -> int:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("bundles", nargs="+")
    parser.add_argument("--repeat", type=int, default=5)
    parser.add_argument("--json", action="store_true", dest="as_json")
    options = parser.parse_args()
    found = [measure(options.bundles) for _ in range(options.repeat)]
    best = {name: min(one[name] for one in found) for name in found[0]}
    median = {name: statistics.median(one[name] for one in found) for name in found[0]}
    if options.as_json:
        print(json.dumps({"bundles": len(options.bundles), "best": best, "median": median}))
        return 0
    for name, one in (("best", best), ("median", median)):
        print(f"{name}: {one['wall_s']:.2f} s, {one['processor_s']:.2f} s of processor, {one['bytes'] / 1e6:.2f} MB")
    return 0


if __name__ == "__main__":
    sys.exit(main())
