"""A fresh Debian machine has all that the emulator is made of: signed packages, hashed wheels, else one sentence."""

from __future__ import annotations

import hashlib
import re
import zipfile
from importlib import metadata
from pathlib import Path

import pytest

from ghostdeploy.errors import BadInput, MissingDependency
from ghostdeploy.remote.emulator import CORES, debian, recipe, wheels
from tests.conftest import require_program

ROOT = Path(__file__).parents[2]


def test_the_wheels_have_the_tested_versions():
    pins = dict(line.split("==") for line in (ROOT / "constraints.txt").read_text().splitlines() if "==" in line)

    assert wheels.versions() == {name: pins[name] for name in wheels.NAMES}
    assert len(recipe.WHEELS.read_text().splitlines()) == len(wheels.NAMES)


def test_the_wheels_are_all_that_they_ask_for():
    def plain(name):
        return re.sub(r"[-_.]+", "-", name).lower()

    asked = {
        plain(re.match(r"[\w.-]+", one)[0])
        for name in wheels.NAMES
        for one in metadata.requires(name) or ()
        if ";" not in one
    }

    assert asked - {plain(name) for name in wheels.NAMES} == {plain(name) for name in wheels.UNUSED}


@pytest.fixture
def index(tmp_path, monkeypatch):
    """An index of one wheel for Arm; returns the wheel."""
    wheel = tmp_path / "index" / "tiny-1.0-cp311-cp311-manylinux_2_28_aarch64.whl"
    wheel.parent.mkdir()
    about = {
        "METADATA": "Metadata-Version: 2.1\nName: tiny\nVersion: 1.0\n",
        "WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: false\nTag: cp311-cp311-manylinux_2_28_aarch64\n",
        "RECORD": "",
    }
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("tiny.py", "value = 1\n")
        for name, text in about.items():
            archive.writestr(f"tiny-1.0.dist-info/{name}", text)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(wheel.parent))
    return wheel


def listed(folder, digest, name="tiny==1.0"):
    path = folder / "wheels.txt"
    path.write_text(f"{name} --hash=sha256:{digest}\n")
    return path


def test_a_wheel_for_arm_is_unpacked_here(index, tmp_path, monkeypatch):
    (tmp_path / "kit").mkdir()
    monkeypatch.chdir(tmp_path)
    wheels.install(Path("kit", "site"), listed(tmp_path, hashlib.sha256(index.read_bytes()).hexdigest()))

    assert (tmp_path / "kit" / "site" / "tiny.py").read_text() == "value = 1\n"


def test_a_wheel_with_another_hash_is_refused(index, tmp_path):
    with pytest.raises(BadInput, match=r"the wheel of tiny==1\.0 for Arm has another SHA-256 than"):
        wheels.install(tmp_path / "site", listed(tmp_path, "0" * 64))

    assert not (tmp_path / "site").exists()


def test_a_wheel_that_is_not_there_is_told(index, tmp_path):
    with pytest.raises(MissingDependency, match=r"pip got no wheels for Arm: .*other"):
        wheels.install(tmp_path / "site", listed(tmp_path, "0" * 64, "other==1.0"))


def test_without_debian_it_says_what_to_do_instead(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))

    with pytest.raises(MissingDependency, match="needs apt-get and apt-config and dpkg-deb of Debian") as refused:
        debian.fetch(tmp_path / "apt", emulator=True)

    assert "ssh://" in refused.value.hint


def test_without_a_keyring_nothing_is_fetched(tmp_path, monkeypatch):
    require_program("apt-get")
    monkeypatch.setattr(debian, "_is_release", lambda: False)
    monkeypatch.setattr(debian, "_KEYRING", tmp_path / "none.gpg")

    with pytest.raises(MissingDependency, match=r"none\.gpg is not here, and packages without a checked signature"):
        debian.fetch(tmp_path / "apt", emulator=True)


@pytest.mark.parametrize("mirror", ["", "no address"])
def test_another_system_is_asked_for_a_mirror(mirror, tmp_path, monkeypatch):
    require_program("apt-get")
    monkeypatch.setattr(debian, "_is_release", lambda: False)
    monkeypatch.setattr(debian, "_KEYRING", tmp_path)
    monkeypatch.setattr(type(tmp_path), "is_file", lambda _: True)
    monkeypatch.setenv("GHOSTDEPLOY_DEBIAN", mirror)

    with pytest.raises(MissingDependency, match="packages of Debian GNU/Linux 12") as refused:
        debian.fetch(tmp_path / "apt", emulator=True)

    assert "GHOSTDEPLOY_DEBIAN" in refused.value.hint


def test_without_network_the_reason_is_apts(tmp_path, monkeypatch):
    require_program("apt-get")
    monkeypatch.setattr(debian, "_is_release", lambda: False)
    monkeypatch.setattr(debian, "_KEYRING", tmp_path)
    monkeypatch.setattr(type(tmp_path), "is_file", lambda _: True)
    monkeypatch.setenv("GHOSTDEPLOY_DEBIAN", "http://127.0.0.1:1/debian")
    monkeypatch.setenv("no_proxy", "*")

    with pytest.raises(MissingDependency, match=r"Debian's archives gave no arm64 packages: .*127\.0\.0\.1"):
        debian.fetch(tmp_path / "apt", emulator=True)


def test_links_stay_inside_the_arm_system(tmp_path):
    (tmp_path / "usr" / "lib").mkdir(parents=True)
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc" / "site.py").write_text("its own")
    link = tmp_path / "usr" / "lib" / "site.py"
    link.symlink_to("/etc/site.py")
    debian.make_links_relative(tmp_path)

    assert str(link.readlink()) == "../../etc/site.py"
    assert link.read_text() == "its own"


@pytest.mark.parametrize(("known", "fit"), [(" cortex-a53\n cortex-a72\n", False), (f"{' '.join(CORES)} max\n", True)])
def test_an_installed_emulator_is_used_where_it_has_every_core(known, fit, tmp_path, monkeypatch):
    program = tmp_path / "qemu-aarch64-static"
    program.write_text(f"#!/bin/sh\nprintf '{known}'\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")

    assert debian.installed_emulator() == (program if fit else None)
