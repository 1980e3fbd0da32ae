"""What a device costs over home: `verify` of one bundle here and there, in turns.

    python benchmarks/device_overhead.py BUNDLE --on ssh://board [--device-python PATH] [--rounds 5]

Prints the median seconds of the whole command at home, on the device with the bundle already there, and on the device
with nothing there (its cache is emptied over the same way, which must be this machine: a loopback). The limits are
2 × home + 1 s, and 3 s for sending a bundle of 6 MB.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import click

from ghostdeploy.statistics import quantile


def seconds(words: list[str]) -> float:
    """Returns the time of a command that succeeds."""
    start = time.perf_counter()
    subprocess.run([sys.executable, "-m", "ghostdeploy", *words], check=True, capture_output=True)
    return time.perf_counter() - start


@click.command()
@click.argument("bundle")
@click.option("--on", "where", required=True)
@click.option("--device-python", default=sys.executable)
@click.option("--rounds", default=5)
def main(bundle: str, where: str, device_python: str, rounds: int) -> None:
    """Measures, and prints a line per case."""
    root = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    kept = root / "ghostdeploy" / "device"
    there = ["--on", where, "--device-python", device_python]
    times: dict[str, list[float]] = {"home": [], "already there": [], "nothing there": []}
    for _ in range(rounds):
        times["home"].append(seconds(["verify", bundle]))
        shutil.rmtree(kept, ignore_errors=True)
        times["nothing there"].append(seconds(["verify", bundle, *there]))
        times["already there"].append(seconds(["verify", bundle, *there]))
    found = {name: quantile(some, 0.5) for name, some in times.items()}
    for name, one in found.items():
        click.echo(f"{name:<14} {one:.2f} s")
    click.echo(f"limit of the second: {2 * found['home'] + 1:.2f} s")
    click.echo(f"sending it took {found['nothing there'] - found['already there']:.2f} s, limit 3 s")


if __name__ == "__main__":
    main()
