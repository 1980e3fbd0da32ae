"""Loads bundles, listens, answers until a signal comes, and leaves in order.

SIGTERM or SIGINT → new requests are refused → those under way are answered, for `grace` seconds → engines are freed
"""

from __future__ import annotations

import asyncio
import logging
import signal
import socket
import sys
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

from ghostdeploy.bundle.folder import open_bundle
from ghostdeploy.bundle.record import Record
from ghostdeploy.errors import BundleError, MissingDependency, UsageError
from ghostdeploy.runtimes import load
from ghostdeploy.serving.request import named

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterator, Sequence
    from pathlib import Path

    from ghostdeploy.bundle.signature import Trust
    from ghostdeploy.serving.models import Served
    from ghostdeploy.serving.request import Limits, Named, Place
    from ghostdeploy.serving.rest import Rest

_LOOKS = 0.1
"""Seconds between two looks whether to stop, as Uvicorn takes them."""


class ServedModel(Record, frozen=True, kw_only=True):
    """A model that is served."""

    name: str
    version: str
    bundle: str
    target: str
    precision: str
    task: str
    digest: str | None
    engine: str
    threads: int | None


class Listening(Record, frozen=True, kw_only=True):
    """Where a server answers."""

    http: str
    """Such as `http://127.0.0.1:8080/v2`."""
    grpc: str | None
    """Such as `127.0.0.1:8081`."""
    models: tuple[ServedModel, ...]


def serve(
    paths: Sequence[Path],
    place: Place,
    limits: Limits,
    *,
    threads: int | None = None,
    trust: Trust | None = None,
    told: Callable[[Listening], None],
) -> None:
    """Serves bundles until SIGTERM or SIGINT.

    Args:
        paths: The bundles.
        place: Where to listen.
        limits: What requests may ask for.
        threads: Of each engine; None is one per core.
        trust: Signatures that the bundles must have.
        told: Called once, when the server answers.

    Raises:
        BundleError: See `runtimes.load`.
        GateFailed: A bundle failed a gate of its export.
        MissingDependency: KServe or an engine is not installed.
        UsageError: Names collide, or a port cannot be had.
    """
    bundles = named(paths)
    with _imported(), ExitStack() as stack:
        from ghostdeploy.serving import counts
        from ghostdeploy.serving.models import Catalog

        models, rows = [], []
        for one in bundles:
            model, row = _loaded(one, limits, threads, trust)
            stack.callback(model.close)
            models.append(model)
            rows.append(row)
            counts.watch(model)
        sock = stack.enter_context(_bound(place))
        from ghostdeploy.serving.rest import Rest

        def listening(http: str, grpc: str | None) -> None:
            told(Listening(http=http, grpc=grpc, models=tuple(rows)))

        rest = Rest(Catalog(models), place, limits)
        rest.create_application()
        _run(_answer(rest, sock, place, limits, listening), rest.new_event_loop)


def _loaded(one: Named, limits: Limits, threads: int | None, trust: Trust | None) -> tuple[Served, ServedModel]:
    from ghostdeploy.serving.models import Served

    manifest = open_bundle(one.path, check_hashes=False).manifest
    runtime = load(one.path, threads=threads, profile="throughput", trust=trust)
    if manifest.digest != one.manifest_digest:
        runtime.close()
        raise BundleError(f"{one.path} was replaced while it was loaded", hint="start the server again")
    runtime.warmup(1)
    info = runtime.info()
    return Served(one, manifest, runtime, limits), ServedModel(
        name=one.name,
        version=one.version,
        bundle=str(one.path),
        target=manifest.target,
        precision=manifest.precision,
        task=manifest.task.name,
        digest=manifest.digest,
        engine=f"{info['engine']} {info['engine_version']}",
        threads=info["threads"],
    )


def _run(work: Coroutine[Any, Any, None], new_event_loop: Callable[[], asyncio.AbstractEventLoop]) -> None:
    """Does what `asyncio.run` does, in the loop that the server prefers."""
    loop = new_event_loop()
    asyncio.set_event_loop(loop)
    try:
        loop.run_until_complete(work)
        loop.run_until_complete(loop.shutdown_asyncgens())
    finally:
        asyncio.set_event_loop(None)
        loop.close()


async def _answer(
    rest: Rest, sock: socket.socket, place: Place, limits: Limits, told: Callable[[str, str | None], None]
) -> None:
    from ghostdeploy.serving import rpc

    grpc, port = (None, None) if place.grpc_port is None else rpc.listen(rest, place, limits)
    with _signals_kept():
        serving = asyncio.create_task(rest.server.serve(sockets=[sock]))
        try:
            if grpc is not None:
                await grpc.start()
            while not rest.server.started and not serving.done():
                await asyncio.sleep(_LOOKS / 10)
            host = f"[{place.host}]" if ":" in place.host else place.host
            told(f"http://{host}:{sock.getsockname()[1]}/v2", None if grpc is None else f"{host}:{port}")
            while not rest.server.should_exit and not serving.done():
                await asyncio.sleep(_LOOKS)
        finally:
            rest.server.should_exit = True
            await asyncio.gather(serving, *([] if grpc is None else [grpc.stop(limits.grace)]))


def _bound(place: Place) -> socket.socket:
    """Binds the port of HTTP, so that one that is taken is told before anything listens."""
    try:
        found = socket.getaddrinfo(place.host, place.http_port, type=socket.SOCK_STREAM, proto=socket.IPPROTO_TCP)
        sock = socket.socket(*found[0][:3])  # asyncio sets TCP_NODELAY only where the protocol is named: 40 ms else
        try:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            sock.bind(found[0][4])
        except OSError:
            sock.close()
            raise
    except OSError as error:
        raise UsageError(
            f"HTTP cannot listen on {place.host} port {place.http_port}: {error.strerror or error}",
            hint="--http-port 0 takes a free one",
        ) from error
    return sock


@contextmanager
def _signals_kept() -> Iterator[None]:
    """Uvicorn sends itself again the signal that stopped it; here that is no error."""
    before = {number: signal.signal(number, _stopped) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _stopped(*_: object) -> None:
    """Does nothing: the server has ended already."""


@contextmanager
def _imported() -> Iterator[None]:
    """Imports KServe, which reads the command line of whoever imports it, and logs each request."""
    words, sys.argv = sys.argv, sys.argv[:1]
    try:
        import kserve  # noqa: F401
    except ImportError as error:
        raise MissingDependency(
            f"serve needs KServe's model server, which cannot be imported: {error}",
            hint='pip install "ghostdeploy[serve]"',
        ) from error
    finally:
        sys.argv = words
    levels: dict[str, Any] = {"kserve": logging.CRITICAL, "kserve.trace": logging.CRITICAL, "uvicorn": logging.ERROR}
    for name, level in levels.items():
        logging.getLogger(name).setLevel(level)
    yield
