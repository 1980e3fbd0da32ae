"""Which measurements were fair."""

from __future__ import annotations

import msgspec
import pytest

from ghostdeploy.device.probe import probe
from ghostdeploy.device.records import State
from ghostdeploy.device.steadiness import is_steady, validity

DEVICE = msgspec.structs.replace(
    probe(),
    governors={"policy0": "performance"},
    trips_c={"cpu 0": 80.0},
    clock="2026-11-30T10:00:00+00:00",
    emulated=False,
    emulator=None,
    usable_cores=4,
)
CALM = ((1.0, 1.1, 1.0),) * 9


def state(**fields):
    usual = {
        "seconds": 0.0,
        "frequencies_mhz": {"policy0": 2400.0},
        "temperatures_c": {"cpu 0": 50.0},
        "throttled": 0,
        "load": 0.1,
        "memory_available": 1,
    }
    return State(**usual | fields)


def test_a_calm_device_breaks_no_rule():
    states = [state(), state(), state()]

    assert validity(DEVICE, states, CALM) == ()
    assert is_steady(DEVICE, states, CALM)


def test_an_idle_frequency_before_the_work_is_no_fall():
    assert is_steady(DEVICE, [state(frequencies_mhz={"policy0": 600.0}), state(), state()], CALM)


@pytest.mark.parametrize(
    ("states", "blocks", "words"),
    [
        ([state(), state(), state(frequencies_mhz={"policy0": 2200.0})], CALM, "policy0 fell from 2400 to 2200 MHz"),
        ([state(), state(temperatures_c={"cpu 0": 80.0})], CALM, "cpu 0 reached 80 °C"),
        ([state(), state()], ((1.0,) * 10, (1.0,) * 10, (1.2,) * 10), "the median rose from 1 to 1.2 ms"),
        ([state(), state()], ((1.0,) * 20, (1.0,) * 20, (1.0,) * 17 + (3.0,) * 3), "the 95th percentile rose"),
    ],
)
def test_what_is_not_steady(states, blocks, words):
    assert not is_steady(DEVICE, states, blocks)
    assert words in "; ".join(validity(DEVICE, states, blocks))


def test_a_fall_of_five_percent_and_a_rise_of_ten_are_allowed():
    states = [state(), state(), state(frequencies_mhz={"policy0": 2280.0})]

    assert is_steady(DEVICE, states, ((1.0,) * 10, (1.0,) * 10, (1.1,) * 10))


@pytest.mark.parametrize(
    ("device", "states", "words"),
    [
        ({"clock": "1970-01-01T00:00:10+00:00"}, [state()], "the clock of the device says 1970-01-01"),
        ({"governors": {"policy0": "ondemand"}}, [state()], "policy0 has the governor ondemand"),
        ({}, [state(load=2.1)], "something else ran before: load 2.1 on 4 cores"),
        ({}, [state(), state(throttled=0x50005)], "under-voltage"),
        ({"emulated": True, "emulator": "qemu 7.2"}, [state()], "emulated by qemu 7.2"),
    ],
)
def test_rules_that_are_broken_before_anything_is_measured(device, states, words):
    (found,) = validity(msgspec.structs.replace(DEVICE, **device), states)

    assert words in found


def test_what_cannot_be_read_breaks_no_rule():
    blind = [state(frequencies_mhz=None, temperatures_c=None, throttled=None, load=None)] * 3

    assert is_steady(msgspec.structs.replace(DEVICE, trips_c=None, governors=None), blind, CALM)
    assert is_steady(DEVICE, blind, ())
