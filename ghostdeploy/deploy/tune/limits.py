"""What a run must find: a bundle at all, one that passed its gates, one within the limits; else the nearest."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ghostdeploy.errors import ExportFailed, GateFailed

if TYPE_CHECKING:
    from ghostdeploy.deploy.tune.candidates import Candidate
    from ghostdeploy.deploy.tune.contenders import Contenders


def require_bundles(contenders: Contenders, candidates: list[Candidate]) -> None:
    """Checks that something can be measured.

    Raises:
        ExportFailed: No candidate could be exported.
        GateFailed: None passed its gates.
    """
    if not contenders.bundles:
        first, why = next((one.name, contenders.journal.refused[one.name]) for one in candidates)
        raise ExportFailed(
            f"none of {len(candidates)} candidates could be exported, the first ({first}) because {why}",
            hint="--force tries again",
        )
    if not any(bundle.manifest.verdict == "passed" for bundle in contenders.bundles.values()):
        nearest, because = _nearest_to_passing(contenders)
        raise GateFailed(
            f"none of {len(contenders.bundles)} bundles passed its gates, {nearest} came nearest: {because}",
            hint=f"they are in {contenders.journal.folder}; ghostdeploy inspect BUNDLE",
        )


def require_within_limits(contenders: Contenders) -> None:
    """Checks that something may be picked.

    Raises:
        ExportFailed: No bundle could be run.
        GateFailed: None is within the limits; the message names the nearest.
    """
    if contenders.standing():
        return
    measured = contenders.scores()
    if not measured:
        reasons = contenders.journal.refused
        first = next(iter(reasons), None)
        why = f", the first ({first}) because {reasons[first]}" if first is not None else ""
        raise ExportFailed(f"none of {len(contenders.bundles)} bundles could be run{why}", hint="ghostdeploy doctor")
    nearest = min(measured, key=lambda key: sum(contenders.excess(key).values()))
    size = contenders.bundles[contenders.entries()[nearest].candidate].size
    raise GateFailed(
        f"no candidate is within {_said(contenders)}, {nearest} comes nearest with {size / 1e6:.2f} MB and "
        f"{contenders.latency_ms(nearest):.3f} ms",
        hint="loosen a limit: what was measured is kept and not measured again",
    )


def _nearest_to_passing(contenders: Contenders) -> tuple[str, str]:
    """Returns the bundle with the smallest drop, or the closest outputs, and why it did not pass."""

    def loss(item: tuple[Candidate, object]) -> float:
        manifest = contenders.bundles[item[0]].manifest
        if manifest.accuracy is not None:
            return manifest.accuracy.drop
        if (faithful := manifest.fidelity) is not None:
            worst = min((one.sqnr_db for one in faithful.outputs if one.sqnr_db is not None), default=999.0)
            return 10 ** (-worst / 20) if faithful.agreement is None else 1 - faithful.agreement
        if (found := manifest.agreement) is None:
            return 1.0
        return 10 ** (-(found.sqnr_db or 999.0) / 20) if found.top1 is None else 1 - found.top1

    candidate, bundle = min(contenders.bundles.items(), key=loss)
    because = bundle.manifest.failed_because or bundle.manifest.unverified_because
    return candidate.name, because or bundle.manifest.verdict


def _said(contenders: Contenders) -> str:
    config = contenders.config
    size = "" if config.max_size is None else f"--max-size {config.max_size / 1e6:.2f} MB"
    latency = "" if config.max_latency is None else f"--max-latency {config.max_latency:g} ms"
    return " and ".join(filter(None, (size, latency)))
