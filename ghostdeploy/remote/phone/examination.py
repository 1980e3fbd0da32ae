"""What `doctor` tells of a phone: what Android and the runner say, in the record of home."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ghostdeploy import targets
from ghostdeploy.deploy.measure.doctor import Examination, Fact, TargetState, cpu_facts
from ghostdeploy.remote.runner.replay import TARGET

if TYPE_CHECKING:
    from ghostdeploy.remote.phone.connected import Phone


def examine(phone: Phone) -> Examination:
    """Looks at a phone.

    Args:
        phone: Reached.
    """
    device, android = phone.device, phone.android
    features, int8, lines = cpu_facts(device.architecture, frozenset(device.features))
    charge = "battery unknown" if android.battery_percent is None else f"battery at {android.battery_percent} %"
    charging = {True: ", charging", False: "", None: ""}[android.charging]
    thermal = android.thermal_status or "unknown"
    machine = (
        Fact(name="system", value=f"{device.system or 'Android'} {device.architecture}, no Python"),
        Fact(name="processor", value=f"{device.processor or 'unknown'}, {device.usable_cores} usable cores"),
        *lines,
        Fact(name="GPU", value="not used by the runner"),
        Fact(name="power", value=f"{charge}{charging}; thermal status {thermal}"),
        Fact(name="packages", value=f"none; the static runner brings ncnn {phone.probed['version']}"),
    )
    return Examination(
        targets=tuple(_state(row.name) for row in targets.TARGETS.values()),
        machine=machine,
        cpu_features=features,
        int8_dot_product=int8,
        gpu=None,
        compute_capability=None,
    )


def _state(target: str) -> TargetState:
    runs = target == TARGET
    reason = None if runs else f"there is no Python on the device, which runs {TARGET} bundles only"
    return TargetState(target=target, can_export=False, can_run=runs, reason=reason, install=None)
