"""Every target and precision of both samples on emulated Arm cores: the table of docs/devices.md.

    python benchmarks/arm_table.py [--core cortex-a72]... [-t TARGET]... [--out build/arm]

Exports what is missing below OUT here, verifies each bundle on each core there, and prints the table. Answers are kept
below OUT/answers, so a run that was interrupted goes on. Emulated processors give values; their times mean nothing.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path

from ghostdeploy.progress import Silent
from ghostdeploy.remote.emulator import CORES, Emulator, prepare, wheels
from ghostdeploy.targets import TARGETS

ROOT = Path(__file__).parents[1]
SAMPLES = ("ghostnet_050", "g_ghost_regnetx_002")
FLAGS = {"fp32": [], "fp16": ["--fp16"], "int8": ["--int8"], "hybrid": ["--hybrid"]}
LONGEST_S = 1800


def able() -> list[str]:
    """Returns the targets whose engine the emulator has."""
    return [row.name for row in TARGETS.values() if wheels.has_engine(row)]


def pairs(targets: list[str]) -> list[tuple[str, str]]:
    """Returns each target with its precisions."""
    return [(name, precision) for name in targets for precision in TARGETS[name].precisions]


def export(sample: str, target: str, precision: str, out: Path) -> Path:
    """Returns the bundle, made here where it is missing."""
    bundle = out / f"{sample}-{target}-{precision}"
    if not bundle.is_dir():
        words = ["export", f"sample:{sample}", "-t", target, *FLAGS[precision], "--out", str(out)]
        subprocess.run([sys.executable, "-m", "ghostdeploy", *words], check=True, stdout=sys.stderr)
    return bundle


def answer(emulator: Emulator, bundle: Path, answers: Path) -> dict:
    """Returns what `verify --json` says of a bundle on a core."""
    kept = answers / f"{bundle.name}-{emulator.core.name}.json"
    if not kept.is_file():
        words = [*emulator.interpreter, "-m", "ghostdeploy", "verify", str(bundle), "--json"]
        environment = emulator.environment(ROOT)
        done = subprocess.run(words, env=environment, capture_output=True, text=True, timeout=LONGEST_S, check=False)
        kept.write_text(done.stdout or json.dumps({"error": {"message": f"ended with {done.returncode}"}}), "utf-8")
        sys.stderr.write(f"{kept.stem}: exit {done.returncode}\n")
    found = json.loads(kept.read_text("utf-8"))
    return found[0] if isinstance(found, list) else found


def cell(found: dict) -> str:
    """Returns the cell of an answer: SQNR, in brackets that to its own graph in float, agreement; or why it failed."""
    if "error" in found:
        return found["error"]["message"].rpartition(": ")[2]
    parity = found["parity"]
    words = [f"{parity['sqnr_db']:.1f} dB", f"{100 * parity['top1_agreement']:.0f} %"]
    if found["execution"] is not None:
        words.insert(1, f"({found['execution']['sqnr_db']:.1f})")
    return " ".join(words if found["verdict"] == "passed" else [f"**{found['verdict']}**", *words])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--core", action="append", choices=[*CORES], help="a core; all without it")
    parser.add_argument("-t", "--target", action="append", choices=able(), help="a target; all without it")
    parser.add_argument("--out", type=Path, default=Path("build/arm"), help="folder of bundles and answers")
    given = parser.parse_args()
    names = given.core or [*CORES]
    answers = given.out / "answers"
    answers.mkdir(parents=True, exist_ok=True)
    emulators = [prepare(name, listener=Silent()) for name in names]
    sys.stdout.write(f"| network | target | precision | {' | '.join(names)} |\n|{'---|' * (3 + len(names))}\n")
    for sample in SAMPLES:
        for target, precision in pairs(given.target or able()):
            bundle = export(sample, target, precision, given.out)
            cells = [cell(answer(emulator, bundle, answers)) for emulator in emulators]
            sys.stdout.write(f"| `{sample}` | `{target}` | {precision} | {' | '.join(cells)} |\n")
            sys.stdout.flush()


if __name__ == "__main__":
    main()
