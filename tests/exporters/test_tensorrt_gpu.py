"""The runtime's own work (copies, lanes, recording, life cycle) on a GPU made of host memory, and on a real one."""

from __future__ import annotations

import threading

import numpy as np
import pytest

import ghostdeploy as gd
from ghostdeploy.bundle.folder import open_bundle
from ghostdeploy.errors import BundleError, InputError, UnsupportedHardware, UsageError
from ghostdeploy.nvidia.driver import Device, Driver, DriverError, gpus
from ghostdeploy.runtimes.tensorrt.runtime import run_on_device
from tests.bundles import Tiny
from tests.fake_gpu import DeviceArray, FakeCuda, install
from tests.tensorrt_kits import make_kit

pytest.importorskip("tensorrt_rtx", reason="TensorRT for RTX is not installed here")

GPU = pytest.mark.skipif(not gpus(), reason="no CUDA device here")


@pytest.fixture(scope="module")
def kits(tmp_path_factory):
    """A function (precision, fields of Tiny) → folder of a bundle with an engine for sm 89 that nobody changes."""
    made = {}

    def build(precision="fp16", *, sm="89", **fields):
        key = (precision, sm, *sorted(fields.items()))
        if key not in made:
            settings = {"sm": (sm,)} if sm else {}
            made[key] = make_kit(tmp_path_factory.mktemp("kit"), precision, tiny=Tiny(**fields), **settings)
        return made[key]

    return build


@pytest.fixture
def paper_gpu(monkeypatch):
    """A function: bundle, facts of the GPU → its driver functions; see `tests.fake_gpu.install`."""
    return lambda path, **facts: install(monkeypatch, path, **facts)


@pytest.mark.parametrize("fields", [{}, {"batch": 3}, {"batch": None}, {"side": True}, {"layout": "nhwc"}], ids=str)
def test_golden_vectors_run_through_pinned_and_device_memory(kits, paper_gpu, fields):
    path = kits(**fields)
    paper_gpu(path)

    assert gd.verify(path).verdict == "passed"


def test_everything_is_freed_at_the_end(kits, paper_gpu):
    cuda = paper_gpu(kits())

    with gd.load(kits(), threads=3) as runtime:
        runtime(Tiny().example(4)["input"])
        assert len(cuda.streams) == 3

    assert (cuda.memory, cuda.streams, cuda.graphs, cuda.retained) == ({}, set(), {}, 0)


def test_a_fixed_shape_is_recorded_once_and_launched_from_then_on(kits, paper_gpu):
    cuda = paper_gpu(kits())
    batch = Tiny().example(1)["input"]

    with gd.load(kits(), threads=1) as runtime:
        outputs = [runtime(batch * factor) for factor in (1, 2, 3)]
        again = runtime(batch)

    assert (cuda.log.count("cuStreamBeginCapture_v2"), cuda.log.count("cuGraphLaunch")) == (1, 3)
    assert np.array_equal(outputs[0], again)
    assert not np.array_equal(outputs[0], outputs[1])


@pytest.mark.parametrize("function", ["cuStreamBeginCapture_v2", "cuStreamEndCapture", "cuGraphInstantiateWithFlags"])
def test_a_driver_that_cannot_record_runs_without(kits, paper_gpu, function):
    cuda = paper_gpu(kits())
    cuda.fails[function] = 900

    with gd.load(kits(), threads=1) as runtime:
        first = runtime(Tiny().example(1)["input"])
        cuda.capturing.clear()  # the driver ends a recording that it refuses
        second = runtime(Tiny().example(1)["input"])

    assert np.array_equal(first, second)
    assert "cuGraphLaunch" not in cuda.log


def test_a_free_batch_is_not_recorded_and_large_ones_go_in_pieces(kits, paper_gpu):
    path = kits(batch=None)
    cuda = paper_gpu(path, largest=4)
    inputs = Tiny().example(11)["input"]

    with gd.load(path, threads=1) as runtime:
        whole = runtime(inputs)
        single = np.concatenate([runtime(inputs[index : index + 1]) for index in range(11)])

    assert np.array_equal(whole, single)
    assert "cuStreamBeginCapture_v2" not in cuda.log


def test_outputs_belong_to_the_caller(kits, paper_gpu):
    paper_gpu(kits())
    inputs = Tiny().example(2)["input"]

    with gd.load(kits(), threads=1) as runtime:
        first = runtime(inputs[:1])
        kept = first.copy()
        runtime(inputs[1:])

    assert np.array_equal(first, kept)


def test_threads_share_the_lanes_and_each_has_the_context(kits, paper_gpu):
    path = kits(batch=None)
    paper_gpu(path)
    inputs = Tiny().example(6)["input"]
    with gd.load(path, threads=2) as runtime:
        expected = runtime(inputs)
        found = [None] * 6

        def work(index):
            found[index] = runtime(inputs[index : index + 1])

        threads = [threading.Thread(target=work, args=(index,)) for index in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    assert np.array_equal(np.concatenate(found), expected)


def test_profiles_choose_the_number_of_lanes(kits, paper_gpu):
    paper_gpu(kits())

    for options, streams in (({}, 1), ({"profile": "throughput"}, 2), ({"threads": 3}, 3)):
        with gd.load(kits(), **options) as runtime:
            info = runtime.info()
            assert (info["streams"], info["engine"], info["engine_precision"]) == (streams, "tensorrt_rtx", "float16")


def test_memory_that_cannot_be_had_is_unsupported_hardware_and_nothing_stays(kits, paper_gpu):
    cuda = paper_gpu(kits())
    cuda.fails["cuMemHostAlloc"] = 2

    with pytest.raises(UnsupportedHardware, match=r"the NVIDIA driver refuses: cuMemHostAlloc: CUDA_ERROR_PAPER \(2\)"):
        gd.load(kits())

    assert (cuda.memory, cuda.streams, cuda.retained) == ({}, set(), 0)


def test_an_engine_that_refuses_to_run_is_a_bundle_error(kits, paper_gpu):
    cuda = paper_gpu(kits())

    with gd.load(kits()) as runtime:
        cuda.engine.runs = False
        with pytest.raises(BundleError, match="the engine refused to run"):
            runtime(Tiny().example(1)["input"])


def test_code_inside_an_engine_is_allowed_only_where_the_kit_asked_for_it(kits, paper_gpu):
    cuda = paper_gpu(kits())

    gd.load(kits()).close()

    assert cuda.runtime.engine_host_code_allowed is False


def test_memory_on_the_device_is_used_in_place(kits, paper_gpu):
    path = kits(batch=None)
    cuda = paper_gpu(path)
    images, logits = Tiny().example(2)["input"], np.zeros((2, 10), np.float32)

    with gd.load(path, threads=1) as runtime:
        expected = runtime(images)
        before = len(cuda.log)
        run_on_device(runtime, {"input": DeviceArray(images), "logits": DeviceArray(logits)})
        assert not {"cuMemcpyHtoDAsync_v2", "cuMemcpyDtoHAsync_v2"} & set(cuda.log[before:])
        again = runtime(images)

    assert np.array_equal(logits, expected)
    assert np.array_equal(again, expected)


def test_a_fixed_engine_can_alternate_between_device_and_host_memory(kits, paper_gpu):
    paper_gpu(kits())
    images, logits = Tiny().example(2)["input"], np.zeros((1, 10), np.float32)

    with gd.load(kits(), threads=1) as runtime:
        expected = runtime(images)
        for index in (1, 0, 1):
            run_on_device(runtime, {"input": DeviceArray(images[index : index + 1]), "logits": DeviceArray(logits)})
            assert np.array_equal(logits, expected[index : index + 1])
            assert np.array_equal(runtime(images), expected)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.pop("logits"), "tensors are input, expected input, logits"),
        (lambda t: t.update(input=np.zeros((1, 3, 16, 16), np.float32)), "expected an object with __cuda_array"),
        (lambda t: t.update(input=DeviceArray(np.zeros((1, 3, 16, 16)))), "input is float64"),
        (lambda t: t.update(logits=DeviceArray(np.zeros((1, 9), np.float32))), r"logits is float32 \(1, 9\)"),
        (lambda t: t.update(logits=DeviceArray(np.zeros((2, 10), np.float32))), r"expected float32 \(1, 10\)"),
        (
            lambda t: t.update(input=DeviceArray(np.zeros((1, 3, 16, 16), np.float32), strides=(4, 4, 4, 4))),
            "not C-contiguous",
        ),
        (
            lambda t: t.update(
                input=DeviceArray(np.zeros((33, 3, 16, 16), np.float32)),
                logits=DeviceArray(np.zeros((33, 10), np.float32)),
            ),
            "expected at most 32",
        ),
    ],
)
def test_unfit_device_memory_is_an_input_error(kits, paper_gpu, change, message):
    path = kits(batch=None)
    paper_gpu(path)
    tensors = {
        "input": DeviceArray(np.zeros((1, 3, 16, 16), np.float32)),
        "logits": DeviceArray(np.zeros((1, 10), np.float32)),
    }
    change(tensors)

    with gd.load(path) as runtime, pytest.raises(InputError, match=message):
        run_on_device(runtime, tensors)


def test_device_memory_after_close_is_a_usage_error(kits, paper_gpu):
    paper_gpu(kits())
    runtime = gd.load(kits())
    runtime.close()

    with pytest.raises(UsageError, match="was closed"):
        run_on_device(runtime, {})


def test_the_driver_gives_its_own_words():
    cuda = FakeCuda()
    cuda.fails["cuMemAlloc_v2"] = 2

    with pytest.raises(DriverError, match=r"cuMemAlloc_v2: CUDA_ERROR_PAPER \(2\): paper jam"):
        Driver(cuda).allocate(8)


def test_the_driver_lists_its_devices():
    assert Driver(FakeCuda((12, 1), count=2)).devices() == [
        Device(0, "Paper GPU", "121"),
        Device(1, "Paper GPU", "121"),
    ]


@GPU
@pytest.mark.gpu
@pytest.mark.parametrize("precision", ["fp32", "fp16"])
@pytest.mark.parametrize("batch", [1, None])
def test_an_engine_built_here_meets_its_golden_vectors(tmp_path, precision, batch):
    path = make_kit(tmp_path, precision, tiny=Tiny(batch=batch))

    assert open_bundle(path).manifest.precision_achieved.how.count("engine by its inspector") == 1
    assert gd.verify(path).verdict == "passed"


@GPU
@pytest.mark.gpu
def test_calls_from_many_threads_agree_on_the_device(tmp_path):
    path = make_kit(tmp_path, "fp32", tiny=Tiny(batch=None))
    inputs = Tiny().example(8)["input"]

    with gd.load(path, threads=2) as runtime:
        expected = runtime(inputs)
        futures = [runtime.submit(inputs[index : index + 1]) for index in range(8)]
        found = np.concatenate([future.result() for future in futures])

    assert np.allclose(found, expected, atol=1e-4 * np.abs(expected).max())
