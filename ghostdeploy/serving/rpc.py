"""The protocol over gRPC: KServe's servicer with our models' versions, and limits."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from grpc import RpcError, StatusCode, aio
from kserve.errors import InvalidInput, ModelNotFound
from kserve.protocol.grpc import grpc_predict_v2_pb2 as pb
from kserve.protocol.grpc.grpc_predict_v2_pb2_grpc import add_GRPCInferenceServiceServicer_to_server
from kserve.protocol.grpc.interceptors import ExceptionToStatusInterceptor
from kserve.protocol.grpc.servicer import InferenceServicer
from kserve.protocol.model_repository_extension import ModelRepositoryExtension

from ghostdeploy.errors import UsageError
from ghostdeploy.serving import counts
from ghostdeploy.serving.refusals import Refused, unforeseen

if TYPE_CHECKING:
    from ghostdeploy.serving.models import Catalog
    from ghostdeploy.serving.request import Limits, Place
    from ghostdeploy.serving.rest import Plane, Rest

_HEADERS = 16 << 10
"""Bytes of a request's metadata."""


class Servicer(InferenceServicer):
    """KServe's answers, with versions; models are neither loaded nor unloaded by clients."""

    def __init__(self, plane: Plane, catalog: Catalog) -> None:
        super().__init__(plane, ModelRepositoryExtension(catalog))
        self._catalog = catalog

    async def ModelReady(self, request: Any, context: Any) -> Any:  # noqa: N802 - the protocol's name
        """See KServe."""
        self._catalog.key(request.name, request.version)
        return pb.ModelReadyResponse(ready=True)

    async def ModelMetadata(self, request: Any, context: Any) -> Any:  # noqa: N802
        """See KServe; the message has no place for the digest."""
        model = self._catalog.named(request.name, request.version)
        return pb.ModelMetadataResponse(
            name=model.name,
            versions=self._catalog.versions(model.name),
            platform=model.platform,
            inputs=model.inputs,
            outputs=model.outputs,
        )

    async def ModelInfer(self, request: Any, context: Any) -> Any:  # noqa: N802
        """See KServe."""
        request.model_name = self._catalog.key(request.model_name, request.model_version)
        answer = await super().ModelInfer(request, context)
        counts.ANSWERS.labels("grpc", "OK").inc()
        return answer

    async def RepositoryModelLoad(self, request: Any, context: Any) -> Any:  # noqa: N802
        """Refuses."""
        await context.abort(StatusCode.UNIMPLEMENTED, "models are given when the server is started")

    RepositoryModelUnload = RepositoryModelLoad


class _Refusing(ExceptionToStatusInterceptor):
    """Turns errors into codes; KServe's own has none for ours, and writes a traceback for each bad request."""

    async def handle_exception(self, ex: Exception, request_or_iterator: Any, context: Any, method_name: str) -> None:
        if isinstance(ex, RpcError | aio.AbortError):
            raise ex
        if isinstance(ex, InvalidInput):
            code, reason = StatusCode.INVALID_ARGUMENT, ex.reason
        elif isinstance(ex, ModelNotFound):
            code, reason = StatusCode.NOT_FOUND, ex.reason
        else:
            found = ex if isinstance(ex, Refused) else unforeseen(ex, method_name)
            code, reason = StatusCode[found.code], found.reason
        counts.ANSWERS.labels("grpc", code.name).inc()
        await context.abort(code, reason)


def listen(rest: Rest, place: Place, limits: Limits) -> tuple[Any, int]:
    """Returns a server of the same models that is not started, and its port.

    Raises:
        UsageError: The port cannot be had.
    """
    server = aio.server(
        interceptors=(_Refusing(),),
        options=[
            ("grpc.max_receive_message_length", limits.body),
            ("grpc.max_send_message_length", -1),
            ("grpc.max_metadata_size", _HEADERS),
            ("grpc.so_reuseport", 0),  # else a second server would share the port
        ],
        maximum_concurrent_rpcs=limits.queue,
    )
    add_GRPCInferenceServiceServicer_to_server(Servicer(rest.dataplane, rest.catalog), server)
    try:
        return server, server.add_insecure_port(f"{_bracketed(place.host)}:{place.grpc_port}")
    except RuntimeError as error:
        raise UsageError(
            f"gRPC cannot listen on {place.host} port {place.grpc_port}: it is in use, or not this machine's",
            hint="--grpc-port 0 takes a free one",
        ) from error


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host
