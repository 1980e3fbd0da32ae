"""`eval --workers ray` beside `eval`: the same figures to the last bit, though a worker is killed, and the times.

    python benchmarks/ray_eval.py [BUNDLE] [--count 10000] [--workers 2] [--side 640] [--images DIR] [--json]

Images are made from the shipped photographs, `side` pixels wide, each cropped on its own, JPEG of quality 90, so that
decoding dominates. Run one after the other, each in a process of its own:

    one core     `eval` on one core (the process may use no other): decoding and engine in turn
    all cores    `eval` as it is: it decodes in threads, and the engine has all cores
    ray          `eval --workers ray`
    ray, killed  the same, with one worker killed as soon as a piece is done

`ratio` is the time of ray over that of one core, `to_all_cores` over that of `eval` as it is, which uses all cores of
one machine already: on one machine Ray costs its start, and gives what Python's lock takes from threads. Times include
the start of the cluster; `steady` leaves out what passes before the first piece is done. Without BUNDLE the shipped
`ghostnet_050` is exported to ONNX. The load average is printed: a busy machine decides such times.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from ghostdeploy import samples

CLASSES = 10
LIMIT_S = 3600


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", nargs="?", type=Path)
    parser.add_argument("--count", type=int, default=10_000, help="images")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--side", type=int, default=640, help="pixels, the width of an image")
    parser.add_argument("--images", type=Path, help="where to make and keep the images, or to find them again")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        bundle = options.bundle or export(Path(folder))
        data = options.images or Path(folder) / "set"
        if not data.is_dir():
            make_images(data, options.count, options.side)
        found = compare(bundle, data, options.workers, Path(folder))
    found |= {"images": options.count, "side": options.side, "workers": options.workers, "load": os.getloadavg()}
    print(json.dumps(found)) if options.json else show(found)
    sys.exit(0 if found["equal"] else 1)


def export(folder: Path) -> Path:
    """Exports the shipped classifier."""
    command = [sys.executable, "-m", "ghostdeploy", "export", "-t", "onnx", "--out", str(folder / "bundles")]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    (bundle,) = (folder / "bundles").iterdir()
    return bundle


def make_images(root: Path, count: int, side: int) -> None:
    """Writes a folder per class of photographs, no two alike."""
    rng = np.random.default_rng(0)
    large = [np.asarray(Image.open(path).convert("RGB").resize((2 * side, 2 * side))) for path in samples.photos()]
    for index in range(count):
        photo = large[index % len(large)]
        top, left = rng.integers(0, side, 2)
        height = side * 3 // 4
        folder = root / f"{index % CLASSES}"
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(photo[top : top + height, left : left + side]).save(folder / f"{index:06}.jpg", quality=90)


@dataclass
class Run:
    """One evaluation."""

    seconds: float = 0.0
    first: float = 0.0
    """Seconds until the first piece was on disk."""
    killed: bool = False
    document: Any = None
    state: Path | None = None
    over: threading.Event = field(default_factory=threading.Event)


def compare(bundle: Path, data: Path, workers: int, folder: Path) -> dict[str, Any]:
    """Evaluates in every way; returns times and whether the figures are the same."""
    ray = ("--workers", "ray", "--worker-count", str(workers))
    runs = {
        "one core": evaluate(bundle, data, one_core=True),
        "all cores": evaluate(bundle, data),
        "ray": evaluate(bundle, data, *ray, state=folder / "state"),
        "ray, killed": evaluate(bundle, data, *ray, state=folder / "state", kill=True),
    }
    first = runs["one core"].document
    seconds = {name: run.seconds for name, run in runs.items()}
    steady = seconds["ray"] - runs["ray"].first
    return {
        "equal": all(run.document == first for run in runs.values()),
        "killed": runs["ray, killed"].killed,
        "seconds": seconds,
        "ratio": seconds["ray"] / seconds["one core"],
        "to_all_cores": seconds["ray"] / seconds["all cores"],
        "steady": steady / seconds["one core"],
    }


def evaluate(
    bundle: Path, data: Path, *words: str, state: Path | None = None, one_core: bool = False, kill: bool = False
) -> Run:
    """Runs `eval` in a process of its own."""
    command = [sys.executable, "-m", "ghostdeploy", "eval", bundle, "--data", data, "--json", *words]
    run = Run(state=state)
    begin = time.perf_counter()
    process = subprocess.Popen(
        [*map(str, command), *(() if state is None else ("--state", str(state)))],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        preexec_fn=take_one_core if one_core else None,
    )
    watching = threading.Thread(target=watch, args=(run, process.pid, begin), kwargs={"kill": kill})
    watching.start()
    out, _ = process.communicate(timeout=LIMIT_S)
    run.seconds = time.perf_counter() - begin
    run.over.set()
    watching.join()
    run.document = json.loads(out)
    print(f"{run.seconds:8.1f} s  {' '.join(words) or 'one core' * one_core}", file=sys.stderr, flush=True)
    return run


def take_one_core() -> None:
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})


def watch(run: Run, leader: int, begin: float, *, kill: bool) -> None:
    """Notes when the first piece is done, and then kills a worker, if wanted."""
    while run.state is not None and not run.over.wait(0.05):
        if not run.first and any(run.state.glob("*.piece")):
            run.first = time.perf_counter() - begin
        if run.first and kill and not run.killed and (found := workers_below(leader)):
            os.kill(found[0], signal.SIGKILL)
            run.killed = True


def workers_below(leader: int) -> list[int]:
    """Returns Ray's mapping processes that descend from a process."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if b"MapWorker" in (folder / "cmdline").read_bytes() and leader in above(int(folder.name)):
                found.append(int(folder.name))
        except OSError:  # it has ended
            continue
    return found


def above(pid: int) -> list[int]:
    """Returns the processes above one."""
    found = []
    while pid > 1:
        pid = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
        found.append(pid)
    return found


def show(found: dict[str, Any]) -> None:
    """Prints the comparison."""
    print(
        f"{found['images']} images of {found['side']} pixels, {found['workers']} workers, load {found['load'][0]:.1f}"
    )
    for name, seconds in found["seconds"].items():
        print(f"    {name:<12} {seconds:8.1f} s")
    print(f"    figures {'equal' if found['equal'] else 'DIFFER'}, worker killed: {'yes' if found['killed'] else 'no'}")
    print(
        f"    ray / one core {found['ratio']:.2f}, without the start {found['steady']:.2f}; "
        f"ray / all cores {found['to_all_cores']:.2f}"
    )


if __name__ == "__main__":
    main()
