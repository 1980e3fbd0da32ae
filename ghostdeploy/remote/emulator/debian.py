"""Debian's part: the emulator, and an arm64 system with Python, out of signed archives, without root.

apt keeps its lists, its cache and its idea of what is installed in a folder of ours, so the system's own are neither
read nor changed. On Debian 12 the host's sources say from where; elsewhere `$GHOSTDEPLOY_DEBIAN` names a mirror, and
the signature is checked with the keyring that Debian's `debian-archive-keyring` installs. The host's `Acquire` settings
(proxies, certificates, retries) count, its hooks do not run. apt checks each package against the signed index.

`dpkg-deb -x` unpacks: no maintainer script runs, nothing is configured. Absolute links are made relative, else a
program that follows one would leave the Arm system for the host's.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tarfile
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

from ghostdeploy.errors import MissingDependency
from ghostdeploy.remote.emulator.cores import CORES
from ghostdeploy.remote.emulator.programs import ProgramFailed, require, run
from ghostdeploy.remote.emulator.recipe import EMULATOR, LIBRARIES, PROGRAM, RELEASE, RELEASE_NAME, host_architecture

if TYPE_CHECKING:
    from collections.abc import Iterable

_KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
_MIRROR = "GHOSTDEPLOY_DEBIAN"
"""Environment variable: address of a mirror of Debian, for hosts of another release or system."""
_CONFIGURATION = """\
Dir::State "{folder}/state";
Dir::State::status "{folder}/status";
Dir::Cache "{folder}/cache";
Dir::Log "{folder}/log";
Dir::Etc::main "/dev/null";
Dir::Etc::parts "{folder}/none";
Dir::Etc::preferences "/dev/null";
Dir::Etc::preferencesparts "{folder}/none";
APT::Architecture "{host}";
APT::Architectures {{ "{host}"; "arm64"; }};
APT::Sandbox::User "";
APT::Update::Error-Mode "any";
Acquire::Languages "none";
Debug::NoLocking "true";
"""


def fetch(folder: Path, *, emulator: bool) -> list[Path]:
    """Downloads the packages.

    Args:
        folder: An empty one, for apt's state and the packages.
        emulator: Whether the emulator is needed as well.

    Returns:
        The packages' files.

    Raises:
        MissingDependency: No apt, no keyring, no network.
        OutputError: The disk is full.
    """
    require("apt-get", "apt-config", "dpkg-deb")
    variables = {"APT_CONFIG": str(_configure(folder))}
    host = host_architecture()
    wanted = [f"{name}:arm64" for name in LIBRARIES] + [f"{EMULATOR}:{host}"] * emulator
    got = folder / "packages"
    got.mkdir()
    try:
        run(["apt-get", "update"], folder=got, variables=variables)
        run(["apt-get", "download", *wanted], folder=got, variables=variables)
    except ProgramFailed as failed:
        raise MissingDependency(
            f"Debian's archives gave no arm64 packages: {failed.reason}",
            hint="check the network and the proxy, or use a real board: --on ssh://HOST",
        ) from failed
    return sorted(got.glob("*.deb"))


def unpack(packages: Iterable[Path], base: Path) -> dict[str, str]:
    """Unpacks the libraries among the packages.

    Args:
        packages: As `fetch` returns them.
        base: Folder to make.

    Returns:
        Version of each package, those of the emulator included.

    Raises:
        MissingDependency: A package cannot be unpacked.
        OutputError: The disk is full.
    """
    versions = {}
    for package in packages:
        name, version, _ = package.name.split("_")
        versions[name] = unquote(version)
        if name == EMULATOR:
            continue
        try:
            run(["dpkg-deb", "-x", package, base], folder=package.parent)
        except ProgramFailed as failed:
            raise MissingDependency(f"{package.name} cannot be unpacked: {failed.reason}") from failed
    make_links_relative(base)
    return dict(sorted(versions.items()))


def make_links_relative(base: Path) -> None:
    """Turns absolute links below `base`, which mean its own files, into relative ones."""
    for place, folders, files in os.walk(base):
        for name in (*folders, *files):
            link = Path(place, name)
            if link.is_symlink() and link.readlink().is_absolute():
                inside = base / link.readlink().relative_to("/")
                link.unlink()
                link.symlink_to(os.path.relpath(inside, place))


def unpack_emulator(packages: Iterable[Path], target: Path) -> None:
    """Writes the one program out of the package of all emulators."""
    package = next(path for path in packages if path.name.startswith(f"{EMULATOR}_"))
    with subprocess.Popen(["dpkg-deb", "--fsys-tarfile", package], stdout=subprocess.PIPE) as process:
        stream: Any = process.stdout
        with tarfile.open(fileobj=stream, mode="r|") as archive:
            for member in archive:
                content = archive.extractfile(member) if member.name.endswith(f"/{PROGRAM}") else None
                if content is not None:
                    with target.open("wb") as copy:
                        shutil.copyfileobj(content, copy)
        stream.read()  # else dpkg-deb would find its reader gone
    if not target.is_file():
        raise MissingDependency(f"{package.name} has no {PROGRAM}")
    target.chmod(0o755)


def installed_emulator() -> Path | None:
    """Returns the emulator that is installed here, where it has every core; older ones lack the Cortex-A76."""
    found = shutil.which(PROGRAM)
    if found is None:
        return None
    try:
        known = subprocess.run([found, "-cpu", "help"], capture_output=True, text=True, timeout=60, check=False).stdout
    except (OSError, subprocess.SubprocessError):
        return None
    return Path(found) if set(CORES) <= set(known.split()) else None


def _configure(folder: Path) -> Path:
    """Writes apt's configuration; returns its path."""
    for name in ("state/lists/partial", "cache/archives/partial", "log", "none"):
        (folder / name).mkdir(parents=True)
    (folder / "status").touch()
    text = _CONFIGURATION.format(folder=folder, host=host_architecture())
    if not _is_release():
        if not _KEYRING.is_file():
            raise MissingDependency(
                f"Debian's keyring {_KEYRING} is not here, and packages without a checked signature are not used",
                hint="sudo apt-get install debian-archive-keyring",
            )
        mirror = os.environ.get(_MIRROR, "")
        if not mirror.startswith(("http://", "https://", "file://")):
            raise MissingDependency(
                f"the emulator takes packages of {RELEASE_NAME}, and this is another system",
                hint=f"set {_MIRROR} to the address of a mirror of Debian: http://MIRROR/debian",
            )
        sources = folder / "sources.list"
        sources.write_text(f"deb [signed-by={_KEYRING}] {mirror} {RELEASE} main\n", "utf-8")
        text += f'Dir::Etc::sourcelist "{sources}";\nDir::Etc::sourceparts "{folder}/none";\n'
    try:
        own = run(["apt-config", "dump", "Acquire"], folder=folder)
    except ProgramFailed as failed:
        raise MissingDependency(f"apt-config gave no settings: {failed.reason}") from failed
    path = folder / "apt.conf"
    path.write_text(own + text, "utf-8")
    return path


def _is_release() -> bool:
    """Whether the host is the release that is emulated, so that its sources have the packages."""
    try:
        said = Path("/etc/os-release").read_text("utf-8").splitlines()
    except OSError:
        return False
    return {"ID=debian", f"VERSION_CODENAME={RELEASE}"} <= set(said)
