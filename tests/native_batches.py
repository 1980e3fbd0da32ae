"""Many random networks in one program, compiled as users get them or with sanitizers, against PyTorch in float64.

`python -m tests.native_batches COUNT SEED` takes that many networks and ends with 1 where one of them differs.

    plain      the flags of an export
    memory     -fsanitize=address,undefined: every weight, arena, input and output ends where its block ends
    threads    -fsanitize=thread, with teams of two and three

The kernels are compiled once for each kind and instruction set; a batch of networks is one more source, of tables.
"""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ghostdeploy.exporters.native import plan
from ghostdeploy.exporters.native.compilers import _FLAGS, _LEVEL_FLAGS
from ghostdeploy.exporters.native.exporter import write_sources
from ghostdeploy.machine import architecture, cpu_flags
from ghostdeploy.runtimes.native.program import LEVELS
from tests.native_any import any_model, described, inputs_of
from tests.native_networks import HEAD, in_float32, in_float64, sources_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

TOLERANCE = 2e-5
"""Relative to the largest value: sums of float32 in another order."""
OF_FLOAT32 = 8
"""Times what PyTorch's own float32 differs by: where a network magnifies errors."""
STREAMED = {"_WHOLE_PIXELS": 9, "_PASS_PIXELS": 8}
"""Limits below which even these maps keep a few rows at a time."""
BATCH = 100
_SANITIZED = ("-O1", "-g", "-fno-omit-frame-pointer", "-fno-sanitize-recover=all")
KINDS = {
    "plain": (),
    "memory": ("-fsanitize=address,undefined", *_SANITIZED),
    "threads": ("-fsanitize=thread", *_SANITIZED),
}
_ENVIRONMENT = {**os.environ, "TSAN_OPTIONS": "halt_on_error=1"}
"""The network that is at fault is the one that ends."""
_TEAMS = ("2", "3")
_ENTRY = """
typedef struct {
    int (*run)(const void *, void *, const void *const *, float *const *);
    ghost_part *part;
    size_t (*arena)(void);
    int (*input_count)(void), (*output_count)(void);
    size_t (*input_bytes)(int), (*output_floats)(int);
    size_t weights;
} entry;
"""


class CompilerFails(Exception):
    """The compiler has not what is asked of it."""


def levels() -> list[str]:
    """Returns the instruction sets that this processor has, the best first."""
    flags = cpu_flags()
    return [name for name, needed in LEVELS[architecture()].items() if set(needed) <= set(flags)]


def compiled(command: Sequence[str]) -> None:
    """Runs a compiler.

    Raises:
        CompilerFails: It fails, or warns.
    """
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise CompilerFails(f"{shlex.join(command)}\n{done.stderr}")


@dataclass
class Kernels:
    """Compiled kernels of one kind and instruction set.

    Args:
        compiler: A command.
        kind: A name of `KINDS`.
        level: A name of `levels`.
        folder: Where the objects go.
    """

    compiler: Sequence[str]
    kind: str
    level: str
    folder: Path
    start: Sequence[str] = ()
    """Words before its programs."""
    objects: list[Path] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.folder.mkdir()
        sources = [one for one in write_sources("", self.folder / "source") if one.suffix == ".c"]
        sources = [one for one in sources if one.name not in ("main.c", "model.c")]
        self.objects = [self.folder / f"{one.stem}.o" for one in sources]
        with ThreadPoolExecutor(int(os.environ.get("JOBS", "1"))) as pool:
            list(pool.map(lambda pair: self._compile(*pair), zip(sources, self.objects, strict=True)))

    def _compile(self, source: Path, target: Path) -> None:
        flags = (*_FLAGS, *_LEVEL_FLAGS[self.level], *KINDS[self.kind])
        compiled([*self.compiler, *flags, "-I", str(self.folder / "source"), "-c", str(source), "-o", str(target)])

    def program(self, source: str, folder: Path) -> Path:
        """Returns a program of networks."""
        text, made = folder / "networks.c", folder / f"{self.kind}-{self.level}"
        text.write_text(source, "utf-8")
        self._compile(text, folder / "networks.o")
        compiled(
            [
                *self.compiler,
                *KINDS[self.kind],
                *map(str, self.objects),
                str(folder / "networks.o"),
                "-o",
                str(made),
                "-lpthread",
            ]
        )
        return made


@contextmanager
def limits(changes: dict[str, int]) -> Iterator[None]:
    """Plans with other limits meanwhile."""
    before = {name: getattr(plan, name) for name in changes}
    for name, value in changes.items():
        setattr(plan, name, value)
    try:
        yield
    finally:
        for name, value in before.items():
            setattr(plan, name, value)


class Batch:
    """Networks of some seeds, with what they get and what PyTorch makes of it.

    Args:
        seeds: One for each network; every second of them streams even small maps.
    """

    def __init__(self, seeds: Sequence[int]) -> None:
        self.seeds = list(seeds)
        self.models = [any_model(seed) for seed in self.seeds]
        self.inputs = [inputs_of(model, seed) for seed, model in zip(self.seeds, self.models, strict=True)]
        text, weights = [HEAD], []
        for place, (seed, model) in enumerate(zip(self.seeds, self.models, strict=True)):
            with limits(STREAMED if seed % 2 else {}):
                part, data = sources_of(model, place)
            text.append(part)
            weights.append(data)
        fields = ("run", "run_part", "arena_bytes", "input_count", "output_count", "input_bytes", "output_floats")
        rows = [
            "    {" + ", ".join(f"ghost_{name}_{place}" for name in fields) + f", {len(data)}}},\n"
            for place, data in enumerate(weights)
        ]
        text += [_ENTRY, "static const entry entries[] = {\n", *rows, "};\n"]
        text.append(Path(__file__).with_name("native_runner.c").read_text("utf-8"))
        self.source = "".join(text)
        self.given = b"".join(
            data + b"".join(one.tobytes() for one in given) for data, given in zip(weights, self.inputs, strict=True)
        )
        self.wanted = [in_float64(model, given) for model, given in zip(self.models, self.inputs, strict=True)]

    def faults(self, kernels: Kernels, folder: Path) -> dict[int, str]:
        """Runs the networks; returns what is wrong with each of them by its seed."""
        program = kernels.program(self.source, folder)
        (folder / "given").write_bytes(self.given)
        found: dict[int, str] = {}
        first = 0
        while first < len(self.seeds):
            first = self._run_on(kernels, program, first, found)
        return found

    def _run_on(self, kernels: Kernels, program: Path, first: int, found: dict[int, str]) -> int:
        """Runs networks from a place on; returns the place behind the last one, whose end may be an early one."""
        command = [*kernels.start, str(program), "given", "made", str(first), *_TEAMS]
        done = subprocess.run(
            command, capture_output=True, text=True, errors="replace", check=False, cwd=program.parent, env=_ENVIRONMENT
        )
        last = len(self.seeds)
        if done.returncode:
            lines = done.stderr.splitlines()
            begun = [place for place, line in enumerate(lines) if line.startswith("network ")]
            last = first + len(begun) - 1
            said = "\n".join(lines[begun[-1] + 1 :][:30])
            found[self.seeds[last]] = f"ends with {done.returncode}: {said}"
        for line in done.stdout.splitlines():
            found[self.seeds[int(line.split()[1].rstrip(","))]] = line
        self._compare(np.fromfile(program.parent / "made", np.float32), range(first, last), found)
        return max(first, last) + 1

    def _compare(self, made: NDArray[np.float32], places: Sequence[int], found: dict[int, str]) -> None:
        at = 0
        for place in places:
            for output, one in enumerate(self.wanted[place]):
                got, at = made[at : at + one.size].reshape(one.shape), at + one.size
                error = _error(got, one)
                if not error <= TOLERANCE and not error <= OF_FLOAT32 * self._of_float32(place, output):
                    found[self.seeds[place]] = f"output {output} differs by {error:.2g} of its largest value"

    def _of_float32(self, place: int, output: int) -> float:
        """Returns the error of PyTorch's float32."""
        return _error(in_float32(self.models[place], self.inputs[place])[output], self.wanted[place][output])

    def described(self, seed: int) -> str:
        """Returns a network in words."""
        return described(self.models[self.seeds.index(seed)])


def _error(made: NDArray[Any], wanted: NDArray[Any]) -> float:
    return float(np.abs(made - wanted).max() / max(1e-3, np.abs(wanted).max()))


def start_of(kind: str, compiler: Sequence[str], folder: Path) -> list[str] | None:
    """Returns what programs of a kind are started by, None where the compiler or the system has not that kind.

    Where a system spreads addresses too far for the sanitizer of threads, `setarch -R` keeps them together.
    """
    source, program = folder / "empty.c", folder / f"empty-{kind}"
    source.write_text("int main(void) { return 0; }\n", "utf-8")
    try:
        compiled([*compiler, *KINDS[kind], str(source), "-o", str(program)])
    except CompilerFails:
        return None
    for before in ([], ["setarch", "-R"]):
        with suppress(OSError):
            if subprocess.run([*before, program], capture_output=True, check=False).returncode == 0:
                return before
    return None


def run(seeds: Sequence[int], kernels: Sequence[Kernels], folder: Path) -> str:
    """Runs networks with each of the kernels; returns what differs, the smallest network in words, or nothing."""
    batch, faults = Batch(seeds), []
    for place, one in enumerate(kernels):
        own = folder / f"{seeds[0]}-{place}"
        own.mkdir()
        for seed, what in batch.faults(one, own).items():
            faults.append((len(batch.described(seed)), seed, f"{one.kind}, {one.level}: {what}"))
    if not faults:
        return ""
    _, smallest, _ = min(faults)
    words = [f"seed {seed}: {what}" for _, seed, what in sorted(faults)]
    return "\n".join([*words, f"the network of seed {smallest}:", batch.described(smallest)])


def all_kernels(folder: Path) -> list[Kernels]:
    """Returns kernels of every kind that is possible here, for every instruction set of this processor."""
    found = []
    for kind in KINDS:
        start = start_of(kind, ["cc"], folder)
        if start is None:
            print(f"{kind}: not possible here")
            continue
        found += [Kernels(["cc"], kind, level, folder / f"{kind}-{level}", start) for level in levels()]
    return found


def main() -> int:
    """Takes COUNT networks from SEED on."""
    count, seed = map(int, sys.argv[1:])
    failed = False
    with tempfile.TemporaryDirectory() as place:
        kernels = all_kernels(Path(place))
        for first in range(seed, seed + count, BATCH):
            seeds = range(first, min(first + BATCH, seed + count))
            said = run(seeds, kernels, Path(place))
            failed |= bool(said)
            print(said or f"seeds {seeds[0]} to {seeds[-1]}: as in PyTorch", flush=True)
    print(f"{count} networks from seed {seed} on, {', '.join(f'{one.kind} {one.level}' for one in kernels)}")
    return int(failed)


if __name__ == "__main__":
    raise SystemExit(main())
