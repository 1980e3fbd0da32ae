"""What OpenVINO must be told, because its own defaults differ from machine to machine."""

from __future__ import annotations

import pytest

import ghostdeploy as gd
from ghostdeploy.errors import UsageError
from tests.conftest import require


@pytest.fixture(scope="module", autouse=True)
def _engine():
    require("openvino")


def compiled(runtime):
    request = runtime._requests.get()
    runtime._requests.put(request)
    return request.get_compiled_model()


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
@pytest.mark.parametrize("profile", ["latency", "throughput"])
def test_arithmetic_is_float32_and_threads_are_not_tied_to_cores(tiny_bundle, precision, profile):
    with gd.load(tiny_bundle("openvino", precision), profile=profile) as runtime:
        model = compiled(runtime)

        assert model.get_property("INFERENCE_PRECISION_HINT").to_dtype() == "float32"
        assert model.get_property("ENABLE_CPU_PINNING") is False
        assert model.get_property("PERFORMANCE_HINT") == profile.upper()


@pytest.mark.parametrize("device", ["AUTO", "auto", "HETERO:GPU,CPU", "MULTI:CPU", "BATCH:CPU"])
def test_a_device_that_may_change_between_calls_is_a_usage_error(tiny_bundle, device):
    with pytest.raises(UsageError, match="expected one device") as caught:
        gd.load(tiny_bundle("openvino"), device=device)

    assert "CPU" in caught.value.hint
