"""Which engines are installed, without importing one."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, distribution

from ghostdeploy import targets


def engine_distributions(target: str) -> list[str]:
    """Returns the installed distributions of a target's engine."""
    found = []
    for choice in targets.find(target).runtime_packages:
        for module in choice.split("|"):
            try:
                found.append(distribution(module.replace("_", "-")).metadata["Name"])
                break
            except PackageNotFoundError:
                continue
    return found


def engine_names(target: str) -> list[str]:
    """Returns the engine of a target and what else it runs on, each with its version where it is installed."""
    found = engine_distributions(target)
    return [f"{name} {distribution(name).version}" for name in found] or [targets.find(target).runtimes[0]]
