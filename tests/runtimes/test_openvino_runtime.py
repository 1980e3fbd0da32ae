"""What is special about OpenVINO: its device names, float32 whatever the processor likes, and threads that roam."""

from __future__ import annotations

import numpy as np
import pytest

import ghostdeploy as gd
from ghostdeploy.errors import UnsupportedHardware, UsageError
from tests.bundles import Tiny


@pytest.fixture
def path(tiny_bundle):
    return tiny_bundle("openvino", "fp16")


def test_threads_are_not_pinned_and_arithmetic_is_float32(path):
    with gd.load(path, threads=2) as runtime:
        request = runtime._requests.get()
        runtime._requests.put(request)
        compiled = request.get_compiled_model()

        assert compiled.get_property("ENABLE_CPU_PINNING") is False
        assert compiled.get_property("INFERENCE_PRECISION_HINT").to_string() == "f32"


@pytest.mark.parametrize("device", ["cpu", "CPU"])
def test_a_device_may_be_written_small(path, device):
    batch = Tiny().example(3)["input"]

    with gd.load(path, threads=1) as usual, gd.load(path, threads=1, device=device) as runtime:
        assert np.array_equal(runtime(batch), usual(batch))
        assert runtime.info()["device"] == "CPU"


@pytest.mark.parametrize("device", ["AUTO", "auto:CPU", "HETERO:CPU", "MULTI:CPU", "BATCH:CPU"])
def test_a_virtual_device_is_refused_for_it_may_change_between_two_calls(path, device):
    with pytest.raises(UsageError, match="lets OpenVINO choose") as caught:
        gd.load(path, device=device)

    assert "CPU" in caught.value.hint


def test_a_missing_device_comes_with_openvinos_own_message(path):
    with pytest.raises(UnsupportedHardware, match=r"XPU.*not registered") as caught:
        gd.load(path, device="XPU")

    assert caught.value.hint == "devices here are CPU"
