"""Serves the page for a bundle, see `ghostdeploy.samples.browser`."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import ghostdeploy as gd
from ghostdeploy.bundle.folder import open_bundle
from ghostdeploy.samples import report
from ghostdeploy.samples.browser import HOME, build_site, make_server


def main(arguments: list[str] | None = None) -> int:
    """Serves until Ctrl-C; returns the exit code."""
    parser = argparse.ArgumentParser(prog="browser", description="Classify dropped images in the browser.")
    parser.add_argument("bundle", metavar="BUNDLE", help="folder of an ONNX bundle, or of a native one for wasm32")
    parser.add_argument("--beside", metavar="BUNDLE", help="a second one of the same model: both are run and compared")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default 127.0.0.1)")
    parser.add_argument("--port", type=int, default=8000, help="port to listen on, 0 for a free one (default 8000)")
    parser.add_argument(
        "--modules", type=Path, default=HOME / "node_modules", metavar="DIR", help="node_modules that npm ci filled"
    )
    parser.add_argument("--examples", type=Path, nargs="*", default=[], metavar="IMAGE", help="images the page offers")
    options = parser.parse_args(arguments)
    try:
        beside = open_bundle(options.beside) if options.beside else None
        site = build_site(open_bundle(options.bundle), options.modules, options.examples, beside)
        server = make_server(site, options.host, options.port)
    except gd.GhostDeployError as error:
        return report(error)
    with server:
        host, port = server.server_address[:2]
        print(f"open http://{host!s}:{port}/ (Ctrl-C stops it)", flush=True)
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            return 0
    return 0


if __name__ == "__main__":
    sys.exit(main())
