"""POST /classify an image, GET /info, GET /healthz: an HTTP service. It needs `pip install "ghostdeploy[http]"`.

    python -m ghostdeploy.samples.serve BUNDLE --port 8000

The body is a JPEG, PNG or WebP file, or raw RGB pixels, uint8 (height, width, 3), as application/octet-stream with
`?height=…&width=…`. Decoding and inference run in threads, never on the event loop. An error is one JSON sentence.
"""

import argparse
import asyncio
import io
from typing import Any

import numpy as np
import uvicorn
from PIL import Image
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse
from starlette.routing import Route

import ghostdeploy as gd
from ghostdeploy.samples import report

MAX_BYTES, MAX_PIXELS, RAW = 8_000_000, 16_000_000, "application/octet-stream"
FORMATS = {"image/jpeg": "JPEG", "image/png": "PNG", "image/webp": "WEBP"}


def classify(model: gd.Runtime, body: bytes, kind: str, height: str, width: str) -> list[dict[str, Any]]:
    """Decodes and classifies; refuses what is no such image."""
    try:
        if kind in FORMATS:
            image: Any = Image.open(io.BytesIO(body), formats=[FORMATS[kind]])
            if image.width * image.height > MAX_PIXELS:
                raise HTTPException(413, f"image has {image.width}×{image.height} pixels, the limit is {MAX_PIXELS}")
        elif kind == RAW:
            image = np.frombuffer(body, np.uint8).reshape(int(height), int(width), 3)
        else:
            raise HTTPException(415, f"content type is {kind}, expected {', '.join(FORMATS)} or {RAW}")
        return [{"label": label, "probability": value} for label, value in model.classify(image)]
    except (gd.errors.InputError, OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise HTTPException(400, f"body is not valid {kind}: {str(error).partition(' <')[0]}") from error


async def receive(request: Request) -> JSONResponse:
    """Reads at most `MAX_BYTES`, then leaves the rest to a thread."""
    body, query, declared = bytearray(), request.query_params, int(request.headers.get("content-length", "0"))
    async for part in request.stream():
        body += part
        if max(declared, len(body)) > MAX_BYTES:
            raise HTTPException(413, f"body has {max(declared, len(body))} bytes or more, the limit is {MAX_BYTES}")
    kind = request.headers.get("content-type", "missing").partition(";")[0].strip().lower()
    given = request.app.state.model, bytes(body), kind, query.get("height", "0"), query.get("width", "0")
    return JSONResponse({"classes": await asyncio.to_thread(classify, *given)})


def main(arguments: list[str] | None = None) -> None:
    """Serves until it is stopped; exits with the code of the error otherwise."""
    parser = argparse.ArgumentParser(prog="serve", description="Classify images over HTTP with a bundle.")
    parser.add_argument("bundle", metavar="BUNDLE")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default 127.0.0.1)")
    parser.add_argument("--port", type=int, default=8000, help="port to listen on, 0 for a free one (default 8000)")
    options = parser.parse_args(arguments)
    try:
        with gd.load(options.bundle, profile="throughput") as model:
            model.require_classes()
            said = {"/healthz": {"status": "ok"}, "/info": model.info()}
            routes = [Route(path, lambda _, a=answer: JSONResponse(a)) for path, answer in said.items()]
            routes.append(Route("/classify", receive, methods=["POST"]))
            explain = lambda _, e: JSONResponse({"error": getattr(e, "detail", "")}, getattr(e, "status_code", 400))  # noqa
            app = Starlette(routes=routes, exception_handlers=dict.fromkeys((HTTPException, ClientDisconnect), explain))
            app.state.model = model
            uvicorn.run(app, host=options.host, port=options.port)
    except gd.GhostDeployError as error:
        raise SystemExit(report(error)) from error


if __name__ == "__main__":
    main()
