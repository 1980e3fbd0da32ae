"""The build kit, held against NVIDIA's own parser and builder (TensorRT for RTX, which needs no GPU to build)."""

from __future__ import annotations

import sys
import types

import msgspec
import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from ghostdeploy.deploy.plan.config import ExportConfig
from ghostdeploy.errors import MissingDependency, UsageError
from ghostdeploy.exporters.tensorrt import build as tensorrt_build
from ghostdeploy.exporters.tensorrt import exporter
from ghostdeploy.exporters.tensorrt.engine import GraphRefused, build_engine, parse, require_gpu
from ghostdeploy.exporters.tensorrt.spec import COMPUTE_CAPABILITIES, check_sms
from ghostdeploy.nvidia import kit
from ghostdeploy.nvidia.driver import gpus
from ghostdeploy.nvidia.library import any_library, install_hint, load_library, plain
from tests.bundles import Tiny, network
from tests.exported import plain_graph
from tests.tensorrt_kits import export_kit, named, quantized

pytest.importorskip("tensorrt_rtx", reason="TensorRT for RTX is not installed here")

NO_GPU = pytest.mark.skipif(bool(gpus()), reason="there is a GPU here")
SAMPLES = ("ghostnet_050", "g_ghost_regnetx_002")


def spec_of(folder):
    return kit.decode((folder / kit.SPEC).read_bytes(), where=kit.SPEC)


@pytest.fixture(scope="module")
def sample(tmp_path_factory):
    """A function: name → the float ONNX graph of a shipped model with a free batch."""
    return lambda name: onnx.load(plain_graph(tmp_path_factory, name))


@pytest.mark.full
@pytest.mark.parametrize("name", SAMPLES)
@pytest.mark.parametrize("precision", ["fp16", "int8"])
@pytest.mark.parametrize("dynamic", [True, False])
def test_parser_and_builder_accept_the_graphs_of_the_sample_models(sample, tmp_path, name, precision, dynamic):
    model = sample(name)
    if not dynamic:
        for value in (*model.graph.input, *model.graph.output):
            value.type.tensor_type.shape.dim[0].dim_value = 1
    graph = quantized(model, largest=8.0) if precision == "int8" else model

    written = export_kit(graph, tmp_path, precision, dynamic=dynamic)

    spec = spec_of(tmp_path)
    assert "accepted by parser and builder of TensorRT for RTX" in written.precision.how
    assert written.precision.int8_layers == (len(spec.layers) if precision == "int8" else 0)
    assert {layer.precision for layer in spec.layers.values()} == {precision}
    assert spec.float_part == "fp16"
    assert bool(spec.shapes) is dynamic


@NO_GPU
@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_engines_are_built_ahead_for_each_architecture_asked_for(tmp_path, precision):
    written = export_kit(named(network(Tiny())), tmp_path, precision, sm=("86", "89"))

    assert written.files == ("engines/rtx-sm86.engine", "engines/rtx-sm89.engine")
    library = load_library("tensorrt_rtx")
    size = library.api.Runtime(library.logger).engine_header_size
    headers = [(tmp_path / name).read_bytes()[:size] for name in written.files]
    assert [header[:4] for header in headers] == [b"vtrt"] * 2
    version = bytes(int(part) for part in library.version.split("."))
    assert all(version in header for header in headers)
    assert headers[0] != headers[1]
    engines = spec_of(tmp_path).engines
    assert [(e.file, e.compute_capability, e.version, e.layers) for e in engines] == [
        (name, sm, library.version, None) for name, sm in zip(written.files, ("86", "89"), strict=True)
    ]
    assert written.tools["tensorrt_rtx"] == library.version


@NO_GPU
def test_nvidia_finds_nothing_wrong_with_the_header_but_the_missing_driver(tmp_path):
    export_kit(named(network(Tiny())), tmp_path, "fp16", sm=("89",))
    library = load_library("tensorrt_rtx")
    data = (tmp_path / "engines/rtx-sm89.engine").read_bytes()

    with library.listening() as said:
        _, diagnostics = library.api.Runtime(library.logger).get_engine_validity(data)

    flags = library.api.EngineInvalidityDiagnostics
    assert not diagnostics & (int(flags.MALFORMED_ENGINE) | int(flags.VERSION_MISMATCH))
    assert said.reason().startswith("CUDA error 35")


@pytest.mark.parametrize("sm", COMPUTE_CAPABILITIES)
def test_every_architecture_of_the_table_can_be_built_in_half_precision(tmp_path, sm):
    written = export_kit(named(network(Tiny())), tmp_path, "fp16", sm=(sm,))

    assert f"engines/rtx-sm{sm}.engine" in written.files


def test_the_table_of_architectures_is_the_librarys_own():
    members = load_library("tensorrt_rtx").api.ComputeCapability.__members__

    assert {name.removeprefix("SM") for name in members if name.startswith("SM")} == set(COMPUTE_CAPABILITIES)


@NO_GPU
def test_no_int8_engine_is_built_ahead_and_the_record_says_why(tmp_path):
    written = export_kit(quantized(network(Tiny())), tmp_path, "int8", sm=("89",))

    assert written.files == ()
    assert spec_of(tmp_path).engines == ()
    assert "no INT8 engines of TensorRT for RTX" in written.precision.how
    assert "no engine was built on this machine" in written.precision.how
    assert "read from the Q/DQ graph" in written.precision.how


def test_a_zero_point_other_than_zero_is_refused_in_the_parsers_words(tmp_path):
    with pytest.raises(GraphRefused, match=r"parser of TensorRT for RTX \S+ refuses the graph: .*[Zz]ero.?point"):
        export_kit(quantized(network(Tiny()), symmetric=False), tmp_path, "int8")

    assert not (tmp_path / "kit").exists()


def test_an_operator_that_tensorrt_does_not_have_is_refused_by_name(tmp_path):
    model = named(network(Tiny()))
    model.graph.node[1].CopyFrom(onnx.helper.make_node("Det", ["a"], ["b"], "relu_1"))

    with pytest.raises(GraphRefused, match="Det"):
        build_engine(
            load_library("tensorrt_rtx"),
            model.SerializeToString(),
            kit.KitSpec(precision="fp32", float_part="fp32", tf32=False, layers={}),
            compute_capability="89",
        )


def test_the_builders_refusal_names_the_architecture(sample, tmp_path):
    with pytest.raises(GraphRefused, match=r"sm 75: the builder of TensorRT for RTX \S+ refuses .*Turing"):
        export_kit(sample("ghostnet_050"), tmp_path, "fp32", dynamic=True, sm=("75",))


def test_a_float_engine_computes_in_float32_not_in_tf32(tmp_path):
    export_kit(named(network(Tiny())), tmp_path, "fp32")

    assert spec_of(tmp_path).tf32 is False


def test_a_free_batch_gets_a_profile_for_every_input(tmp_path):
    export_kit(named(network(Tiny(batch=None, side=True))), tmp_path, "fp16", dynamic=True)

    shapes = spec_of(tmp_path).shapes
    assert (shapes["input"].min, shapes["input"].max) == ((1, 3, 16, 16), (exporter.MAX_BATCH, 3, 16, 16))
    assert (shapes["side"].min, shapes["side"].max) == ((1, 4), (exporter.MAX_BATCH, 4))


def test_pixels_go_in_as_uint8_and_logits_come_out_as_float32(tmp_path):
    export_kit(named(network(Tiny(layout="nhwc"))), tmp_path, "fp16")
    library = load_library("tensorrt_rtx")
    builder = library.api.Builder(library.logger)

    net = parse(library, builder, (tmp_path / kit.MODEL).read_bytes())

    assert net.get_input(0).dtype == library.api.uint8
    assert net.get_output(0).dtype == library.api.float32
    layers = [net.get_layer(index) for index in range(net.num_layers)]
    convolutions = [layer for layer in layers if layer.type == library.api.LayerType.CONVOLUTION]
    assert {layer.get_output(0).dtype for layer in convolutions} == {library.api.float16}
    assert len(convolutions) == 2


def test_layers_too_large_for_half_precision_are_named_in_the_record(tmp_path):
    model = named(network(Tiny()))
    tensor = next(t for t in model.graph.initializer if t.name == "depthwise")
    weights = numpy_helper.to_array(tensor).copy()
    weights[0] *= np.float32(1e-7)
    tensor.CopyFrom(numpy_helper.from_array(weights, "depthwise"))

    written = export_kit(model, tmp_path, "fp16")

    assert "fp32 kept where weights do not fit half precision: conv_2" in written.precision.how
    assert spec_of(tmp_path).layers["conv_2"].precision == "fp32"


def test_the_record_can_be_read_back_and_an_unknown_field_is_refused(tmp_path):
    export_kit(named(network(Tiny())), tmp_path, "fp16", hardware_compatibility="ampere_plus", version_compatible=True)
    data = (tmp_path / kit.SPEC).read_bytes()
    spec = kit.decode(data, where="build.json")

    assert (spec.hardware_compatibility, spec.version_compatible, spec.min_tensorrt) == ("ampere_plus", True, "10.12")
    assert kit.encode(spec) == data
    raw = msgspec.json.decode(data) | {"surprise": 1}
    with pytest.raises(Exception, match=r"build\.json is not a valid build kit: .*surprise"):
        kit.decode(msgspec.json.encode(raw), where="build.json")


@NO_GPU
def test_int8_without_nvidias_parser_is_refused_with_the_pip_command(tmp_path, monkeypatch):
    monkeypatch.setattr(exporter, "installed", list)

    with pytest.raises(MissingDependency, match=r'needs tensorrt_rtx, .*: pip install "ghostdeploy\[tensorrt-rtx\]"'):
        export_kit(quantized(network(Tiny())), tmp_path, "int8")
    with pytest.raises(MissingDependency, match="sm 89"):
        export_kit(named(network(Tiny())), tmp_path, "fp16", sm=("89",))


@NO_GPU
def test_a_float_kit_needs_no_library_of_nvidia_and_says_that_nothing_was_built(tmp_path, monkeypatch):
    for module in (exporter, tensorrt_build):
        monkeypatch.setattr(module, "installed", list)

    written = export_kit(named(network(Tiny())), tmp_path, "fp16")

    assert written.files == ()
    assert "accepted" not in written.precision.how
    assert "no engine was built on this machine" in written.precision.how


@NO_GPU
def test_without_a_driver_the_library_says_so_itself():
    with pytest.raises(Exception, match=r"cannot use a GPU here: CUDA error 35: CUDA driver version is insufficient"):
        require_gpu(any_library())


@pytest.mark.parametrize("spelling", ["86", "8.6", "sm86", "sm_86", "SM86"])
def test_an_architecture_may_be_spelled_as_people_do(spelling):
    assert check_sms([spelling, "89", "86"]) == ("86", "89")


@pytest.mark.parametrize(
    ("name", "message", "hint"),
    [
        ("88", "unknown GPU architecture '88'", "75, 80, 86, 89, 120, 121"),
        ("866", "unknown GPU architecture '866'", "did you mean 86"),
        ("ampere", "unknown GPU architecture 'ampere'", "75, 80, 86, 89, 120, 121"),
        ("90", "no engine for sm 90 .Hopper. can be built without that GPU", "ghostdeploy build"),
        ("8.7", "Jetson Orin", "on the device"),
    ],
)
def test_an_unknown_architecture_is_a_usage_error(name, message, hint):
    with pytest.raises(UsageError, match=message) as caught:
        check_sms([name])

    assert hint in caught.value.hint


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"hardware_compatibility": "ampere"}, "unknown hardware compatibility 'ampere'"),
        ({"hardware_compatibility": 8}, "hardware_compatibility is 8, expected none or ampere_plus"),
        ({"version_compatible": "yes"}, "version_compatible is 'yes', expected True or False"),
        ({"sm": ("86", "77")}, "unknown GPU architecture '77'"),
    ],
)
def test_impossible_settings_are_usage_errors(settings, message):
    with pytest.raises(UsageError, match=message):
        ExportConfig(targets=("tensorrt",), settings=settings)


def test_settings_are_kept_as_they_are_spelled_and_only_where_they_differ():
    config = ExportConfig(targets=("tensorrt",), settings={"sm": ["8.6", "sm_89"], "version_compatible": False})

    assert config.settings == {"sm": ("86", "89")}


def test_hints_name_the_extras_of_this_package():
    assert install_hint("tensorrt_rtx") == 'pip install "ghostdeploy[tensorrt-rtx]"'


@pytest.mark.parametrize(
    ("version", "fits"), [("10.3.0", False), ("10.11.1", False), ("10.12.0.36", True), ("11.1.0", True)]
)
def test_tensorrt_must_know_strongly_typed_networks(monkeypatch, version, fits):
    module = types.ModuleType("tensorrt")
    module.__version__, module.ILogger = version, object
    monkeypatch.setitem(sys.modules, "tensorrt", module)

    if fits:
        assert load_library.__wrapped__("tensorrt").title == f"TensorRT {version}"
    else:
        with pytest.raises(MissingDependency, match=rf"TensorRT {version} is too old, expected 10\.12 or later"):
            load_library.__wrapped__("tensorrt")


def test_a_broken_library_shows_its_real_fault(monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorrt", None)

    with pytest.raises(MissingDependency, match="tensorrt cannot be imported: import of tensorrt halted") as caught:
        load_library.__wrapped__("tensorrt")

    assert isinstance(caught.value.__cause__, ImportError)


def test_messages_of_the_library_lose_its_source_lines():
    text = "IBuilder::buildSerializedNetwork: Error Code 4: API Usage Error (No output. In validate at /_src/a.cpp:38)"

    assert plain(text) == "Error Code 4: API Usage Error (No output)"
