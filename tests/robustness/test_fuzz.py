"""Whatever a file holds: it is read, or refused in one sentence, within seconds and within a stated memory.

`make fuzz` takes hundreds of damaged copies of each kind of file, `make test` a seeded dozen. Each group of readers has
a process of its own, which this one watches: a crash or a hang names the reader and the case.
"""

from __future__ import annotations

import json
import os
import queue
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from tests import fuzzing

pytest.importorskip("resource", reason="memory is limited as POSIX systems do")
ROOT = Path(__file__).parents[2]
MANY = os.environ.get("HYPOTHESIS_PROFILE") == "fuzz"
COUNT = int(os.environ.get("FUZZ_CASES", "600")) if MANY else 12
SEED = 17
SECONDS = 60
"""Until the next case must begin; the slowest takes a few, on a busy machine."""
SLOWEST = 20
"""Seconds of processor time of one case."""
FIRST = 300
"""Seconds until the first: imports, and a valid file."""
GROUPS = {
    "bundles": ("manifest", "int8 manifest", "golden", "labels", "diagnosis", "signatures"),
    "evidence": ("receipts", "page"),
    "sets": ("boxes", "points", "point arrays", "pairs", "pair arrays", "masks", "priors", "inputs", "labelled images"),
    "images": ("pictures", "decode", "decode words"),
    "models": ("safetensors", "torch archive", "graph"),
}


def watched(names, count):
    """Runs readers in a process and returns its sums; fails where it hangs, crashes or finds a fault."""
    command = [sys.executable, "-m", "tests.robustness.taking", str(count), str(SEED), *names]
    last, found, lines = {}, [], queue.Queue()
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        errors = []
        readers = [
            threading.Thread(target=lambda: [*map(lines.put, process.stdout), lines.put(None)]),
            threading.Thread(target=lambda: errors.append(process.stderr.read())),
        ]
        for one in readers:
            one.start()
        try:
            while (line := lines.get(timeout=SECONDS if last.get("case", 0) else FIRST)) is not None:
                last = json.loads(line)
                assert "fault" not in last, f"{last['reader']}, case {last['case']}:\n{last['fault']}"
                if "codes" in last:
                    found.append(last)
                    last = {}
        except queue.Empty:
            pytest.fail(f"hangs: {last or names}")
        finally:
            process.kill()
            for one in readers:
                one.join()
    assert len(found) == len(names), f"crashed: {last or names}\n{errors[0][-4000:]}"
    return found


@pytest.mark.parametrize("group", GROUPS)
def test_a_damaged_file_is_read_or_refused(group):
    names = GROUPS[group]

    for one in watched(names, COUNT):
        cases = sum(one["codes"].values())
        fuzzing.TALLY["damaged files"] += cases
        used = f"{one['slowest']:.2f} s, {one['growth'] >> 20} MiB"
        print(f"{one['reader']}: {cases} files, exit codes {one['codes']}, at most {used}")
        assert one["growth"] < one["allowed"], one
        assert one["slowest"] < SLOWEST, one
        assert one["codes"].keys() - {"0"}, one
        assert not MANY or "0" in one["codes"], "none came past the first check"


def test_every_reader_is_in_a_group():
    from tests.robustness.readers import READERS

    assert sorted(name for names in GROUPS.values() for name in names) == sorted(READERS)
