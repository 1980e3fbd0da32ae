"""`verify RECEIPT`: a receipt against its bundle and against its own numbers.

    bundle      the digest of its manifest and the hashes of its files are those of the receipt
    verdict     follows from the figures, by the tolerances of this version
    latency     median and percentiles are those of the calls that are listed
    validity    the broken rules are those that device, states and calls break

It does not run the bundle: that is `verify BUNDLE`.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from ghostdeploy import targets
from ghostdeploy.bundle.folder import open_bundle
from ghostdeploy.bundle.manifest import Verdict  # noqa: TC001 - msgspec resolves annotations at run time
from ghostdeploy.bundle.record import Record
from ghostdeploy.deploy.prove import judge
from ghostdeploy.deploy.prove.tolerance import TOLERANCES
from ghostdeploy.device.receipt import mark, read, summed_up
from ghostdeploy.device.steadiness import is_steady, validity
from ghostdeploy.errors import BundleError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from ghostdeploy.bundle.manifest import Manifest
    from ghostdeploy.device.receipt import Receipt

_NEAR = 1e-3


class Checked(Record, frozen=True, kw_only=True):
    """One receipt."""

    receipt: str
    """Its file."""
    bundle: str
    """Where the bundle was found."""
    name: str
    device: str
    """In a few words."""
    proven: Verdict
    """What the receipt says."""
    verdict: Verdict
    """`passed` where it passed, it belongs to the bundle, and all follows from its figures."""
    failed_because: str | None = None


def check(path: Path, bundles: Sequence[Path] = ()) -> list[Checked]:
    """Checks a file of receipts.

    Args:
        path: The file.
        bundles: Where their bundles may be; else they are looked for where they were, and beside the file.

    Raises:
        BundleError: It is no receipt, was altered, or a bundle is not found or damaged.
    """
    return [_checked(path, one, _found(path, one, bundles)) for one in read(path)]


def _checked(path: Path, found: Receipt, bundle: Path) -> Checked:
    manifest = open_bundle(bundle).manifest
    faults = [*_bundle(found, manifest), *_figures(found, manifest), *_latency(found), *_rules(found)]
    if (there := found.failed_because or found.unverified_because) is not None:
        faults.append(there)
    ruling = judge.rule(faults)
    return Checked(
        receipt=str(path),
        bundle=str(bundle),
        name=found.bundle.name,
        device=f"{found.device.where}: {found.device.processor or found.device.architecture}",
        proven=found.verdict,
        verdict=ruling.verdict,
        failed_because=ruling.failed_because,
    )


def _found(path: Path, receipt: Receipt, bundles: Sequence[Path]) -> Path:
    """Returns the folder of a receipt's bundle: of several, that with its digest.

    Raises:
        BundleError: There is none.
    """
    places = list(bundles) or [Path(receipt.bundle.path), path.parent / Path(receipt.bundle.path).name]
    there = [place for place in places if place.is_dir()]
    same = (place for place in there if open_bundle(place, check_hashes=False).manifest.digest == receipt.bundle.digest)
    best = next(same, next(iter(there), None))
    if best is None:
        raise BundleError(
            f"the bundle of {path} is not at {' or '.join(map(str, places))}",
            hint=f"ghostdeploy verify {path} BUNDLE",
        )
    return best


def _bundle(found: Receipt, manifest: Manifest) -> Iterator[str]:
    own = mark(found.bundle.path, manifest)
    if found.bundle.digest != own.digest:
        yield f"it is about another bundle: digest {found.bundle.digest}, found {own.digest}"
    changed = [name for name, digest in found.bundle.files.items() if own.files.get(name) != digest]
    if changed or own.files.keys() - found.bundle.files.keys():
        yield f"files differ from those that were proven: {', '.join(changed) or 'more are listed'}"


def _figures(found: Receipt, manifest: Manifest) -> Iterator[str]:
    parity = found.parity
    row = TOLERANCES[manifest.precision]
    if parity.verdict != judge.parity_verdict(parity.would_pass, row, parity.non_finite):
        yield f"its parity is called {parity.verdict}, and its figures say otherwise"
    prepared = None if found.preprocessing is None else found.preprocessing.verdict
    not_executed = targets.find(manifest.target).not_executed
    ruling = judge.verified(manifest, parity, found.execution, found.replay, prepared, not_executed=not_executed)
    if ruling.verdict != found.verdict:
        yield f"it says {found.verdict}, and its figures {ruling.verdict}"


def _latency(found: Receipt) -> Iterator[str]:
    if found.latency is None:
        return
    if found.device.emulated:
        yield "it gives times of an emulated processor"
    again = summed_up(found.latency.blocks_ms, threads=found.latency.threads, batch=found.latency.batch)
    for name in ("median_ms", "p95_ms", "p99_ms"):
        said, known = getattr(found.latency, name), getattr(again, name)
        if abs(said - known) > _NEAR * known:
            yield f"its {name} is {said:g}, that of its calls {known:g}"


def _rules(found: Receipt) -> Iterator[str]:
    blocks = () if found.latency is None else found.latency.blocks_ms
    if found.validity != validity(found.device, found.states, blocks):
        yield "the rules that it calls broken are not those that its figures break"
    if found.latency is not None and found.steady != is_steady(found.device, found.states, blocks):
        yield f"steady is {msgspec.json.encode(found.steady).decode()}, and its figures say otherwise"
