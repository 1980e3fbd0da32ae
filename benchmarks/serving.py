"""The server under load: nothing lost, every answer the bundle's, and what the server costs over its engine.

    .venv/serve/bin/python benchmarks/serving.py BUNDLE [--seconds 60] [--concurrency 32] [--protocol …] [--soak 600]

A server process answers on loopback; the clients are threads of this one, each with one connection and golden images of
the bundle. The engine is measured first, in this process, by as many threads through as many streams. With n clients in
a closed loop the latency is n / rate, whatever the server does, so at n clients the overhead is what an answer adds to
the time between two answers:

    overhead at n = 1 / rate of the server − 1 / rate of the engine         overhead at 1 = p50 served − p50 engine

Both count the client as well. The CPU time of the server's process for an answer, less that of the engine for a call,
counts neither client nor queue. Meanwhile another thread sends bad requests: each must be refused with a reason.
`--soak` watches the memory of the server instead. Exit code 1 where an answer was lost, differs by more than 1e-6 or
a bad request was not refused.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import numpy as np

from ghostdeploy.bundle.folder import open_bundle
from ghostdeploy.open_inference import JSON_LENGTH, read_response, written
from ghostdeploy.runtimes import load

if TYPE_CHECKING:
    from collections.abc import Callable

    Ask = Callable[[int], dict[str, np.ndarray]]

LIMIT = 1e-6
BAD = {
    "no JSON": b'{"inputs": [',
    "a wrong shape": written({"input": np.zeros((1, 2), np.float32)}, binary=True)[0],
    "a wrong name": written({"no such input": np.zeros((1, 1), np.float32)}, binary=False)[0],
}
_TICKS = os.sysconf("SC_CLK_TCK")


class Server:
    """`ghostdeploy serve` in a process of its own."""

    def __init__(self, bundle: Path, threads: int) -> None:
        words = ["serve", str(bundle), "--http-port", "0", "--grpc-port", "0", "--threads", str(threads), "--json"]
        command = [sys.executable, "-m", "ghostdeploy", *words]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert self.process.stdout is not None
        lines = []
        for line in self.process.stdout:
            lines.append(line)
            if line == "}\n":
                break
        told = json.loads("".join(lines))
        self.http, self.grpc, self.name = told["http"], told["grpc"], told["models"][0]["name"]

    def resident_mb(self) -> float:
        """Returns the resident memory of the process."""
        pages = int(Path(f"/proc/{self.process.pid}/statm").read_text("ascii").split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE") / 1e6

    def cpu_seconds(self) -> float:
        """Returns the CPU time of the process."""
        fields = Path(f"/proc/{self.process.pid}/stat").read_text("ascii").rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / _TICKS

    def stop(self) -> int:
        """Ends it as a service manager does; returns its exit code."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(60)


class Rest:
    """One connection; requests are made beforehand."""

    def __init__(self, server: Server, images: list[dict[str, np.ndarray]], *, binary: bool) -> None:
        host, _, port = server.http.removeprefix("http://").removesuffix("/v2").rpartition(":")
        self._head = f"POST /v2/models/{server.name}/infer HTTP/1.1\r\nHost: {host}\r\n"
        self._requests = [self._request(*written(image, binary=binary)) for image in images]
        self._socket = socket.create_connection((host, int(port)), timeout=60)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._stream = self._socket.makefile("rb")

    def _request(self, body: bytes, length: int | None) -> bytes:
        kind = "application/json" if length is None else "application/octet-stream"
        more = "" if length is None else f"{JSON_LENGTH}: {length}\r\n"
        return f"{self._head}Content-Type: {kind}\r\n{more}Content-Length: {len(body)}\r\n\r\n".encode() + body

    def __call__(self, number: int) -> dict[str, np.ndarray]:
        """Returns the answer for an image."""
        status, body, length = self.send(self._requests[number])
        assert status == 200, body
        return read_response(body, length)

    def send(self, request: bytes) -> tuple[int, bytes, str | None]:
        """Returns status, body and length of its JSON."""
        self._socket.sendall(request)
        status, headers = int(self._stream.readline().split()[1]), {}
        while (line := self._stream.readline().strip()) != b"":
            key, _, value = line.decode("latin-1").partition(":")
            headers[key.lower()] = value.strip()
        return status, self._stream.read(int(headers["content-length"])), headers.get(JSON_LENGTH.lower())

    def refuses(self, body: bytes) -> bool:
        """Tells whether a bad body is refused with a reason."""
        status, answer, _ = self.send(self._request(body, None))
        return 400 <= status < 500 and bool(json.loads(answer)["error"])


class Grpc:
    """One channel."""

    def __init__(self, server: Server, images: list[dict[str, np.ndarray]]) -> None:
        words, sys.argv = sys.argv, sys.argv[:1]  # KServe reads the command line of who imports it
        import grpc
        from kserve.protocol.grpc import grpc_predict_v2_pb2 as pb
        from kserve.protocol.grpc.grpc_predict_v2_pb2_grpc import GRPCInferenceServiceStub

        sys.argv = words
        one = [("grpc.use_local_subchannel_pool", 1)]
        self._infer = GRPCInferenceServiceStub(grpc.insecure_channel(server.grpc, options=one)).ModelInfer
        self._requests = []
        for image in images:
            inputs = [{"name": n, "datatype": "FP32", "shape": a.shape} for n, a in image.items()]
            raw = [array.tobytes() for array in image.values()]
            self._requests.append(pb.ModelInferRequest(model_name=server.name, inputs=inputs, raw_input_contents=raw))

    def __call__(self, number: int) -> dict[str, np.ndarray]:
        """Returns the answer for an image."""
        found = self._infer(self._requests[number], timeout=60)
        pairs = zip(found.outputs, found.raw_output_contents, strict=True)
        return {one.name: np.frombuffer(raw, np.float32).reshape(one.shape) for one, raw in pairs}


def hammer(clients: list[Ask], expected: list[dict[str, np.ndarray]], seconds: float) -> dict[str, Any]:
    """Calls from one thread per client until the time is over; returns rate, percentiles and what differs."""
    start = threading.Barrier(len(clients) + 1)
    until = [0.0]

    def work(first: int) -> tuple[list[float], float, int]:
        times, worst, lost, number = [], 0.0, 0, first
        start.wait()
        while time.perf_counter() < until[0]:
            number = (number + 1) % len(expected)
            begin = time.perf_counter()
            try:
                found = clients[first](number)
            except Exception as error:
                lost += 1
                click.echo(f"lost: {error!r}", err=True)
                continue
            times.append(time.perf_counter() - begin)
            worst = max(worst, *(float(np.abs(found[n] - a).max()) for n, a in expected[number].items()))
        return times, worst, lost

    with ThreadPoolExecutor(len(clients)) as pool:
        futures = [pool.submit(work, one) for one in range(len(clients))]
        until[0] = time.perf_counter() + seconds
        begin = time.perf_counter()
        start.wait()
        found = [future.result() for future in futures]
        span = time.perf_counter() - begin
    times = np.concatenate([times for times, _, _ in found]) * 1e3
    return {
        "answers": len(times),
        "lost": sum(lost for _, _, lost in found),
        "largest_difference": max(worst for _, worst, _ in found),
        "rate": len(times) / span,
        **{f"p{share}_ms": float(np.percentile(times, share)) for share in (50, 95, 99)},
    }


def engine_alone(path: Path, images: list[Any], expected: list[Any], threads: int, clients: int, seconds: float) -> Any:
    """Measures the engine in this process, through as many streams as the server gives it."""
    with load(path, threads=threads, profile="throughput") as runtime:
        streams = ThreadPoolExecutor(runtime.info()["streams"])
        ask = (lambda n: runtime.infer(images[n])) if clients == 1 else None
        queued = lambda n: streams.submit(runtime.infer, images[n]).result()  # noqa: E731
        begin = time.process_time()
        found = hammer([ask or queued] * clients, expected, seconds)
        return {**found, "cpu_ms": 1e3 * (time.process_time() - begin) / found["answers"]}


def refusing(server: Server, ended: threading.Event, counts: dict[str, int]) -> None:
    """Sends bad requests, ten a second."""
    client = Rest(server, [], binary=True)
    while not ended.wait(0.1):
        for body in BAD.values():
            counts["refused" if client.refuses(body) else "accepted"] += 1


def measure(server: Server, make: Callable[[], Ask], expected: list[Any], clients: int, seconds: float) -> Any:
    """Measures the server by `clients` clients, with bad requests meanwhile."""
    counts, ended = {"refused": 0, "accepted": 0}, threading.Event()
    bad = threading.Thread(target=refusing, args=(server, ended, counts))
    made = [make() for _ in range(clients)]
    hammer(made, expected, min(1.0, seconds / 4))
    if clients > 1:
        bad.start()
    begin = server.cpu_seconds()
    found = hammer(made, expected, seconds)
    cpu = server.cpu_seconds() - begin
    ended.set()
    if clients > 1:
        bad.join()
    return {**found, "cpu_ms": 1e3 * cpu / max(found["answers"], 1), "bad_requests": counts}


def soak(server: Server, make: Callable[[], Ask], expected: list[Any], clients: int, seconds: float) -> Any:
    """Watches the server's memory under load, bad requests among it; the first tenth warms up."""
    samples, ended = [], threading.Event()

    def watch() -> None:
        while not ended.wait(min(1.0, seconds / 60)):
            samples.append((time.perf_counter(), server.resident_mb()))

    watching = threading.Thread(target=watch)
    watching.start()
    found = measure(server, make, expected, clients, seconds)
    ended.set()
    watching.join()
    at, memory = np.array(samples[len(samples) // 10 :]).T
    slope = float(np.polyfit(at - at[0], memory, 1)[0]) * 60
    return {
        **found,
        "first_mb": memory[0],
        "last_mb": memory[-1],
        "most_mb": memory.max(),
        "slope_mb_per_minute": slope,
    }


@click.command()
@click.argument("bundle", type=click.Path(exists=True, path_type=Path))
@click.option("--seconds", default=60.0, show_default=True, help="Of each measurement.")
@click.option("--concurrency", default=32, show_default=True, help="Clients.")
@click.option("--threads", default=1, show_default=True, help="Threads of the engine.")
@click.option("--protocol", "protocols", multiple=True, type=click.Choice(["binary", "json", "grpc"]))
@click.option("--soak", "soaking", type=float, help="Seconds of load per protocol over which the memory is watched.")
@click.option("--json", "as_json", is_flag=True, help="One JSON document instead of lines.")
def main(
    bundle: Path,
    seconds: float,
    concurrency: int,
    threads: int,
    protocols: tuple[str, ...],
    soaking: float | None,
    *,
    as_json: bool,
) -> None:
    """Measures a served bundle."""
    golden, _ = open_bundle(bundle).golden()
    images = [{n: a[i : i + 1].copy() for n, a in golden.items()} for i in range(len(next(iter(golden.values()))))]
    with load(bundle, threads=threads, profile="throughput") as runtime:
        expected = [runtime.infer(image) for image in images]
    found: dict[str, Any] = {"bundle": bundle.name, "concurrency": concurrency, "load_average": os.getloadavg()}
    counts = (1, concurrency) if concurrency > 1 and soaking is None else (concurrency,)
    if soaking is None:
        found["engine"] = {n: engine_alone(bundle, images, expected, threads, n, seconds / 4) for n in counts}
    server = Server(bundle, threads)
    try:
        for protocol in protocols or ("binary", "grpc"):
            make: Callable[[], Ask] = lambda p=protocol: (  # noqa: E731
                Grpc(server, images) if p == "grpc" else Rest(server, images, binary=p == "binary")
            )
            if soaking is not None:
                found[protocol] = {concurrency: soak(server, make, expected, concurrency, soaking)}
                continue
            found[protocol] = {n: measure(server, make, expected, n, seconds if n > 1 else seconds / 4) for n in counts}
            for n, one in found[protocol].items():
                engine = found["engine"][n]
                one["cpu_overhead_ms"] = one["cpu_ms"] - engine["cpu_ms"]
                one["overhead_ms"] = (
                    one["p50_ms"] - engine["p50_ms"] if n == 1 else 1e3 / one["rate"] - 1e3 / engine["rate"]
                )
    finally:
        found["exit_code"] = server.stop()
    click.echo(json.dumps(found, default=float) if as_json else lines(found))
    every = [one for protocol in ("binary", "json", "grpc") for one in found.get(protocol, {}).values()]
    good = all(
        one["lost"] == 0 and one["largest_difference"] <= LIMIT and one["bad_requests"]["accepted"] == 0
        for one in every
    )
    sys.exit(0 if good and found["exit_code"] == 0 else 1)


def lines(found: dict[str, Any]) -> str:
    """Returns the figures as text."""
    text = [f"{found['bundle']}, load average before {found['load_average'][0]:.1f}"]
    for who in ("engine", "binary", "json", "grpc"):
        for n, one in found.get(who, {}).items():
            line = f"{who:<7} {n:>3} clients {one['rate']:7.0f}/s p50 {one['p50_ms']:.2f} p99 {one['p99_ms']:.2f} ms"
            line += f", CPU {one['cpu_ms']:.2f} ms"
            if "overhead_ms" in one:
                line += f", overhead {one['overhead_ms']:.2f} ms, of CPU {one['cpu_overhead_ms']:.2f} ms"
            if "bad_requests" in one:
                line += f", {one['answers']} answers, {one['lost']} lost, largest difference "
                line += f"{one['largest_difference']:.1e}, {one['bad_requests']['refused']} bad requests refused"
            if "first_mb" in one:
                line += f", memory {one['first_mb']:.1f} to {one['last_mb']:.1f} MB, most {one['most_mb']:.1f}, "
                line += f"{one['slope_mb_per_minute']:+.3f} MB a minute"
            text.append(line)
    return "\n".join([*text, f"exit code of the server {found['exit_code']}"])


if __name__ == "__main__":
    main()
