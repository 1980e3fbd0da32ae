"""Servers that several tests ask; each is a process, started once."""

from __future__ import annotations

import shutil

import msgspec
import pytest

from ghostdeploy.bundle.folder import open_bundle
from ghostdeploy.bundle.manifest import encode
from ghostdeploy.distribute.forms import Wanted, package
from tests.bundles import Tiny, make_bundle
from tests.servers import Server, require_server


@pytest.fixture(scope="session", autouse=True)
def kserve():
    require_server()


@pytest.fixture(scope="session")
def bundles(tmp_path_factory, kserve):
    """Bundles by name: one image at a time, any batch with two inputs and outputs, pixels, INT8."""
    out = tmp_path_factory.mktemp("served")
    made = {
        "one": ("onnx", "fp32", Tiny()),
        "two": ("openvino", "fp32", Tiny(batch=None, side=True)),
        "pixels": ("onnx", "fp32", Tiny(layout="nhwc", batch=None)),
        "int8": ("openvino", "int8", Tiny()),
    }
    found = {}
    for name, (target, precision, tiny) in made.items():
        (out / f"of-{name}").mkdir()
        path = make_bundle(out / f"of-{name}", target, precision=precision, tiny=tiny)
        found[name] = path.rename(out / name)
    return found


@pytest.fixture(scope="session")
def versions(tmp_path_factory, bundles):
    """A repository with two versions of one name."""
    root = tmp_path_factory.mktemp("repository")
    package(bundles["one"], "triton", Wanted(out=root, name="net"))
    newer = shutil.copytree(bundles["one"], tmp_path_factory.mktemp("newer") / "net")
    manifest = msgspec.structs.replace(open_bundle(newer).manifest, created="2026-02-02T00:00:00+00:00")
    (newer / "manifest.json").write_bytes(encode(manifest))
    package(newer, "triton", Wanted(out=root, name="net"))
    return sorted((root / "net").glob("[0-9]"))


@pytest.fixture(scope="session")
def server(bundles, versions):
    """One server of them all, with a limit that tests may reach."""
    with Server(*bundles.values(), *versions, "--max-batch", 16, "--max-body", 1, "--timeout", 20) as running:
        yield running
