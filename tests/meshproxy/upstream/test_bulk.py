"""Connections for large bodies: there when the next one comes, and never stale; over real sockets."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from meshproxy.contract.policies import LimitsSpec
from meshproxy.contract.resources import ClusterSpec, EndpointSpec
from meshproxy.identity import tls
from meshproxy.policies.limits import Limits
from meshproxy.upstream.bulk import REST, BulkPool
from tests.helpers.certificates import TestAuthority
from tests.helpers.environment import Environment, until
from tests.meshproxy.upstream.test_pool import CATALOG, FakeExchange


@asynccontextmanager
async def peer(
    environment: Environment, folder: Path, *, alpn: str = tls.ALPN_HTTP1, connections: int = 9
) -> AsyncIterator[BulkPool]:
    """A sidecar that answers every request, and the pool that leads to it."""
    authority = TestAuthority()
    ours = authority.issue("spiffe://test.mesh/ns/default/sa/storefront", folder, "a")
    environment.client_context = tls.client_context(*ours, authority.root)
    theirs = tls.server_context(*authority.issue(CATALOG, folder, "b"), authority.root)
    theirs.set_alpn_protocols([alpn])

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                await reader.readuntil(b"\r\n\r\n")
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
        except (asyncio.IncompleteReadError, OSError):
            pass
        finally:
            writer.transport.abort()

    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=theirs)
    endpoint = EndpointSpec(
        address="127.0.0.1", port=server.sockets[0].getsockname()[1], identities=(CATALOG,)
    )
    limits = Limits(LimitsSpec(connections=connections))
    pool = BulkPool(
        ClusterSpec(name="catalog", mtls=True), endpoint, environment, limits, Limits(LimitsSpec())
    )
    yield pool
    pool.close()
    await until(lambda: pool.statistics()["connections"] == 0)
    server.close()


def idle(pool: BulkPool) -> int:
    return pool.statistics()["idle"]


def lend(pool: BulkPool) -> FakeExchange | None:
    exchange = FakeExchange()
    return exchange if pool.lend(exchange) else None


@pytest.fixture
async def environment() -> Environment:
    return Environment()


async def test_the_next_one_finds_a_connection(environment: Environment, tmp_path: Path) -> None:
    """The first is sent away at once; what was dialled for it serves all that come after."""
    async with peer(environment, tmp_path) as pool:
        assert lend(pool) is None
        await until(lambda: idle(pool) == 1)
        for _ in range(3):
            exchange = lend(pool)
            assert exchange is not None
            await until(lambda exchange=exchange: exchange.over)  # type: ignore[misc]
            assert exchange.failure is None
        assert pool.statistics() == {"connections": 1, "idle": 1, "dialling": 0, "waiting": 0}


async def test_as_many_as_there_are_bodies_at_once(
    environment: Environment, tmp_path: Path
) -> None:
    """And not more than the limits of connections admit."""
    async with peer(environment, tmp_path, connections=3) as pool:
        assert not any(lend(pool) for _ in range(5))
        await until(lambda: idle(pool) == 3)
        assert all(lend(pool) for _ in range(3))
        assert lend(pool) is None
        assert pool.statistics()["dialling"] == 0


async def test_what_has_rested_too_long_is_not_used(
    environment: Environment, tmp_path: Path
) -> None:
    """Its other end might just close it, and a large body cannot be sent twice."""
    async with peer(environment, tmp_path) as pool:
        lend(pool)
        await until(lambda: idle(pool) == 1)
        now = environment.now
        environment.now = lambda: now() + REST + 0.1
        assert lend(pool) is None
        await until(lambda: idle(pool) == 1)  # a new one
        environment.now = lambda: now() + 2 * (REST + 0.1)
        pool.sweep(environment.now())
        assert idle(pool) == 0


async def test_none_to_a_peer_that_does_not_speak_it(
    environment: Environment, tmp_path: Path
) -> None:
    """Whatever it has agreed to instead: it hears nothing."""
    async with peer(environment, tmp_path, alpn=tls.ALPN_HTTP2) as pool:
        assert lend(pool) is None
        await until(lambda: pool.statistics()["dialling"] == 0)
        assert pool.statistics()["connections"] == 0


async def test_a_retired_pool_dials_no_more(environment: Environment, tmp_path: Path) -> None:
    """The endpoint has gone from the configuration while a connection was made for it."""
    async with peer(environment, tmp_path) as pool:
        lend(pool)
        pool.retire()
        await until(lambda: set(pool.statistics().values()) == {0})
