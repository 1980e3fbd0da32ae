"""Tables of receipts."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ghostdeploy.terminal.layout import folder_name, gap, note, relative, sqnr, table, verdict
from ghostdeploy.terminal.on_devices import said

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ghostdeploy.device.check import Checked
    from ghostdeploy.device.receipt import Receipt


def checked(found: Sequence[Checked]) -> None:
    """Prints whether receipts belong to their bundles and follow from their figures."""
    rows = [(one.receipt, folder_name(one.bundle), one.device, one.proven, verdict(one.verdict)) for one in found]
    table(("receipt", "bundle", "device", "proven there", "verdict"), rows)
    for one in found:
        if one.failed_because:
            note(f"{one.name} on {one.device}: {one.failed_because}")


def inspected(receipt: Receipt) -> None:
    """Prints a receipt."""
    device, placement = receipt.device, receipt.placement
    rows = [
        ("device", f"{device.where}: {said(device)}"),
        ("features", " ".join(device.features)),
        (
            "memory",
            _unless_none(None if device.memory is None else f"{device.memory / 1e6:.0f} MB", device.unread, "memory"),
        ),
        ("governors", _unless_none(_pairs(device.governors), device.unread, "governors")),
        ("frequency", _range(receipt, "frequencies_mhz", "MHz")),
        ("temperature", _range(receipt, "temperatures_c", "°C")),
        ("engine", f"{receipt.engine}, {placement.threads} threads on {placement.device}, {placement.arithmetic}"),
        ("INT8 layers", placement.int8_layers),
        ("kernels", _pairs(placement.kernels) or placement.because or ""),
        ("parity", f"max error {relative(receipt.parity)}, {sqnr(receipt.parity)}, {receipt.parity.verdict}"),
        *((("execution gap", gap(receipt.execution)),) if receipt.execution is not None else ()),
        ("latency", _latency(receipt)),
        ("broken rules", "; ".join(receipt.validity) or "none"),
        ("created", f"{receipt.created} by ghostdeploy {receipt.tools.get('ghostdeploy', '')}, {receipt.command}"),
        ("bundle", f"{receipt.bundle.path}, digest {receipt.bundle.digest}"),
        ("verdict", receipt.verdict + _because(receipt)),
    ]
    table((receipt.bundle.name, ""), rows)


def _because(receipt: Receipt) -> str:
    why = receipt.failed_because or receipt.unverified_because
    return f": {why}" if why else ""


def _latency(receipt: Receipt) -> str:
    one = receipt.latency
    if one is None:
        return f"none: {receipt.no_latency_because}"
    calls, steady = sum(map(len, one.blocks_ms)), "steady" if receipt.steady else "not steady"
    figures = f"median {one.median_ms:#.3g} ms, p95 {one.p95_ms:#.3g}, p99 {one.p99_ms:#.3g}"
    return f"{figures} of {calls} calls, {one.threads} thread(s), batch {one.batch}, {steady}"


def _range(receipt: Receipt, field: str, unit: str) -> str:
    seen: dict[str, list[float]] = {}
    for state in receipt.states:
        for name, value in (getattr(state, field) or {}).items():
            seen.setdefault(name, []).append(value)
    words = [f"{name} {min(values):g} to {max(values):g} {unit}" for name, values in seen.items()]
    return ", ".join(words) or f"unknown: {receipt.device.unread.get(field, 'not read')}"


def _pairs(found: dict[str, str] | dict[str, int] | None) -> str | None:
    return None if found is None else ", ".join(f"{name} {value}" for name, value in found.items())


def _unless_none(text: str | None, unread: dict[str, str], field: str) -> str:
    return text if text is not None else f"unknown: {unread.get(field, 'not read')}"
