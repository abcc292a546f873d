"""
Whatever clients make up, no table of a sidecar grows with it.

Everything that a proxy refers to is walked through, so a table that is added one day is looked at, too,
without anybody's adding it to a list.
"""

import asyncio
import gc
import sys
import types
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from meshproxy.config.bootstrap import Admin, Bootstrap, Static
from meshproxy.contract import wire
from meshproxy.contract.authorization import AuthorizationRuleSpec, AuthorizationSpec, OperationSpec
from meshproxy.contract.policies import RateLimitSpec
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
from meshproxy.policies.rate_limit import BUCKETS
from meshproxy.proxy import Proxy
from tests.helpers.client import connect
from tests.helpers.ports import free_port

pytestmark = pytest.mark.integration

VALUES = 20_000
BATCH = 250
MOST = 5_000
"""Entries of a table that clients may fill; but the buckets of a rate limit are `BUCKETS`."""

LAST = b"GET / HTTP/1.1\r\nHost: catalog\r\nConnection: close\r\n\r\n"

TABLES = (dict, set, list, deque, types.MappingProxyType)


class App(asyncio.Protocol):
    """Answers each request, with trailers and statuses that nobody has seen before."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        assert isinstance(self.transport, asyncio.Transport)
        self.transport.write(
            b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok" * data.count(b"\r\n\r\n")
        )


@pytest.fixture(autouse=True)
def _collector() -> Iterator[None]:
    """A proxy tunes the collector for its process, which here is that of all tests."""
    yield
    gc.unfreeze()


def bootstrap(directory: Path, app: int, port: int, proxy: int) -> Bootstrap:
    """One port to an app, with policies that have tables; one in the HTTP proxy form."""
    operation = OperationSpec(paths=("/denied/*",))
    deny = AuthorizationSpec(
        name="default/deny", action="deny", rules=(AuthorizationRuleSpec(operations=(operation,)),)
    )
    limit = RateLimitSpec(name="each", per="header", header="x-user", requests=1, interval=60_000)
    snapshot = Snapshot(
        clusters=(ClusterSpec(name="app", service="default/catalog"),),
        endpoints=(
            EndpointsSpec(cluster="app", endpoints=(EndpointSpec(address="127.0.0.1", port=app),)),
        ),
        virtual_hosts=(
            VirtualHostSpec(
                name="app",
                domains=("*",),
                routes=(RouteSpec(name="all", backends=(BackendSpec(cluster="app"),)),),
                rate_limits=(limit,),
                authorization=(deny,),
            ),
        ),
        listeners=(
            ListenerSpec(
                name="in", direction="inbound", address="127.0.0.1", port=port, virtual_host="app"
            ),
            ListenerSpec(name="out", direction="outbound", address="127.0.0.1", port=proxy),
        ),
    )
    (directory / "snapshot.json").write_bytes(wire.encode(snapshot))
    return Bootstrap(
        workload="default/catalog",
        identity="spiffe://test.mesh/ns/default/sa/catalog",
        state=directory / "state",
        admin=Admin(port=free_port()),
        drain_seconds=0.1,
        static=Static(snapshot=directory / "snapshot.json"),
    )


def request(number: int) -> bytes:
    """Everything in it is new."""
    path = "denied" if number % 8 == 0 else "p"
    return (
        f"GET http://h{number}.example/{path}/{number}?q={number} HTTP/1.1\r\n"
        f"Host: h{number}.example\r\n"
        f"X-User: user-{number}\r\nX-New-{number}: {number}\r\nUser-Agent: agent-{number}\r\n"
        f"traceparent: 00-{number + 1:032x}-{number + 1:016x}-01\r\n"
        f"x-request-id: {number:08x}-0000-4000-8000-000000000000\r\nbaggage: id={number}\r\n"
        f"Authorization: Bearer {number}\r\nx-mesh-via: a{number}, b{number}\r\n"
        f"x-forwarded-client-cert: By=spiffe://x/ns/a/sa/{number};URI=spiffe://x/ns/b/sa/{number}\r\n"
        "\r\n"
    ).encode()


async def attack(port: int, numbers: range) -> None:
    for start in numbers[::BATCH]:
        async with connect(port) as client:
            batch = range(start, start + BATCH)
            await client.send(b"".join(request(number) for number in batch) + LAST)
            assert (await client.rest()).count(b"HTTP/1.1 ") == BATCH + 1


def tables(*roots: object) -> Iterator[tuple[int, object]]:
    """Yield all tables that can be reached, with their sizes."""
    seen: set[int] = set()
    waiting: list[Any] = list(roots)
    while waiting:
        one = waiting.pop()
        if id(one) in seen:
            continue
        seen.add(id(one))
        if isinstance(one, TABLES):
            yield len(one), one
        if not isinstance(one, types.ModuleType | type | types.FrameType):
            waiting += gc.get_referents(one)


def ours() -> list[object]:
    """Return the modules' own tables, caches included."""
    return [
        value
        for name, module in sys.modules.items()
        if name.split(".")[0] == "meshproxy"
        for value in vars(module).values()
        if not isinstance(value, types.ModuleType | type)
    ]


async def test_20_000_of_everything_fill_no_table(tmp_path: Path) -> None:
    """Hosts, paths, header names and values, users, traces, identities: each of them new."""
    loop = asyncio.get_running_loop()
    server = await loop.create_server(App, "127.0.0.1", 0)
    port, outbound = free_port(), free_port()
    proxy = Proxy(bootstrap(tmp_path, server.sockets[0].getsockname()[1], port, outbound))
    await proxy.start()
    try:
        # Of whatever else this process has that is large, most is the test runner's.
        others = {id(table) for size, table in tables(proxy, *ours()) if size > MOST}
        await asyncio.gather(attack(port, range(12_000)), attack(outbound, range(12_000, VALUES)))
        large = [
            (size, repr(table)[:200])
            for size, table in tables(proxy, *ours())
            if size > MOST and id(table) not in others
        ]
        assert [BUCKETS <= size <= BUCKETS + 1 for size, _ in large] == [True], large
    finally:
        await proxy.stop()
        server.close()
