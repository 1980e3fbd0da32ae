"""The protocol over HTTP: KServe's REST server with our models' versions, binary tensors without a detour, and limits.

What KServe's own routes have and these have not: its older protocol, and loading and unloading of models by whoever can
reach the port.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import msgspec
from fastapi import APIRouter, Request
from fastapi.responses import Response
from kserve import InferInput, InferRequest
from kserve.errors import InvalidInput, ModelNotFound
from kserve.protocol.dataplane import DataPlane
from kserve.protocol.infer_type import RequestedOutput
from kserve.protocol.model_repository_extension import ModelRepositoryExtension
from kserve.protocol.rest.server import RESTServer, metrics_handler
from kserve.protocol.rest.v2_endpoints import V2Endpoints
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from ghostdeploy.errors import InputError
from ghostdeploy.open_inference import JSON_LENGTH, read_request
from ghostdeploy.serving import counts
from ghostdeploy.serving.connections import limited
from ghostdeploy.serving.refusals import Busy, Refused, Slow, TooLarge, unforeseen

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, MutableMapping

    from fastapi import FastAPI

    from ghostdeploy.serving.models import Catalog
    from ghostdeploy.serving.request import Limits, Place

    Message = MutableMapping[str, Any]
    Receive = Callable[[], Awaitable[Message]]
    Send = Callable[[Message], Awaitable[None]]

_PREFIX = "/v2"


class Plane(DataPlane):
    """KServe's way from a request to its model; a binary tensor stays one array and is not spelled out in numbers."""

    def decode_inference_request(self, body: bytes, headers: dict[str, str], model_name: str) -> InferRequest:
        """See KServe.

        Raises:
            Refused: The body is no request.
        """
        try:
            found, arrays = read_request(body, headers.get(JSON_LENGTH.lower()))
        except InputError as error:
            raise Refused(error.message) from error
        inputs = [
            InferInput(name=one.name, shape=one.shape, datatype=one.datatype, data=arrays[one.name])
            for one in found.inputs
        ]
        asked = [RequestedOutput(one.name, one.parameters) for one in found.outputs or ()]
        parameters = {"binary_data_output": _flag(found.parameters, "binary_data_output")}
        for one in asked:
            one.parameters = {"binary_data": _flag(one.parameters, "binary_data", **parameters)}
        return InferRequest(
            model_name, inputs, request_id=found.id, parameters=parameters, request_outputs=asked or None
        )

    def metadata(self) -> dict[str, Any]:
        """See KServe."""
        return {**super().metadata(), "extensions": ["binary_tensor_data"]}


class Endpoints(V2Endpoints):
    """KServe's routes, with versions."""

    def __init__(self, plane: Plane, catalog: Catalog) -> None:
        super().__init__(plane)
        self._catalog = catalog

    async def metadata(self) -> Response:
        """Returns what the server is."""
        return _json(self.dataplane.metadata())

    async def live(self) -> Response:
        """Returns that the server lives."""
        return _json((await super().live()).model_dump())

    async def ready(self) -> Response:
        """Returns whether the server is ready."""
        return _json((await super().ready()).model_dump())

    async def models(self) -> Response:
        """Returns the names of the models."""
        return _json({"models": self._catalog.names()})

    async def model_metadata(self, model_name: str, model_version: str | None = None) -> Response:
        """Returns what a model takes and gives, and the bundle's digest."""
        model = self._catalog.named(model_name, model_version)
        return _json(
            {
                "name": model.name,
                "versions": self._catalog.versions(model.name),
                "platform": model.platform,
                "inputs": model.inputs,
                "outputs": model.outputs,
                "parameters": {"version": model.version, **model.facts},
            }
        )

    async def model_ready(self, model_name: str, model_version: str | None = None) -> Response:
        """Returns whether a model is ready."""
        found = await super().model_ready(self._catalog.key(model_name, model_version))
        return _json({"name": model_name, "ready": found.ready})

    async def infer(self, raw_request: Request, model_name: str, model_version: str | None = None) -> Response:
        """Returns a model's outputs for the request's inputs."""
        key = self._catalog.key(model_name, model_version)
        headers = dict(raw_request.headers)
        request = self.dataplane.decode_inference_request(await raw_request.body(), headers, key)
        answer, _ = await self.dataplane.infer(model_name=key, request=request, headers=headers)
        found, length = answer.to_rest()
        if length is None:
            return _json(found)
        return Response(found, media_type="application/octet-stream", headers={JSON_LENGTH: str(length)})


class Rest(RESTServer):
    """KServe's REST server on one address, with these routes and limits.

    Args:
        catalog: The models.
        place: Where it listens.
        limits: What a request may ask for.
    """

    def __init__(self, catalog: Catalog, place: Place, limits: Limits) -> None:
        plane, self.catalog, self._limits = Plane(catalog), catalog, limits
        super().__init__(
            "kserve.model_server:app",
            plane,
            ModelRepositoryExtension(catalog),
            place.http_port,
            grace_period=limits.grace,
        )
        self.config.host, self.config.ws, self.config.access_log = place.host, "none", False
        self.config.http, self.config.server_header = limited(limits.seconds), False

    def new_event_loop(self) -> asyncio.AbstractEventLoop:
        """Returns the loop that Uvicorn prefers here: uvloop's where it is installed."""
        factory = self.config.get_loop_factory()
        loop: asyncio.AbstractEventLoop = asyncio.new_event_loop() if factory is None else factory()
        return loop

    @property
    def server(self) -> Any:
        """Uvicorn's server."""
        return self._server

    def _register_endpoints(self, app: FastAPI) -> None:
        app.router.routes.clear()  # a description of routes that KServe alone has
        ours, router = Endpoints(self.dataplane, self.catalog), APIRouter()
        # routes are tried one by one, so the busy ones come first
        for path in ("/models/{model_name}/infer", "/models/{model_name}/versions/{model_version}/infer"):
            router.add_api_route(_PREFIX + path, ours.infer, methods=["POST"], response_model=None)
        for path, answer in (
            ("", ours.metadata),
            ("/health/live", ours.live),
            ("/health/ready", ours.ready),
            ("/models", ours.models),
            ("/models/{model_name}", ours.model_metadata),
            ("/models/{model_name}/ready", ours.model_ready),
            ("/models/{model_name}/versions/{model_version}", ours.model_metadata),
            ("/models/{model_name}/versions/{model_version}/ready", ours.model_ready),
        ):
            router.add_api_route(_PREFIX + path, answer, methods=["GET"], response_model=None)
        router.add_api_route("/metrics", metrics_handler, methods=["GET"], response_model=None)
        app.include_router(router)

    def _add_exception_handlers(self, app: FastAPI) -> None:
        app.add_exception_handler(Refused, _refused)
        app.add_exception_handler(InvalidInput, _of_kserve)
        app.add_exception_handler(ModelNotFound, _of_kserve)
        app.add_exception_handler(HTTPException, _no_route)

    def _add_middlewares(self, app: FastAPI) -> None:
        app.add_middleware(Guard, limits=self._limits)


class Guard:
    """Refuses bodies that are too many, too large or too slow before memory is taken; answers what nobody foresaw."""

    def __init__(self, app: Any, limits: Limits) -> None:
        self._app, self._limits, self._inside = app, limits, 0

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """See ASGI."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = False

        async def sending(message: Message) -> None:
            nonlocal started
            started = True
            if message["type"] == "http.response.start":
                counts.ANSWERS.labels("http", str(message["status"])).inc()
            await send(message)

        self._inside += 1
        try:
            self._admit(scope)
            await self._app(scope, self._limited(receive), sending)
        except Refused as error:
            await _response(error.status, error.reason)(scope, receive, sending)
        except ClientDisconnect:
            counts.ANSWERS.labels("http", "none: the client left").inc()
        except Exception as error:
            found = unforeseen(error, scope["path"][:200])
            if not started:
                await _response(found.status, found.reason)(scope, receive, sending)
        finally:
            self._inside -= 1

    def _admit(self, scope: Message) -> None:
        declared = dict(scope["headers"]).get(b"content-length", b"0")
        if declared.isdigit() and int(declared[:20]) > self._limits.body:
            raise self._too_large()
        if scope["method"] == "POST" and self._inside > self._limits.queue:
            raise Busy(f"{self._limits.queue} requests are under way or waiting, the limit; try again later")

    def _limited(self, receive: Receive) -> Receive:
        loop, task = asyncio.get_running_loop(), asyncio.current_task()
        assert task is not None
        until, taken, whole, late = loop.time() + self._limits.seconds, 0, False, False

        def give_up() -> None:
            nonlocal late
            late = True
            task.cancel()

        async def limited() -> Message:
            nonlocal taken, whole
            if whole:  # what comes now is that the client has gone
                return await receive()
            timer = loop.call_at(until, give_up)  # `wait_for` would make a task of its own, for each request
            try:
                message = await receive()
            except asyncio.CancelledError:
                if late:
                    raise Slow(f"the body did not arrive within {self._limits.seconds:g} s") from None
                raise
            finally:
                timer.cancel()
            taken += len(message.get("body", b""))
            whole = not message.get("more_body", False)
            if taken > self._limits.body:
                raise self._too_large()
            return message

        return limited

    def _too_large(self) -> TooLarge:
        return TooLarge(f"the body is larger than {self._limits.body} bytes, the limit of this server")


async def _refused(_: Request, error: Refused) -> Response:
    return _response(error.status, error.reason)


async def _of_kserve(_: Request, error: InvalidInput | ModelNotFound) -> Response:
    return _response(404 if isinstance(error, ModelNotFound) else 400, str(error))


async def _no_route(request: Request, error: HTTPException) -> Response:
    return _response(error.status_code, f"{error.detail}: {request.method} {request.url.path[:200]}")


def _response(status: int, reason: str) -> Response:
    headers = {"Retry-After": "1"} if status == 503 else {}
    if status in {408, 413}:
        headers["Connection"] = "close"  # the rest of the body is not read
    return _json({"error": reason}, status, headers)


def _json(document: Any, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    return Response(msgspec.json.encode(document), status, headers, media_type="application/json")


def _flag(parameters: dict[str, Any] | None, name: str, **otherwise: bool) -> bool:
    """Returns a parameter that is yes or no.

    Raises:
        Refused: It is neither.
    """
    value = (parameters or {}).get(name, next(iter(otherwise.values()), False))
    if not isinstance(value, bool):
        raise Refused(f"parameter {name} is {str(value)[:40]!r}, expected true or false")
    return value
