"""
What one client can do to all others by having a service judged: breakers and ejections.

The app is well.  Some of its requests take a while, and one path is broken, as one always is.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from meshproxy.contract.policies import CircuitBreakerSpec, OutlierSpec
from meshproxy.contract.resources import EndpointSpec, EndpointsSpec, Snapshot
from tests.helpers.client import connect, get
from tests.helpers.origin import Conversation, hello, origin
from tests.helpers.pair import Pair

pytestmark = pytest.mark.integration

TRIES = 12
BREAKER = CircuitBreakerSpec(min_requests=3, failure_percent=20.0)


async def app(conversation: Conversation) -> None:
    """Takes its time, and at one path does not even listen to the end."""
    if conversation.request_line.startswith(b"POST /small"):
        await conversation.send(
            b"HTTP/1.1 413 Too Large\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
        )
        raise ConnectionError  # with much unread: the kernel sends a reset
    if b"/slow" in conversation.request_line:
        await asyncio.sleep(0.3)
    await hello(conversation)


@contextlib.asynccontextmanager
async def pair(directory: Path) -> AsyncIterator[Pair]:
    """Two sidecars; the first one knows the second, and two apps without sidecars."""
    async with origin(app) as one, origin(app) as other:

        def change(snapshot: Snapshot) -> Snapshot:
            [cluster] = snapshot.clusters
            cluster = msgspec.structs.replace(cluster, breaker=BREAKER)
            plain = msgspec.structs.replace(
                cluster, name="plain", service="default/plain", mtls=False, outliers=OutlierSpec()
            )
            apps = tuple(EndpointSpec(address="127.0.0.1", port=at.port) for at in (one, other))
            [host] = snapshot.virtual_hosts
            [route] = host.routes
            backend = msgspec.structs.replace(route.backends[0], cluster="plain")
            another = msgspec.structs.replace(
                host,
                name="plain",
                domains=("plain:80",),
                routes=(msgspec.structs.replace(route, backends=(backend,)),),
            )
            return msgspec.structs.replace(
                snapshot,
                clusters=(cluster, plain),
                endpoints=(*snapshot.endpoints, EndpointsSpec(cluster="plain", endpoints=apps)),
                virtual_hosts=(host, another),
            )

        two = Pair(directory, one.port, change_a=change)
        await asyncio.to_thread(two.__enter__)
        try:
            yield two
        finally:
            await asyncio.to_thread(two.__exit__)


async def _said(port: int, said: bytes, *, leave: bool = False) -> None:
    with contextlib.suppress(OSError, asyncio.IncompleteReadError):
        async with connect(port) as client:
            await client.send(said)
            if leave:
                await asyncio.sleep(0.02)
            else:
                await client.response()


def _request(target: str, host: str, *fields: str, method: str = "GET", body: bytes = b"") -> bytes:
    lines = (f"{method} {target} HTTP/1.1", f"Host: {host}", *fields)
    return "\r\n".join((*lines, "", "")).encode() + body


LARGE = b"a" * 3_000_000


def attacks(host: str) -> dict[str, tuple[bytes, bool]]:
    """Return what is said in each, and whether the client leaves then."""
    return {
        "deadlines": (_request("/slow", host, "x-mesh-deadline-ms: 20"), False),
        "deadlines that are over": (_request("/slow", host, "x-mesh-deadline-ms: 1"), False),
        "gRPC deadlines": (
            _request(
                "/slow", host, "Content-Type: application/grpc", "grpc-timeout: 20m",
                "Content-Length: 0", method="POST",
            ),
            False,
        ),
        "cancelled": (_request("/slow", host), True),
        "bodies that are too large": (
            _request("/small", host, f"Content-Length: {len(LARGE)}", method="POST", body=LARGE),
            False,
        ),
        "malformed chunks": (
            _request("/slow", host, "Transfer-Encoding: chunked", method="POST", body=b"5\r\nabcdefg\r\n"),
            False,
        ),
        "half a body": (
            _request("/slow", host, "Content-Length: 9", method="POST", body=b"a"), True,
        ),
        "expectations": (
            _request("/slow", host, "Content-Length: 9", "Expect: 100-continue", method="POST"), True,
        ),
        "protocols that nobody speaks": (
            _request("/slow", host, "Connection: Upgrade", "Upgrade: nonsense"), False,
        ),
    }  # fmt: skip


@pytest.mark.parametrize("host", ["catalog", "plain"])
async def test_nobody_has_a_healthy_service_left_alone(tmp_path: Path, host: str) -> None:
    """Whatever one client sends, and however often: no breaker opens, nobody is ejected."""
    async with pair(tmp_path) as two:
        lost = {}
        for name, (said, leave) in attacks(host).items():
            await asyncio.gather(*(_said(two.outbound, said, leave=leave) for _ in range(TRIES)))
            response = await get(two.outbound, host=host)
            state = await _state(two, host)
            if response.status != 200 or state:
                lost[name] = (response.status, state)
        assert lost == {}


async def _state(two: Pair, host: str) -> list[Any]:
    """Return what is wrong with a cluster in the first sidecar's eyes."""
    clusters = await asyncio.to_thread(two.a.get, "/clusters")
    [cluster] = [one for one in clusters if one["name"] == host]
    wrong: list[Any] = [
        one["state"] for one in cluster["endpoints"] if one["state"] != "in-service"
    ]
    if cluster["breaker"]["state"] != "closed" or cluster["breaker"]["failed"]:
        wrong.append(cluster["breaker"])
    return wrong
