"""Asks an address whether a Ray cluster of this version answers there; a process of its own, which can be ended."""

from __future__ import annotations

import sys


def main() -> None:
    """Exits with 0 where it does; the last line on standard error says why not."""
    from ray.scripts.scripts import cli

    cli(["health-check", "--address", sys.argv[1]])
