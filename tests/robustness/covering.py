"""Damage guided by coverage, by atheris (libFuzzer): `python -m tests.robustness.covering READER RUNS`.

Inputs that reach new branches of ghostdeploy's own code are kept and damaged further. libFuzzer is seeded, so the same
versions see the same runs.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

SEED = 17
SECONDS = 60
"""One input may take."""
MEGABYTES = 4096
"""The process may hold, libraries included."""


def main() -> None:
    """Ends with libFuzzer's exit code: 0 where every input was read or refused."""
    import atheris

    name, runs = sys.argv[1:]
    with tempfile.TemporaryDirectory() as folder:
        corpus = Path(folder, "corpus")
        corpus.mkdir()
        Path(folder, "work").mkdir()
        with atheris.instrument_imports(include=["ghostdeploy"]):
            from tests.robustness.readers import READERS

            reader = READERS[name](Path(folder, "work"))
            reader.attempt(reader.whole)  # commands import on use
        (corpus / "whole").write_bytes(reader.whole)
        for number, damaged in enumerate(reader.damaged(60, SEED)):
            (corpus / str(number)).write_bytes(damaged)
        limits = (f"-timeout={SECONDS}", f"-rss_limit_mb={MEGABYTES}", "-max_len=100000")
        words = [sys.argv[0], f"-runs={runs}", f"-seed={SEED}", *limits, f"-artifact_prefix={folder}/", str(corpus)]

        def attempt(data: bytes) -> None:
            reader.attempt(data)

        atheris.Setup(words, attempt)
        atheris.Fuzz()


if __name__ == "__main__":
    main()
