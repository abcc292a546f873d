"""
What a request costs in instructions of ours: through one sidecar or two, without sockets.

    python -m bench.inproc [--path hop|pair|grpc] [--profile] [-o json]
    python -m bench.inproc --growth     what a request costs with many routes, many endpoints
    python -m bench.inproc --armed      what all policies at once cost (`bench/armed.py`)

    hop    client ─ HTTP/1.1 ─ A ─ HTTP/1.1 ─ app
    pair   client ─ HTTP/1.1 ─ A ═ HTTP/2 ═ B ─ HTTP/1.1 ─ app
    grpc   client ─ HTTP/2 ─ A ═ HTTP/2 ═ B ─ HTTP/2 ─ app        unary calls on one connection

A client's bytes go into a downstream connection as the event loop would hand them over, exchanges
route them to the app, whose response goes the way back and comes out where the client is.  Routing
has 50 routes in 10 virtual hosts, A's cluster three endpoints; TLS and the kernel take no part.
`batch` is how many requests arrive in one turn of the loop: 1 when idle, 8 in the midst of a load,
32 when all that many connections of a load generator are served at once.

Two figures, with different virtues.  The calls (of Python and C functions, per request) are exact
and the same on every machine: compare them between two versions.  The microseconds are the least
of many rounds and still only good for ratios within one minute on one machine.
"""

import argparse
import asyncio
import cProfile
import gc
import itertools
import json
import pstats
import struct
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Final

import uvloop

from meshproxy.config.bootstrap import Bootstrap
from meshproxy.config.snapshot import Mesh
from meshproxy.contract.matching import MatchSpec, PathMatchSpec
from meshproxy.contract.resources import (
    BackendSpec,
    ClusterSpec,
    EndpointSpec,
    EndpointsSpec,
    ListenerSpec,
    RouteSpec,
    Snapshot,
    VirtualHostSpec,
)
from meshproxy.downstream.arrival import Arrival
from meshproxy.downstream.sockets import Sockets
from meshproxy.flow import Connection
from meshproxy.identity.certificates import Certificates
from meshproxy.policies.propagation import Context, trace_of
from meshproxy.telemetry.metrics import Metrics
from meshproxy.traffic import Environment
from meshproxy.upstream.http1 import Http1Connection as Upstream
from meshproxy.upstream.http2 import Http2Connection as SharedUpstream

from . import armed
from .paths import A, B, free_port
from .quick import interpreter, table

BATCHES: Final = (1, 8, 32)
HOP: Final = "hop"
PAIR: Final = "pair"
GRPC: Final = "grpc"
REQUEST: Final = (
    b"GET /api/v3/items HTTP/1.1\r\n"
    b"Host: svc1.default\r\n"
    b"User-Agent: wrk/4\r\n"
    b"Accept: */*\r\n\r\n"
)  # fmt: skip
RESPONSE: Final = (
    b"HTTP/1.1 200 OK\r\n"
    b"Content-Type: text/plain\r\n"
    b"Content-Length: 100\r\n"
    b"Server: x\r\n"
    b"Date: Sun, 22 Nov 2026 00:00:00 GMT\r\n\r\n"
) + b"x" * 100

TRACES: Final = tuple(b"00-%032x-%016x-01" % (number, number) for number in range(1, 4_096))
"""Of what comes with all policies armed; each is another one's, as in life."""

MESSAGE: Final = b"\0\0\0\0\x0a" + b"x" * 10  # of gRPC: a flag, a length, and what it is about


# Frames of HTTP/2, made by hand: they cost nothing while the clock runs.


def _frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    return struct.pack(">HBBBI", 0, len(payload), kind, flags, stream) + payload


def _block(*fields: tuple[bytes, bytes]) -> bytes:
    """Return a header block whose fields enter no table, so that it may be said again and again."""
    return b"".join(b"\0%c%b%c%b" % (len(name), name, len(value), value) for name, value in fields)


GREETING: Final = (
    _frame(4, 0, 0, struct.pack(">HI", 4, 2**31 - 1))  # windows that never bind
    + _frame(8, 0, 0, struct.pack(">I", 2**31 - 1 - 65535))
    + _frame(4, 1, 0, b"")
)
CALL: Final = _block(
    (b":method", b"POST"), (b":scheme", b"http"), (b":path", b"/api.v3.Items/Get"),
    (b":authority", b"svc1.default"), (b"content-type", b"application/grpc"),
    (b"user-agent", b"grpc-go/1.70.0"), (b"te", b"trailers"),
)  # fmt: skip
REPLY: Final = _block((b":status", b"200"), (b"content-type", b"application/grpc"))
STATUS: Final = _block((b"grpc-status", b"0"))


def _call(stream: int, more: bytes = b"") -> bytes:
    return _frame(1, 4, stream, CALL + more) + _frame(0, 1, stream, MESSAGE)


def _replies(asked: bytes) -> bytes:
    """Return the answers to all calls in what an app was sent."""
    said, place = b"", 0
    while place < len(asked):
        _, size, kind, _, stream = struct.unpack_from(">HBBBI", asked, place)
        place += 9 + size
        if kind == 1:
            said += _frame(1, 4, stream, REPLY) + _frame(0, 0, stream, MESSAGE)
            said += _frame(1, 5, stream, STATUS)
    return said


class _Transport(asyncio.Transport):
    """Keeps what is written, as cheaply as can be, until it is taken."""

    def __init__(self) -> None:
        self.written: list[bytes] = []
        self.write = self.written.append  # type: ignore[method-assign,assignment]

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None: ...
    def close(self) -> None: ...
    def abort(self) -> None: ...
    def is_closing(self) -> bool:
        return False


class End:
    """One connection of a sidecar, held at the end that leads out of it."""

    def __init__(self, connection: Any) -> None:
        self._connection: Connection = connection
        self._transport = _Transport()
        connection.connection_made(self._transport)

    def put(self, data: bytes) -> None:
        """Let bytes arrive."""
        connection = self._connection
        connection.get_buffer(-1)[: len(data)] = data
        connection.buffer_updated(len(data))

    def tell(self, asked: list["End"]) -> None:
        """Put this end into a list when something is written, instead of keeping that."""
        self._transport.write = lambda _: asked.append(self)  # type: ignore[method-assign,assignment]

    def take(self) -> bytes:
        """Return what has been written since the last time."""
        data = b"".join(self._transport.written)
        self._transport.written.clear()
        return data


class Sidecar:
    """The listener and the cluster of one, with connections that lead nowhere."""

    def __init__(self, identity: str, folder: Path, snapshot: Snapshot) -> None:
        self._loop = asyncio.get_running_loop()
        bootstrap = Bootstrap(workload="bench/w", identity=identity, state=folder)
        certificates = Certificates(bootstrap.identity, bootstrap.state)
        self._environment = environment = Environment(bootstrap, certificates, Metrics(), Sockets())
        self._mesh = Mesh(environment)
        self._mesh.adopt(snapshot)
        self._pools = [endpoint.pool for endpoint in self._mesh.clusters["catalog"].endpoints]

    def close(self) -> None:
        self._mesh.close()

    def be_asked(self, traces: Iterable[bytes]) -> None:
        """Let the app work on requests of these traces, so that its calls are found to be theirs."""
        for trace in traces:
            ids, line = trace_of([(b"traceparent", trace, b"traceparent: " + trace)])
            context: Context[Any] = Context()
            context.started = self._environment.now()
            self._environment.propagation.enter(context, ids, line)

    def clients(self, count: int, *, http2: bool = False, identity: str | None = None) -> list[End]:
        """Let so many clients connect."""
        listener = self._mesh.listeners["bench"]
        ends = []
        for _ in range(count):
            arrival = Arrival(self._loop, listener, listener.destination)
            listener.arrived(arrival)
            arrival.identity = identity
            ends.append(End(listener.successor(arrival, http2=http2)))
        return ends

    def servers(self, count: int) -> list[End]:
        """Stand for servers of HTTP/1.1: `count` connections to each endpoint."""
        ends = []
        for pool in self._pools:
            for _ in range(count):
                upstream = Upstream(self._loop, pool)
                ends.append(End(upstream))
                pool.idle(upstream)
        return ends

    def peers(self) -> list[End]:
        """Stand for sidecars: one connection of HTTP/2 to each endpoint."""
        ends = []
        for pool in self._pools:
            upstream = SharedUpstream(self._loop, pool, to_sidecar=True)
            ends.append(End(upstream))
            pool._shared.append(upstream)  # noqa: SLF001 - which dialling would have done
        return ends


class Course:
    """A way from clients to the app, with all connections in place."""

    def __init__(
        self,
        path: str,
        batch: int,
        folder: Path,
        routes: int = 50,
        endpoints: int = 3,
        *,
        everything: bool = False,
    ) -> None:
        """With `everything`, all policies are armed, and requests are part of traces."""
        self.batch = batch
        self._loop = asyncio.get_running_loop()
        self._sidecars = [Sidecar(A, folder, _outbound(routes, endpoints, everything=everything))]
        self._traces = itertools.cycle(TRACES) if everything else None
        if everything:
            self._sidecars[0].be_asked(TRACES)
        self._links: list[tuple[End, End]] = []
        self._path = path
        self._stream = 1  # the next of a gRPC client
        if path != HOP:
            self._sidecars.append(Sidecar(B, folder, _inbound(everything=everything)))
            near = self._sidecars[0].peers()
            far = self._sidecars[1].clients(len(near), http2=True, identity=A)
            self._links = list(zip(near, far, strict=True))
        self._asked: list[End] = []
        self._servers: list[End] = []
        if path == GRPC:
            self._clients = self._sidecars[0].clients(1, http2=True)
            self._clients[0].put(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + GREETING)
            self._servers = self._sidecars[-1].peers()
            for server in self._servers:
                server.put(GREETING)
            return
        self._clients = self._sidecars[0].clients(batch)
        for server in self._sidecars[-1].servers(batch):
            server.tell(self._asked)

    def close(self) -> None:
        for sidecar in self._sidecars:
            sidecar.close()

    async def greet(self) -> None:
        """Let the sidecars exchange what they say before the first request."""
        quiet = 0
        while quiet < 3:  # a sidecar may put off what it says by a turn
            said = _carry(self._links) | _carry((far, near) for near, far in self._links)
            quiet = 0 if said else quiet + 1
            await asyncio.sleep(0)
        for server in self._servers:
            server.take()

    async def run(self, turns: int) -> None:
        """Let `batch` requests pass in each of `turns`."""
        done = self._loop.create_future()
        left = turns

        # Each step is a callback of the loop, so that what connections have put off to the end of
        # a turn happens in between, as it does in a sidecar.
        def requests() -> None:
            nonlocal left
            if not left:
                done.set_result(None)
                return
            left -= 1
            for client in self._clients:
                client.take()
                client.put(self._request())
            self._after(onward if self._links else responses)

        def onward() -> None:
            _carry(self._links)
            self._after(responses)

        def responses() -> None:
            for server in self._asked:
                server.put(RESPONSE)
            self._asked.clear()
            for server in self._servers:
                server.put(_replies(server.take()))
            self._after(back if self._links else requests)

        def back() -> None:
            _carry((far, near) for near, far in self._links)
            self._after(requests)

        requests()
        await done

    def _after(self, step: Callable[[], None]) -> None:
        """Take a step when what was put off to the end of the next turn has happened."""
        self._loop.call_soon(self._loop.call_soon, step)

    def _request(self) -> bytes:
        """Return what each client says in a turn."""
        traces = self._traces
        if self._path != GRPC:
            if traces is None:
                return REQUEST
            return b"%btraceparent: %b\r\n\r\n" % (REQUEST[:-2], next(traces))
        first, self._stream = self._stream, self._stream + 2 * self.batch
        return b"".join(
            _call(stream, b"" if traces is None else _block((b"traceparent", next(traces))))
            for stream in range(first, self._stream, 2)
        )

    def check(self) -> None:
        """Make sure that the figures are about requests that were answered."""
        for client in self._clients:
            written = client.take()
            if self._path == GRPC:
                assert written.count(MESSAGE) == self.batch, written
                continue
            assert written.startswith(b"HTTP/1.1 200 OK\r\n"), written
            assert written.endswith(b"\r\n\r\n" + b"x" * 100), written


def _carry(links: Iterable[tuple[End, End]]) -> bool:
    """Carry what was written at one end of each link to the other; say whether there was any."""
    any_ = False
    for origin, goal in links:
        data = origin.take()
        if data:
            goal.put(data)
            any_ = True
    return any_


def _outbound(routes: int, endpoints: int, *, everything: bool = False) -> Snapshot:
    backends = (BackendSpec(cluster="catalog"),)
    policies: dict[str, Any] = armed.a_route("catalog") if everything else {}
    of_cluster: dict[str, Any] = armed.A_CLUSTER if everything else {}
    hosts = 10 if routes >= 50 else 2
    rules = (
        *(
            RouteSpec(
                name=f"v{number}",
                match=MatchSpec(path=PathMatchSpec(type="prefix", value=f"/api/v{number}")),
                backends=backends,
                **policies,
            )
            for number in range(routes // hosts - 1)
        ),
        RouteSpec(name="all", backends=backends, **policies),
    )
    return Snapshot(
        clusters=(ClusterSpec(name="catalog", service="bench/catalog", **of_cluster),),
        endpoints=(
            EndpointsSpec(
                cluster="catalog",
                endpoints=tuple(
                    EndpointSpec(address=f"127.0.{n // 250}.{n % 250 + 1}", port=9)
                    for n in range(endpoints)
                ),
            ),
        ),
        virtual_hosts=tuple(
            VirtualHostSpec(name=f"svc{n}", domains=(f"svc{n}.default:80",), routes=rules)
            for n in range(hosts)
        ),
        listeners=(
            ListenerSpec(name="bench", direction="outbound", address="127.0.0.1", port=free_port()),
        ),
    )


def _inbound(*, everything: bool = False) -> Snapshot:
    policies: dict[str, Any] = armed.B_ROUTE if everything else {}
    of_host: dict[str, Any] = armed.b_host(A) if everything else {}
    of_cluster: dict[str, Any] = armed.B_CLUSTER if everything else {}
    return Snapshot(
        clusters=(ClusterSpec(name="catalog", **of_cluster),),
        endpoints=(
            EndpointsSpec(
                cluster="catalog", endpoints=(EndpointSpec(address="127.0.0.1", port=9),)
            ),
        ),
        virtual_hosts=(
            VirtualHostSpec(
                name="app",
                domains=("*",),
                routes=(
                    RouteSpec(
                        name="inbound", backends=(BackendSpec(cluster="catalog"),), **policies
                    ),
                ),
                **of_host,
            ),
        ),
        listeners=(
            ListenerSpec(
                name="bench",
                direction="inbound",
                address="127.0.0.1",
                port=free_port(),
                virtual_host="app",
            ),
        ),
    )


# Measuring ----------------------------------------------------------------------------------------


async def microseconds(course: Course, rounds: int = 30, requests: int = 800) -> float:
    """Return the least time a request took in one of `rounds`."""
    turns = requests // course.batch
    await course.run(turns)  # caches filled
    least = float("inf")
    for _ in range(rounds):
        began = time.thread_time_ns()
        await course.run(turns)
        least = min(least, (time.thread_time_ns() - began) / (turns * course.batch))
    return least / 1000


async def calls(course: Course, turns: int = 50) -> float:
    """Return how many functions are called per request, those of this file left out."""
    counted = 0

    def count(frame: Any, event: str, _argument: object) -> None:
        nonlocal counted
        if event in ("call", "c_call") and _of_the_proxy(frame, event):
            counted += 1

    await course.run(turns)
    sys.setprofile(count)
    await course.run(turns)
    sys.setprofile(None)
    return counted / turns / course.batch


def _of_the_proxy(frame: Any, event: str) -> bool:
    # The frame of a Python call is the callee's, that of a C call the caller's.
    caller = frame.f_back if event == "call" else frame
    here = __file__
    if frame.f_code.co_filename == here:
        return False
    return event == "call" or caller.f_code.co_filename != here


async def measure(
    path: str, batch: int, look: Callable[[Course], Any] | None = None
) -> tuple[float, float]:
    with tempfile.TemporaryDirectory(prefix="meshproxy-bench-") as folder:
        course = Course(path, batch, Path(folder))
        try:
            await asyncio.sleep(0)
            await course.greet()
            least, called = await microseconds(course), await calls(course)
            course.check()
            if look is not None:
                await look(course)
        finally:
            course.close()
    return least, called


async def growth(rounds: int = 15) -> dict[tuple[int, int], float]:
    """Return the microseconds of a hop by (routes, endpoints), measured in turns."""
    least: dict[tuple[int, int], float] = {}
    with tempfile.TemporaryDirectory(prefix="meshproxy-bench-") as folder:
        courses = {
            size: Course(HOP, 1, Path(folder), *size)
            for size in ((10, 10), (10_000, 10), (10, 5_000))
        }
        gc.freeze()  # what exists now, as a sidecar does when it has obeyed a configuration
        for _ in range(rounds):
            for size, course in courses.items():
                seen = await microseconds(course, rounds=1)
                least[size] = min(seen, least.get(size, seen))
        for course in courses.values():
            course.check()
            course.close()
    return least


async def armed_or_not(path: str, batch: int, rounds: int = 40) -> dict[bool, tuple[float, float]]:
    """Return microseconds and calls without policies (False) and with all (True), in turns."""
    least = {False: float("inf"), True: float("inf")}
    with tempfile.TemporaryDirectory(prefix="meshproxy-bench-") as folder:
        courses = {
            everything: Course(path, batch, Path(folder), everything=everything)
            for everything in least
        }
        await asyncio.sleep(0)
        for course in courses.values():
            await course.greet()
        gc.freeze()
        for _ in range(rounds):
            for everything, course in courses.items():
                least[everything] = min(least[everything], await microseconds(course, rounds=1))
        called = {everything: await calls(course) for everything, course in courses.items()}
        for course in courses.values():
            course.check()
            course.close()
    return {everything: (least[everything], called[everything]) for everything in least}


async def _profile(course: Course) -> None:
    profile = cProfile.Profile()
    profile.enable()
    await course.run(500)
    profile.disable()
    pstats.Stats(profile, stream=sys.stderr).sort_stats("tottime").print_stats(40)


def _armed(paths: list[str], output: str) -> str:
    """Measure without and with all policies; return what is to be printed."""
    found = {
        (path, batch): uvloop.run(armed_or_not(path, batch)) for path in paths for batch in BATCHES
    }
    if output == "json":
        figures = [
            {"path": path, "batch": batch, "armed": everything, "us": us, "calls": called}
            for (path, batch), both in found.items()
            for everything, (us, called) in both.items()
        ]
        return json.dumps({"about": interpreter(), "figures": figures}, indent=2)
    lines = [["path", "batch", "us/req", "armed", "ratio", "calls/req", "armed", "ratio"]]
    for (path, batch), both in found.items():
        (us, called), (us_armed, called_armed) = both[False], both[True]
        lines.append([path, str(batch), f"{us:.1f}", f"{us_armed:.1f}", f"{us_armed / us:.2f}"])
        lines[-1] += [f"{called:.1f}", f"{called_armed:.1f}", f"{called_armed / called:.2f}"]
    return table(lines)


def main() -> int:
    parser = argparse.ArgumentParser(prog="bench.inproc", description=(__doc__ or "").strip(),
                                     formatter_class=argparse.RawDescriptionHelpFormatter)  # fmt: skip
    parser.add_argument("--path", choices=[HOP, PAIR, GRPC], help="default: all")
    parser.add_argument("--growth", action="store_true", help="many routes, many endpoints")
    parser.add_argument("--armed", action="store_true", help="without and with all policies")
    parser.add_argument("--profile", action="store_true", help="show where the time goes")
    parser.add_argument("-o", "--output", choices=["table", "json"], default="table")
    options = parser.parse_args()
    gc.freeze()
    gc.set_threshold(50_000, 50, 1_000)  # as a sidecar does
    if options.growth:
        grown = uvloop.run(growth())
        base = grown[10, 10]
        lines = [[str(a), str(b), f"{us:.1f}", f"{us / base:.2f}"] for (a, b), us in grown.items()]
        print(table([["routes", "endpoints", "us/req", "ratio"], *lines]))
        return 0
    paths = [options.path] if options.path else [HOP, PAIR, GRPC]
    if options.armed:
        print(_armed(paths, options.output))
        return 0
    look = _profile if options.profile else None
    found = {
        (path, batch): uvloop.run(measure(path, batch, look)) for path in paths for batch in BATCHES
    }
    if options.output == "json":
        figures = [
            {"path": path, "batch": batch, "us": us, "calls": called}
            for (path, batch), (us, called) in found.items()
        ]
        print(json.dumps({"about": interpreter(), "figures": figures}, indent=2))
        return 0
    about = interpreter()
    print("  ".join(f"{name}: {about[name]}" for name in ("python", "pgo")), file=sys.stderr)
    rows = [
        [path, str(batch), f"{us:.1f}", f"{called:.1f}"]
        for (path, batch), (us, called) in found.items()
    ]
    print(table([["path", "batch", "us/req", "calls/req"], *rows]))
    return 0


if __name__ == "__main__":
    sys.exit(main())
