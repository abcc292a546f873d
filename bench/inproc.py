"""
What one hop costs in instructions of ours: a request through one sidecar, without sockets.

    python -m bench.inproc [--profile] [-o json]

A client's bytes go into a downstream connection as the event loop would hand them over, the
exchange routes them to an upstream connection, a response goes in there, and comes out where the
client is.  Routing has 50 routes in 10 virtual hosts, the cluster three endpoints; TLS and the
kernel take no part.  `batch` is how many requests arrive in one turn of the loop: 1 when idle, 8 in
the midst of a load.

Two figures, with different virtues.  The calls (of Python and C functions, per request) are exact
and the same on every machine: compare them between two versions.  The microseconds are the least
of many rounds and still only good for ratios within one minute on one machine.
"""

import argparse
import asyncio
import cProfile
import gc
import json
import pstats
import sys
import tempfile
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import uvloop

from meshproxy import flow
from meshproxy.config.bootstrap import Bootstrap
from meshproxy.config.snapshot import Mesh
from meshproxy.contract.resources import (
    BackendSpec,
    ClusterSpec,
    EndpointSpec,
    EndpointsSpec,
    ListenerSpec,
    MatchSpec,
    PathMatchSpec,
    RouteSpec,
    Snapshot,
    VirtualHostSpec,
)
from meshproxy.downstream.arrival import Arrival
from meshproxy.downstream.http1 import Http1Connection as Downstream
from meshproxy.downstream.sockets import Sockets
from meshproxy.identity.certificates import Certificates
from meshproxy.telemetry.metrics import Metrics
from meshproxy.traffic import Environment
from meshproxy.upstream.http1 import Http1Connection as Upstream

from .paths import A, free_port
from .quick import interpreter, table

BATCHES: Final = (1, 8)
REQUEST: Final = (
    b"GET /api/v3/items HTTP/1.1\r\n"
    b"Host: svc3.default\r\n"
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


class _Transport(asyncio.Transport):
    """Takes what is written, as cheaply as can be, and keeps the last of it."""

    def __init__(self) -> None:
        self.written: deque[bytes] = deque(maxlen=1)
        self.write = self.written.append  # type: ignore[method-assign,assignment]

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None: ...
    def close(self) -> None: ...
    def abort(self) -> None: ...
    def is_closing(self) -> bool:
        return False


class Hop:
    """One sidecar's listener and cluster, with connections that lead nowhere."""

    def __init__(self, batch: int, folder: Path) -> None:
        self.batch = batch
        self._loop = asyncio.get_running_loop()
        bootstrap = Bootstrap(workload="bench/a", identity=A, state=folder)
        certificates = Certificates(bootstrap.identity, bootstrap.state)
        self._environment = Environment(bootstrap, certificates, Metrics(), Sockets())
        self._mesh = Mesh(self._environment)
        self._mesh.adopt(_snapshot())
        pools = [endpoint.pool for endpoint in self._mesh.clusters["catalog"].endpoints]
        self._upstreams: list[Upstream] = []
        for pool in pools:
            for _ in range(batch):
                upstream = Upstream(self._loop, pool)
                upstream.connection_made(_Transport())
                pool.idle(upstream)
                self._upstreams.append(upstream)
        listener = self._mesh.listeners["outbound"]
        self._downstreams: list[Downstream] = []
        for _ in range(batch):
            arrival = Arrival(self._loop, listener, tls=False)
            listener.arrived(arrival)
            downstream = listener.successor(arrival, http2=False)
            assert isinstance(downstream, Downstream)
            downstream.connection_made(_Transport())
            self._downstreams.append(downstream)

    def close(self) -> None:
        self._mesh.close()

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
            for connection in self._downstreams:
                _receive(connection, REQUEST)
            self._loop.call_soon(responses)

        def responses() -> None:
            for connection in self._upstreams:
                if connection._exchange is not None:  # noqa: SLF001 - has a request under way
                    _receive(connection, RESPONSE)
            self._loop.call_soon(requests)

        requests()
        await done

    def check(self) -> None:
        """Make sure that the figures are about requests that were answered."""
        for downstream in self._downstreams:
            transport = downstream.transport
            assert isinstance(transport, _Transport)
            written = transport.written[0]
            assert written.startswith(b"HTTP/1.1 200 OK\r\n"), written
            assert written.endswith(b"\r\n\r\n" + b"x" * 100), written


def _receive(connection: flow.Connection, data: bytes) -> None:
    connection.get_buffer(-1)[: len(data)] = data
    connection.buffer_updated(len(data))


def _snapshot() -> Snapshot:
    backends = (BackendSpec(cluster="catalog"),)
    routes = (
        *(
            RouteSpec(
                name=f"v{number}",
                match=MatchSpec(path=PathMatchSpec(type="prefix", value=f"/api/v{number}")),
                backends=backends,
            )
            for number in range(4)
        ),
        RouteSpec(name="all", backends=backends),
    )
    return Snapshot(
        clusters=(ClusterSpec(name="catalog", service="bench/catalog"),),
        endpoints=(
            EndpointsSpec(
                cluster="catalog",
                endpoints=tuple(EndpointSpec(address=f"127.0.0.{n}", port=9) for n in (1, 2, 3)),
            ),
        ),
        virtual_hosts=tuple(
            VirtualHostSpec(name=f"svc{n}", domains=(f"svc{n}.default:80",), routes=routes)
            for n in range(10)
        ),
        listeners=(
            ListenerSpec(
                name="outbound", direction="outbound", address="127.0.0.1", port=free_port()
            ),
        ),
    )


# Measuring ----------------------------------------------------------------------------------------


async def microseconds(hop: Hop, rounds: int = 30, requests: int = 800) -> float:
    """Return the least time a request took in one of `rounds`."""
    turns = requests // hop.batch
    await hop.run(turns)  # caches filled
    least = float("inf")
    for _ in range(rounds):
        began = time.thread_time_ns()
        await hop.run(turns)
        least = min(least, (time.thread_time_ns() - began) / (turns * hop.batch))
    return least / 1000


async def calls(hop: Hop, turns: int = 50) -> float:
    """Return how many functions are called per request, those of this file left out."""
    counted = 0

    def count(frame: Any, event: str, _argument: object) -> None:
        nonlocal counted
        if event in ("call", "c_call") and _of_the_proxy(frame, event):
            counted += 1

    await hop.run(turns)
    sys.setprofile(count)
    await hop.run(turns)
    sys.setprofile(None)
    return counted / turns / hop.batch


def _of_the_proxy(frame: Any, event: str) -> bool:
    # The frame of a Python call is the callee's, that of a C call the caller's.
    caller = frame.f_back if event == "call" else frame
    here = __file__
    if frame.f_code.co_filename == here:
        return False
    return event == "call" or caller.f_code.co_filename != here


async def measure(batch: int, look: Callable[[Hop], Any] | None = None) -> tuple[float, float]:
    with tempfile.TemporaryDirectory(prefix="meshproxy-bench-") as folder:
        hop = Hop(batch, Path(folder))
        try:
            least, called = await microseconds(hop), await calls(hop)
            hop.check()
            if look is not None:
                await look(hop)
        finally:
            hop.close()
    return least, called


async def _profile(hop: Hop) -> None:
    profile = cProfile.Profile()
    profile.enable()
    await hop.run(500)
    profile.disable()
    pstats.Stats(profile, stream=sys.stderr).sort_stats("tottime").print_stats(40)


def main() -> int:
    parser = argparse.ArgumentParser(prog="bench.inproc", description=(__doc__ or "").strip(),
                                     formatter_class=argparse.RawDescriptionHelpFormatter)  # fmt: skip
    parser.add_argument("--profile", action="store_true", help="show where the time goes")
    parser.add_argument("-o", "--output", choices=["table", "json"], default="table")
    options = parser.parse_args()
    gc.freeze()
    gc.set_threshold(50_000, 50, 1_000)  # as a sidecar does
    found = {
        batch: uvloop.run(measure(batch, _profile if options.profile else None))
        for batch in BATCHES
    }
    if options.output == "json":
        figures = {batch: {"us": us, "calls": called} for batch, (us, called) in found.items()}
        print(json.dumps({"about": interpreter(), "batches": figures}, indent=2))
        return 0
    about = interpreter()
    print("  ".join(f"{name}: {about[name]}" for name in ("python", "pgo")), file=sys.stderr)
    rows = [[str(batch), f"{us:.1f}", f"{called:.1f}"] for batch, (us, called) in found.items()]
    print(table([["batch", "us/req", "calls/req"], *rows]))
    return 0


if __name__ == "__main__":
    sys.exit(main())
