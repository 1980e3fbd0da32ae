"""The device wheel, made from the package that runs here: the same bytes for the same version, so it is sent once."""

from __future__ import annotations

import base64
import hashlib
import io
import zipfile
from functools import cache
from importlib.metadata import metadata, version
from pathlib import Path, PurePosixPath

import ghostdeploy
from ghostdeploy.convert.cache import Cache
from ghostdeploy.wheel_contents import is_on_device, without_remarks

_FIELDS = ("Requires-Python", "Requires-Dist", "Provides-Extra")
_WHEEL = "Wheel-Version: 1.0\nGenerator: ghostdeploy\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
_SCRIPT = "[console_scripts]\nghostdeploy = ghostdeploy.__main__:main\n"


@cache
def device_wheel(*, inside: bool = False) -> tuple[str, bytes]:
    """Returns file name and content, from the user's cache where these sources were packed before.

    Args:
        inside: Add what looks into payloads.
    """
    own = f"{version('ghostdeploy').partition('+')[0]}+device"
    name, sources = f"ghostdeploy-{own}-py3-none-any.whl", _sources(inside=inside)
    digest, kept = hashlib.sha256(own.encode() + _metadata(own)), Cache.of_user()
    for path, source in sources.items():
        digest.update(f"{path} {len(source)} ".encode() + source)
    key = f"wheel-{digest.hexdigest()}"
    content = kept.get(key)
    if content is None:
        content = _packed(own, sources)
        kept.put(key, content)
    return name, content


def _packed(own: str, sources: dict[str, bytes]) -> bytes:
    info = f"ghostdeploy-{own}.dist-info"
    files = {path: without_remarks(source.decode()).encode() for path, source in sources.items()} | {
        f"{info}/METADATA": _metadata(own),
        f"{info}/WHEEL": _WHEEL.encode(),
        f"{info}/entry_points.txt": _SCRIPT.encode(),
    }
    files[f"{info}/RECORD"] = _record(files, info)
    held = io.BytesIO()
    with zipfile.ZipFile(held, "w", zipfile.ZIP_DEFLATED) as wheel:
        for name, content in files.items():
            wheel.writestr(zipfile.ZipInfo(name), content, zipfile.ZIP_DEFLATED)
    return held.getvalue()


def _sources(*, inside: bool) -> dict[str, bytes]:
    root = Path(ghostdeploy.__file__).parent
    found = {}
    for path in sorted(root.rglob("*.py")):
        name = PurePosixPath(root.name, *path.relative_to(root).parts)
        if is_on_device(".".join(name.parent.parts), name.stem, inside=inside):
            found[str(name)] = path.read_bytes()
    return found


def _metadata(own: str) -> bytes:
    installed = metadata("ghostdeploy")
    lines = ["Metadata-Version: 2.1", "Name: ghostdeploy", f"Version: {own}"]
    lines += [f"{field}: {value}" for field in _FIELDS for value in installed.get_all(field) or ()]
    return "\n".join([*lines, ""]).encode()


def _record(files: dict[str, bytes], info: str) -> bytes:
    def digest(content: bytes) -> str:
        return base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode()

    lines = [f"{name},sha256={digest(content)},{len(content)}" for name, content in files.items()]
    return "\n".join([*lines, f"{info}/RECORD,,", ""]).encode()
