"""The C sample: a native bundle in a program by CMake, without a warning, with Python's answers on photographs."""

from __future__ import annotations

import shutil
import subprocess

import pytest

import ghostdeploy as gd
from ghostdeploy import samples
from ghostdeploy.bundle.folder import open_bundle
from ghostdeploy.samples import c
from ghostdeploy.samples.c import __main__ as command
from tests.conftest import require, require_program
from tests.emulated import require_emulator
from tests.exported import sample_bundle

IMAGES = [*samples.photos(), *samples.example_images()]


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    require("native")
    return sample_bundle(tmp_path_factory, "ghostnet_050", "native", precision="fp32", input="uint8-nhwc")


@pytest.fixture(scope="module")
def pictures(bundle, tmp_path_factory):
    """The images as the program reads them."""
    return c.write_pixels(open_bundle(bundle), IMAGES, tmp_path_factory.mktemp("ppm"))


def built(bundle, folder, **settings):
    """Builds the program with warnings as errors; returns its path."""
    given = {"BUNDLE": bundle, "CMAKE_C_FLAGS": "-Werror", **settings}
    words = [f"-D{name}={value}" for name, value in given.items()]
    for step in (["-S", c.HOME, "-B", folder, *words], ["--build", folder]):
        done = subprocess.run([require_program("cmake"), *step], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
    return folder / "classify"


@pytest.fixture(scope="module")
def program(bundle, tmp_path_factory):
    return built(bundle, tmp_path_factory.mktemp("build"))


def run(*words):
    return subprocess.run([*map(str, words)], capture_output=True, text=True, check=False)


def assert_answers_of_python(done, bundle):
    with gd.load(bundle) as model:
        expected = [model.classify(image, k=1)[0] for image in IMAGES]
    lines = [line.partition(": ")[2].rpartition(" ") for line in done.stdout.splitlines()]
    assert done.returncode == 0, done.stderr
    assert [label for label, _, _ in lines] == [label for label, _ in expected]
    assert [float(p) for _, _, p in lines] == pytest.approx([p for _, p in expected], abs=2e-4)


def test_the_program_gives_the_classes_of_python(program, bundle, pictures):
    assert_answers_of_python(run(program, bundle, *pictures), bundle)


def test_flags_of_android_on_x86_and_a_team_s_threads_compile_too(bundle, pictures, tmp_path):
    if shutil.which("x86_64-linux-gnu-gcc") is None:
        pytest.skip("this machine is no x86-64")
    program = built(bundle, tmp_path / "build", ANDROID_ABI="x86_64", GHOST_THREADS="ON")

    assert_answers_of_python(run(program, bundle, *pictures), bundle)


@pytest.mark.parametrize(
    ("core", "dotprod"), [("cortex-a72", "OFF"), pytest.param("cortex-a76", "ON", marks=pytest.mark.full)]
)
def test_a_program_for_arm_gives_them_on_an_arm_core(bundle, pictures, tmp_path, core, dotprod):
    compiler = require_program("aarch64-linux-gnu-gcc")
    toolchain = {"CMAKE_SYSTEM_NAME": "Linux", "CMAKE_SYSTEM_PROCESSOR": "aarch64", "CMAKE_C_COMPILER": compiler}
    settings = toolchain | {"CMAKE_EXE_LINKER_FLAGS": "-static", "ANDROID_ABI": "arm64-v8a", "GHOST_DOTPROD": dotprod}
    program = built(bundle, tmp_path / "build", **settings)

    assert program.read_bytes()[18] == 183  # of its header: the machine
    emulator = require_emulator(core)
    python = next(place for place, word in enumerate(emulator.interpreter) if "python" in word.rpartition("/")[2])
    assert_answers_of_python(run(*emulator.interpreter[:python], program, bundle, *pictures), bundle)


def test_what_is_no_picture_of_the_network_s_size_is_named(program, bundle, pictures, tmp_path):
    whole = pictures[0].read_bytes()
    wrong = {
        "text": b"no image",
        "cut": whole[:-1],
        "larger": b"P6\n65 64\n255\n" + bytes(65 * 64 * 3),
        "huge": b"P6\n99999 99999\n255\n\n",
        "sixteen bits": b"P6\n64 64\n65535\n" + bytes(64 * 64 * 6),
        "zeros": bytes(64),
    }
    for name, data in wrong.items():
        (tmp_path / name).write_bytes(data)

    done = run(program, bundle, *(tmp_path / name for name in wrong), tmp_path / "absent", pictures[0])

    assert done.returncode == 3
    assert done.stderr.count(" is no PPM file of 12288 bytes of pixels") == len(wrong) + 1
    assert done.stdout.startswith(f"{pictures[0]}: ")


def test_weights_of_another_bundle_are_refused(program, bundle, pictures, tmp_path):
    (tmp_path / "labels.txt").write_text("a\n")
    (tmp_path / "weights.bin").write_bytes(bytes(64))

    assert run(program, tmp_path, pictures[0]).stderr.endswith("this program is of another bundle\n")
    assert "weights.bin cannot be read" in run(program, tmp_path / "none", pictures[0]).stderr
    assert run(program).returncode == 2


def test_cmake_names_what_is_no_native_bundle(tmp_path):
    done = run(require_program("cmake"), "-S", c.HOME, "-B", tmp_path / "build", f"-DBUNDLE={tmp_path}")

    assert done.returncode != 0
    assert "expected a bundle of: ghostdeploy export -t" in " ".join(done.stderr.split())


def test_a_bundle_that_takes_floats_is_refused_with_the_option(tiny_bundle, tmp_path, capsys):
    assert command.main([str(tiny_bundle("native")), str(IMAGES[0]), "-o", str(tmp_path)]) == 3

    assert "--input uint8-nhwc" in capsys.readouterr().err


def test_the_command_writes_the_pixels_that_python_sees(bundle, tmp_path, capsys):
    from ghostdeploy.preprocess import to_pixels

    assert command.main([str(bundle), str(IMAGES[0]), "-o", str(tmp_path / "out")]) == 0

    file = tmp_path / "out" / f"{IMAGES[0].stem}.ppm"
    assert capsys.readouterr().out == f"{file}\n"
    pixels = to_pixels(IMAGES[0], open_bundle(bundle).manifest.preprocess)
    assert file.read_bytes() == b"P6\n64 64\n255\n" + pixels.tobytes()
