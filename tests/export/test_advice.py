"""Nobody waits for an INT8 export that cannot pay on the processor at hand without having been told."""

from __future__ import annotations

import msgspec
import pytest

from ghostdeploy import machine as computer
from ghostdeploy import targets
from ghostdeploy.deploy.export.advice import (
    int8_advice,
    recommendation,
    recommended,
)
from ghostdeploy.deploy.measure import doctor
from ghostdeploy.machine import has_int8_dot_product, instruction_set

AVX2 = frozenset({"sse4_1", "avx", "avx2", "fma"})
AVX512 = AVX2 | {"avx512f", "avx512bw"}
VNNI = AVX512 | {"avx512_vnni"}


def test_onnx_runtime_is_slower_in_int8_without_dot_products():
    said = int8_advice(targets.find("onnx"), AVX2)

    assert "2.5× slower than float" in said
    assert "--hybrid" in said
    assert "shrinks the file" in said
    assert "\n" not in said


def test_openvino_gains_no_speed_without_dot_products():
    assert "onnx" not in int8_advice(targets.find("openvino"), AVX512)
    assert "as fast as float" in int8_advice(targets.find("openvino"), AVX512)


@pytest.mark.parametrize("flag", ["avx512_vnni", "avx_vnni", "amx_int8", "asimddp", "i8mm"])
def test_processors_with_dot_products_need_no_advice(flag):
    assert has_int8_dot_product({flag})
    assert int8_advice(targets.find("openvino"), AVX2 | {flag}) is None
    assert int8_advice(targets.find("tflite"), AVX2 | {flag}) is None


def test_onnx_runtime_is_slower_in_int8_even_with_dot_products_of_x86():
    said = int8_advice(targets.find("onnx"), VNNI)

    assert "this CPU has INT8 dot-product instructions" in said
    assert "1.2× slower than float" in said
    assert "--hybrid" in said
    assert int8_advice(targets.find("onnx"), {"asimd", "asimddp"}) is None


def test_a_processor_that_cannot_be_read_gets_no_advice():
    assert int8_advice(targets.find("onnx"), frozenset()) is None


def test_what_was_not_measured_on_a_kind_of_processor_is_neither_told_nor_recommended_there():
    ncnn = targets.find("ncnn")

    assert "ncnn measured as fast as float on such a CPU" in int8_advice(ncnn, AVX2)
    assert int8_advice(ncnn, VNNI) is None
    assert recommended(ncnn, AVX2) is None  # it makes no hybrid
    assert recommended(ncnn, VNNI) is None


def test_an_engine_that_does_not_run_on_the_cpu_gets_no_advice():
    from dataclasses import replace

    assert int8_advice(replace(targets.find("onnx"), int8_time=None), AVX2) is None


def test_a_ratio_measured_here_replaces_the_table():
    said = int8_advice(targets.find("onnx"), AVX2, measured=1.72)

    assert "1.7× slower than float here" in said


@pytest.mark.parametrize(
    ("machine", "flags", "name"),
    [
        ("x86_64", VNNI, "x86-64 AVX-512 VNNI"),
        ("AMD64", AVX512, "x86-64 AVX-512"),
        ("x86_64", AVX2 | {"avx_vnni"}, "x86-64 AVX-VNNI"),
        ("x86_64", AVX2, "x86-64 AVX2"),
        ("x86_64", VNNI | {"amx_int8"}, "x86-64 AMX INT8"),
        ("aarch64", {"asimd", "asimddp"}, "aarch64 NEON dot product"),
        ("arm64", {"asimd"}, "aarch64 NEON"),
        ("riscv64", set(), "riscv64"),
    ],
)
def test_the_instruction_set_is_the_best_that_int8_kernels_use(machine, flags, name, monkeypatch):
    monkeypatch.setattr(computer.platform, "machine", lambda: machine)
    monkeypatch.setattr(computer, "cpu_flags", lambda: frozenset(flags))

    assert instruction_set() == name


@pytest.mark.parametrize(
    ("limit", "name"),
    [
        ("AVX2", "x86-64 AVX2"),
        ("avx2", "x86-64 AVX2"),
        ("AVX512_CORE", "x86-64 AVX-512"),
        ("AVX512_CORE_VNNI", "x86-64 AVX-512 VNNI"),
        ("DEFAULT", "x86-64 AVX-512 VNNI"),
        ("", "x86-64 AVX-512 VNNI"),
    ],
)
def test_an_engine_that_is_kept_below_the_processor_is_reported_so(limit, name, monkeypatch):
    monkeypatch.setattr(computer.platform, "machine", lambda: "x86_64")
    monkeypatch.setattr(computer, "cpu_flags", lambda: VNNI)
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", limit)

    assert instruction_set(targets.find("openvino").instruction_limit) == name
    assert instruction_set(targets.find("onnx").instruction_limit) == "x86-64 AVX-512 VNNI"


def test_the_examination_agrees_with_the_flags():
    found = doctor.examine()

    assert found.int8_dot_product == has_int8_dot_product(computer.cpu_flags())
    assert msgspec.json.encode(found)


@pytest.mark.parametrize("name", ["onnx", "openvino", "tflite"])
@pytest.mark.parametrize("flags", [AVX2, AVX512])
def test_every_cpu_target_has_a_precision_that_pays(name, flags):
    assert recommended(targets.find(name), flags) == "hybrid"


@pytest.mark.parametrize(
    ("name", "flags", "precision"),
    [
        ("onnx", VNNI, "hybrid"),
        ("openvino", VNNI, "int8"),
        ("tflite", VNNI, "int8"),
        ("onnx", {"asimd", "asimddp"}, "int8"),
    ],
)
def test_dot_products_make_int8_pay_where_the_engine_was_faster_with_them(name, flags, precision):
    assert recommended(targets.find(name), flags) == precision


def test_nothing_is_recommended_for_other_hardware_or_an_unknown_processor():
    assert recommended(targets.find("tensorrt"), AVX2) is None
    assert recommended(targets.find("onnx"), frozenset()) is None


def test_a_float_export_ends_with_what_would_be_faster():
    rows = [targets.find("onnx"), targets.find("tensorrt")]

    assert "--hybrid is recommended for onnx, " in recommendation(rows, "fp32", AVX2)
    assert "--hybrid is recommended for onnx, whose INT8" in recommendation(rows, "fp32", VNNI)


def test_hybrid_is_not_recommended_where_no_layer_waits_for_memory():
    rows = [targets.find(name) for name in ("onnx", "openvino")]

    assert "--hybrid is recommended for onnx, INT8" in recommendation(rows, "fp32", AVX2, without_hybrid={"openvino"})
    assert recommendation(rows, "fp32", AVX2, without_hybrid={"onnx", "openvino"}) is None
    assert "--int8 is recommended for openvino" in recommendation(
        rows, "fp32", VNNI, without_hybrid={"onnx", "openvino"}
    )


def test_engines_of_one_export_may_want_different_precisions():
    rows = [targets.find(name) for name in ("onnx", "openvino", "tflite")]

    said = recommendation(rows, "fp32", VNNI)
    assert "--int8 is recommended for openvino, tflite, --hybrid is recommended for onnx" in said
    assert recommendation(rows, "hybrid", VNNI).endswith("--int8 is recommended for openvino, tflite")
    assert "--int8" not in recommendation(rows, "int8", VNNI)


@pytest.mark.parametrize(
    ("name", "precision", "flags"),
    [("onnx", "hybrid", AVX2), ("openvino", "int8", VNNI), ("onnx", "hybrid", VNNI), ("onnx", "fp32", frozenset())],
)
def test_the_recommended_precision_is_not_recommended_again(name, precision, flags):
    assert recommendation([targets.find(name)], precision, flags) is None
