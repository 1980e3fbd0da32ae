"""A page that classifies a dropped image in the browser.

    python -m ghostdeploy.samples.browser BUNDLE                    then open the address that it prints
    python -m ghostdeploy.samples.browser BUNDLE --beside NATIVE    the same by two engines, compared

A native bundle with a library for `wasm32` runs by itself, by `ghost.js`. An ONNX bundle needs `onnxruntime-web`:

    npm ci --prefix FOLDER                           once; FOLDER is this one, or holds copies of its two package files

Everything is served from here, and the page's security policy allows nothing else; the image never leaves the browser.
The server serves only what is in its table: the page, the engine, the files that the manifest lists, the examples.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, unquote, urlsplit

from ghostdeploy.bundle.folder import MANIFEST
from ghostdeploy.errors import BundleError, DataError, MissingDependency, UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ghostdeploy.bundle.folder import Bundle

HOME = Path(__file__).parent
PAGE = ("classify.js", "engines.js", "ghost.js", "golden.js", "page.css", "preprocess.js")
PACKAGE = "onnxruntime-web"
LIBRARY = "lib/wasm32.wasm"
"""Of a native bundle."""
ENGINE = ("ort.wasm.bundle.min.mjs", "ort-wasm-simd-threaded.wasm")
_TYPES = {
    ".css": "text/css",
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript",
    ".jpeg": "image/jpeg",
    ".jpg": "image/jpeg",
    ".json": "application/json",
    ".mjs": "text/javascript",
    ".png": "image/png",
    ".txt": "text/plain; charset=utf-8",
    ".wasm": "application/wasm",
    ".webp": "image/webp",
}
_POLICY = (
    "default-src 'none'; script-src 'self' 'wasm-unsafe-eval'; connect-src 'self'; img-src 'self' data:; "
    "style-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)


@dataclass(frozen=True)
class Site:
    """The responses of the server: a file or a text for each address, and nothing else."""

    files: dict[str, Path]
    texts: dict[str, bytes]


def build_site(bundle: Bundle, modules: Path, examples: Sequence[Path], beside: Bundle | None = None) -> Site:
    """Returns the table of addresses for a bundle, or for two of one model.

    Args:
        bundle: Opened and checked; its payload is an ONNX file, or native with a library for browsers.
        modules: The `node_modules` folder that npm filled; only ONNX needs it.
        examples: Images that the page offers.
        beside: A second one, with the same inputs and classes.

    Raises:
        BundleError: A bundle is for another engine, or the second one is of another model.
        DataError: An example is not there.
        MissingDependency: `onnxruntime-web` is not installed, or not in the version that this sample is tested with.
    """
    bundles = {"/bundle": bundle} | ({} if beside is None else {"/beside": beside})
    for one in bundles.values():
        _check(one, bundle)
    missing = [str(path) for path in examples if not path.is_file()]
    if missing:
        raise DataError(f"example {missing[0]} does not exist, expected an image file")
    engine = _engine(modules) if any(map(_is_onnx, bundles.values())) else []
    files = {"/": HOME / "index.html"} | {f"/{name}": HOME / name for name in PAGE}
    files |= {f"/engine/{path.name}": path for path in engine}
    for address, one in bundles.items():
        listed = (MANIFEST, *(record.path for record in one.manifest.files))
        files |= {f"{address}/{name}": one.path / name for name in listed}
    shown = {f"/examples/{path.name}": path for path in examples}
    addresses = json.dumps([quote(address) for address in shown]).encode()
    return Site(files | shown, {"/examples.json": addresses, "/bundles.json": json.dumps([*bundles]).encode()})


def _is_onnx(bundle: Bundle) -> bool:
    return bundle.payload.suffix == ".onnx" and bundle.payload.parent == bundle.path


def _takes(bundle: Bundle) -> list[object]:
    """Returns what one image and its answer are to a bundle; the batch may be another."""
    one = bundle.manifest
    return [one.model.num_classes, *((port.name, port.dtype, port.shape[1:], port.layout) for port in one.inputs)]


def _check(bundle: Bundle, first: Bundle) -> None:
    here = bundle.manifest
    if not _is_onnx(bundle) and not any(record.path == LIBRARY for record in here.files):
        raise BundleError(
            f"{bundle.path} has payload {here.payload}, expected an .onnx file for onnxruntime-web, or {LIBRARY}",
            hint="make one with: ghostdeploy export -t onnx, or -t native --arch wasm32",
        )
    if _takes(bundle) != _takes(first):
        raise BundleError(f"{bundle.path} has other inputs or classes than {first.path}, expected the same model")


def _engine(modules: Path) -> list[Path]:
    folder = modules / PACKAGE
    wanted = json.loads((HOME / "package.json").read_text("utf-8"))["dependencies"][PACKAGE]
    try:
        found = json.loads((folder / "package.json").read_text("utf-8"))["version"]
    except (OSError, ValueError, KeyError):
        found = "none"
    if found != wanted:
        raise MissingDependency(
            f"{modules} has {PACKAGE} {found}, expected {wanted}", hint=f"npm ci --prefix {HOME}, or give --modules"
        )
    return [folder / "dist" / name for name in ENGINE]


def make_server(site: Site, host: str, port: int) -> ThreadingHTTPServer:
    """Returns a server for the site, bound but not started; port 0 takes a free one.

    Raises:
        UsageError: The address cannot be bound.
    """

    class Handler(BaseHTTPRequestHandler):
        """Answers GET for the addresses of the site."""

        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            address = unquote(urlsplit(self.path).path)
            path = site.files.get(address)
            try:
                body = site.texts[address] if path is None else path.read_bytes()
            except (KeyError, OSError):
                self.send_error(HTTPStatus.NOT_FOUND)
                return
            self.send_response(HTTPStatus.OK)
            suffix = (path or Path(address)).suffix.lower()
            self.send_header("Content-Type", _TYPES.get(suffix, "application/octet-stream"))
            self.send_header("Content-Length", str(len(body)))
            self.send_header("Content-Security-Policy", _POLICY)
            self.send_header("X-Content-Type-Options", "nosniff")
            self.send_header("Cache-Control", "no-cache")
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            """Says nothing: the address was printed, and the page shows its own errors."""

    try:
        return ThreadingHTTPServer((host, port), Handler)
    except (OSError, OverflowError) as error:
        raise UsageError(f"cannot listen on {host}:{port}: {error}", hint="give another --port") from error
