"""Checks of one endpoint, over real sockets."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from meshproxy.contract.policies import HealthCheckSpec
from meshproxy.contract.resources import ClusterSpec, EndpointSpec
from meshproxy.upstream.cluster import Cluster
from tests.helpers.environment import Environment, until
from tests.helpers.origin import Conversation, hello, origin
from tests.helpers.ports import free_port


class Answer:
    """An answer that can be changed while the server runs."""

    def __init__(self, raw: bytes) -> None:
        self.raw = raw

    async def __call__(self, conversation: Conversation) -> None:
        if not self.raw:
            await conversation.reader.read()
        await conversation.send(self.raw)


OK = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"
ILL = b"HTTP/1.1 503 Ill\r\nContent-Length: 3\r\n\r\nill"


@asynccontextmanager
async def checked(port: int, **settings: Any) -> AsyncIterator[Cluster]:
    check = HealthCheckSpec(
        **{"interval": 20, "timeout": 5_000, "healthy": 1, "unhealthy": 1, **settings}
    )
    spec = ClusterSpec(name="catalog", health_check=check)
    cluster = Cluster(spec, Environment())
    endpoint = EndpointSpec(address="127.0.0.1", port=port)
    cluster.adopt(spec, (endpoint, EndpointSpec(address="127.0.0.1", port=port + 1, weight=0)))
    try:
        yield cluster
    finally:
        cluster.close()


def results(cluster: Cluster) -> dict[str, int]:
    environment: Any = cluster._environment
    counted = environment.metrics.counts().counters["health_checks"]
    return {labels[1]: count for labels, count in counted}


async def test_http() -> None:
    """Its status decides; the connection is used again."""
    answer = Answer(OK)
    async with origin(answer) as app, checked(app.port, path="/health?deep") as cluster:
        endpoint = cluster.endpoints[0]
        await until(lambda: len(app.requests) >= 3)
        assert app.connections == 1
        assert app.requests[0].startswith(b"GET /health?deep HTTP/1.1\r\n")
        assert endpoint.healthy
        answer.raw = ILL
        await until(lambda: not endpoint.healthy)
        answer.raw = OK
        await until(lambda: endpoint.healthy)
        assert results(cluster).keys() == {"healthy", "unhealthy"}
        assert endpoint.host.requests == 0  # checks are no traffic


async def test_silence_is_an_answer() -> None:
    """After the timeout, and the connection is not used again."""
    async with origin(Answer(b"")) as app, checked(app.port, timeout=50) as cluster:
        await until(lambda: not cluster.endpoints[0].healthy)
        await until(lambda: app.connections >= 2)


@pytest.mark.parametrize("kind", ["http", "grpc", "tcp"])
async def test_nobody_listens(kind: str) -> None:
    """Whatever is asked."""
    async with checked(free_port(), type=kind) as cluster:
        await until(lambda: not cluster.endpoints[0].healthy)


async def test_tcp() -> None:
    """To connect is enough, also where the server speaks first."""

    async def greet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"220 mail\r\n")
        await reader.read()
        writer.close()

    port = free_port()
    async with checked(port, type="tcp") as cluster:
        await until(lambda: not cluster.endpoints[0].healthy)
        server = await asyncio.start_server(greet, "127.0.0.1", port)
        await until(lambda: cluster.endpoints[0].healthy)
        server.close()


async def test_what_we_lack_says_nothing_about_it() -> None:
    """No certificate yet: it is neither ill nor well."""
    spec = ClusterSpec(
        name="catalog", mtls=True, health_check=HealthCheckSpec(interval=10, unhealthy=1)
    )
    cluster = Cluster(spec, Environment())
    cluster.adopt(spec, (EndpointSpec(address="127.0.0.1", port=free_port()),))
    timers: list[object] = []
    endpoint = cluster.endpoints[0]
    check = endpoint._check
    assert check is not None
    for _ in range(3):
        before = check._timer
        await until(lambda before=before: check._timer is not before)  # type: ignore[misc]
        timers.append(before)
    assert endpoint.healthy
    assert results(cluster) == {}
    cluster.close()


async def test_no_check_outlives_its_endpoint() -> None:
    """Nor its spec: without one, everybody is healthy again."""
    async with origin(Answer(ILL)) as app, checked(app.port) as cluster:
        endpoint = cluster.endpoints[0]
        await until(lambda: not endpoint.healthy)
        cluster.adopt(ClusterSpec(name="catalog"), (endpoint.spec,))
        assert cluster.endpoints == (endpoint,)
        assert endpoint.healthy
        assert endpoint._check is None
        cluster.adopt(cluster.spec, ())
    async with origin(hello) as app, checked(app.port) as cluster:
        endpoint = cluster.endpoints[0]
        cluster.adopt(cluster.spec, ())
        assert endpoint._check is None


async def test_settings_that_stay_interrupt_nothing() -> None:
    """The same check goes on through updates of other things; another spec is another check."""
    async with origin(Answer(ILL)) as app, checked(app.port) as cluster:
        endpoint = cluster.endpoints[0]
        await until(lambda: not endpoint.healthy)
        check, spec = endpoint._check, cluster.spec
        cluster.adopt(spec, (endpoint.spec,))
        assert endpoint._check is check
        other = ClusterSpec(name="catalog", health_check=HealthCheckSpec(interval=60_000))
        cluster.adopt(other, (endpoint.spec,))
        assert endpoint._check is not check
        assert not endpoint.healthy
