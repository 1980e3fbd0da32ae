"""ncnn behind the common interface: float32 is float32, memory is read rightly, files are read to their end."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys

import numpy as np
import pytest
from onnx.reference import ReferenceEvaluator

import ghostdeploy as gd
from ghostdeploy.bundle.folder import open_bundle
from ghostdeploy.errors import BundleError
from ghostdeploy.runtimes.ncnn import param
from tests.bundles import Tiny, network
from tests.conftest import require
from tests.signing import sign_again


@pytest.fixture(autouse=True)
def installed():
    require("ncnn")


RUN = """
import sys

import numpy as np

import ghostdeploy as gd

bundle, threads, images, found = sys.argv[1:]
with gd.load(bundle, threads=int(threads)) as runtime:
    np.save(found, runtime(np.load(images)))
"""


@pytest.mark.parametrize("size", [15, 16, 17])
@pytest.mark.parametrize("threads", [1, 2])
def test_every_size_gives_what_the_reference_gives(tiny_bundle, tmp_path, size, threads):
    """In a process of its own, that may have several threads: `make test` allows OpenMP one."""
    tiny = Tiny(size=size)
    given = tiny.example(3)
    wanted = [ReferenceEvaluator(network(tiny)).run(None, {"input": given["input"][i : i + 1]})[0] for i in range(3)]
    np.save(tmp_path / "images.npy", given["input"])

    words = [tiny_bundle("ncnn", size=size), str(threads), tmp_path / "images.npy", tmp_path / "found.npy"]
    subprocess.run([sys.executable, "-c", RUN, *words], check=True, env=os.environ | {"OMP_THREAD_LIMIT": "8"})

    np.testing.assert_allclose(np.load(tmp_path / "found.npy"), np.concatenate(wanted), rtol=1e-5, atol=2e-6)


def test_the_order_in_memory_does_not_matter(tiny_bundle):
    batch = Tiny().example(2)["input"]
    turned = np.asfortranarray(batch)

    with gd.load(tiny_bundle("ncnn"), threads=1) as runtime:
        assert np.array_equal(runtime(batch), runtime(turned))


@pytest.mark.parametrize("change", [lambda data: data + b"\0" * 4, lambda data: data[:-4]], ids=["more", "less"])
def test_weights_of_another_length_are_refused(tiny_bundle, tmp_path, change):
    copy = shutil.copytree(tiny_bundle("ncnn"), tmp_path / "copy")
    weights = copy / "model.bin"
    weights.write_bytes(change(weights.read_bytes()))
    sign_again(copy)

    with pytest.raises(BundleError, match="ncnn refuses"):
        gd.load(copy, threads=1)


def test_a_layer_that_this_ncnn_lacks_is_named(tiny_bundle, tmp_path):
    copy = shutil.copytree(tiny_bundle("ncnn"), tmp_path / "copy")
    text = copy / "model.param"
    text.write_text(text.read_text().replace("Pooling", "ArgMax"))
    sign_again(copy)

    with pytest.raises(BundleError, match="has no layer ArgMax"):
        gd.load(copy, threads=1)


GOOD = "7767517\n2 2\nInput in 0 1 x 0=4\nReLU r 1 1 x y\n"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "does not begin with"),
        ("7767517\n", "declares nothing"),
        (GOOD.replace("2 2", "3 2"), "has 2 layers"),
        (GOOD.replace("2 2", "2 3"), "declares 3 blobs"),
        (GOOD.replace("x y", "z y"), "no layer makes z"),
        (GOOD.replace("ReLU r 1 1 x y", "ReLU r 1 x"), "not a layer"),
        (GOOD.replace("ReLU r 1 1 x y", "ReLU r 1 1 x"), "not a whole layer"),
        (GOOD.replace("x y", "x x"), "declares 2 blobs"),
    ],
)
def test_a_text_that_is_not_whole_is_refused_before_ncnn_reads_it(text, said):
    with pytest.raises(ValueError, match=said):
        param.parse(text)


PEAK = """
import sys

from ghostdeploy.deploy.measure.bench_worker import peak_bytes
from ghostdeploy.runtimes.ncnn.engine import Network

layers = [f"Padding p{place} 1 1 x{place} x{place + 1} 0=1" for place in range(24)]
text = "\\n".join(["7767517", "25 25", "Input in 0 1 x0 0=1024 1=1024 2=4", *layers]) + "\\n"
network = Network(text, b"", threads=1, keep=sys.argv[1] == "keep")
before = peak_bytes()
network.run(network.zeros(), ["x24"])
print((peak_bytes() - before) >> 20)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="Windows does not say the peak")
def test_a_blob_is_freed_when_its_last_reader_has_had_it():
    """24 maps of 16 MB: all of them are there at the end only where they are kept to be looked at."""
    peaks = {}
    for how in ("keep", "run"):
        words = [sys.executable, "-c", PEAK, how]
        peaks[how] = int(subprocess.run(words, capture_output=True, text=True, check=True).stdout)

    assert peaks["run"] < 0.6 * peaks["keep"]


def test_what_is_read_is_what_is_written():
    assert param.render(param.parse(GOOD)) == GOOD


def test_the_payload_alone_says_its_inputs(tiny_bundle):
    layers = param.parse(open_bundle(tiny_bundle("ncnn", side=True)).payload.read_text())

    assert [(one.outputs[0], param.shape_of(one)) for one in layers if one.kind == "Input"] == [
        ("input", (3, 16, 16)),
        ("side", (4,)),
    ]
