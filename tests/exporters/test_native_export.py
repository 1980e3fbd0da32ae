"""The native exporter: what it writes, and what it refuses."""

from __future__ import annotations

import subprocess
import sys
import zipfile

import pytest
import torch
from torch import nn

import ghostdeploy as gd
from ghostdeploy.errors import ExportFailed, UsageError
from tests.conftest import require, require_program

SIZE = 24


@pytest.fixture(autouse=True, scope="module")
def compiler():
    require("native")


class Net(nn.Module):
    """A convolution, an operation, a classifier."""

    def __init__(self, last):
        super().__init__()
        self.first = nn.Conv2d(3, 12, 3, 2, 1)
        self.last = last
        self.classifier = nn.Linear(12, 5)

    def forward(self, image):
        return self.classifier(self.last(torch.relu(self.first(image))).mean((2, 3)))


def export(last, out, *, seed=0, **options):
    torch.manual_seed(seed)  # a conversion that was made before comes from the cache
    return gd.export(Net(last).eval(), target="native", name="net", out=out, preprocess={"size": SIZE}, **options)


def test_the_sources_in_a_bundle_compile_alone_without_a_warning_and_replay_the_golden_vectors(tmp_path):
    compiler, made = require_program("cc"), export(nn.Identity(), tmp_path)
    source, program = made.path / "source", tmp_path / "replay"

    subprocess.run(
        [
            compiler,
            "-std=gnu11",
            "-O2",
            "-Wall",
            "-Wextra",
            "-Werror",
            *map(str, source.glob("*.c")),
            "-o",
            str(program),
            "-lm",
        ],
        check=True,
    )
    with zipfile.ZipFile(made.path / "golden.npz") as archive:
        archive.extractall(tmp_path)
    arrays = [tmp_path / f"{name}.npy" for name in ("input", "logits")]
    done = subprocess.run([program, made.path / "weights.bin", *arrays], capture_output=True, text=True, check=True)

    assert done.stdout.startswith("12 images, largest error ")
    assert float(done.stdout.split()[-1]) <= 1e-4


def test_a_network_of_floats_has_no_kernels_for_bytes_and_is_below_250_kilobytes(tmp_path):
    made = export(nn.Identity(), tmp_path)

    assert not [path.name for path in (made.path / "source").iterdir() if path.stem.endswith("_int8")]
    assert all(path.stat().st_size <= 250_000 for path in (made.path / "lib").iterdir())


def test_libraries_for_several_processors_are_built_at_once(tmp_path):
    levels = ("x86-64", "x86-64-v3") if gd_machine() == "x86-64" else ("aarch64",)
    made = export(nn.Identity(), tmp_path, arch=levels)

    assert sorted(path.stem for path in (made.path / "lib").iterdir()) == sorted(levels)


def gd_machine():
    from ghostdeploy.machine import architecture

    return architecture()


def test_an_unknown_arch_is_a_usage_error(tmp_path):
    with pytest.raises(UsageError, match="--arch pentium is unknown"):
        export(nn.Identity(), tmp_path, arch=("pentium",))


def test_an_operator_without_a_kernel_is_named_with_its_module(tmp_path):
    with pytest.raises(ExportFailed, match=r"native has no kernel for Erf at .*, behind the module first"):
        export(nn.GELU(), tmp_path)


def test_a_compiler_that_fails_is_told_and_its_log_kept(tmp_path, monkeypatch):
    broken = tmp_path / "cc"
    broken.write_text(f"#!{sys.executable}\nimport sys\nsys.exit('error: out of registers')\n")
    broken.chmod(0o755)
    monkeypatch.setenv("CC", str(broken))

    with pytest.raises(ExportFailed, match="cc failed with code 1: error: out of registers") as caught:
        export(nn.Identity(), tmp_path / "out", seed=2)

    assert "out of registers" in next((tmp_path / "out").glob("*.log")).read_text()
    assert "log" in (caught.value.hint or "")


def test_nothing_of_a_compilation_is_left(tmp_path):
    made = export(nn.Identity(), tmp_path)
    names = {path.name for path in made.path.iterdir()}

    assert names == {"manifest.json", "golden.npz", "labels.txt", "plan.json", "weights.bin", "source", "lib"} - (
        set() if (made.path / "labels.txt").exists() else {"labels.txt"}
    )
    assert not [path for path in (made.path / "lib").iterdir() if path.name.startswith(".")]
