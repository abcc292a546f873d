"""Lanes to one endpoint: one for each relay, and none where none can be had; over real sockets."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from meshproxy.codec.segments import segment
from meshproxy.contract.resources import ClusterSpec, EndpointSpec
from meshproxy.identity import tls
from meshproxy.policies.flow_sizes import LARGE, FlowSizes
from meshproxy.upstream.lanes import AVOID, LanePool
from tests.helpers.certificates import TestAuthority
from tests.helpers.environment import Environment, until
from tests.helpers.recorder import Recorder
from tests.meshproxy.upstream.test_pool import CATALOG


class Peer:
    """
    A sidecar that accepts every connection.

    Attributes:
        pool: Leads to it.
        heard: The first words that it was told.
        others: Relays for which there was no lane.
    """

    def __init__(self, environment: Environment, port: int) -> None:
        self.heard: list[bytes] = []
        self.others: list[Any] = []
        self.sizes = FlowSizes()
        self.sizes.observe(LARGE)
        endpoint = EndpointSpec(address="127.0.0.1", port=port, identities=(CATALOG,))
        self.pool = LanePool(
            ClusterSpec(name="catalog", mtls=True),
            endpoint, environment, self.sizes, self.others.append,
        )  # fmt: skip

    def connect(self) -> Recorder:
        relay = Recorder()
        self.pool.acquire(relay)
        return relay


@asynccontextmanager
async def peer(
    environment: Environment, folder: Path, *, alpn: str = tls.ALPN_LANE
) -> AsyncIterator[Peer]:
    authority = TestAuthority()
    ours = authority.issue("spiffe://test.mesh/ns/default/sa/storefront", folder, "a")
    environment.client_context = tls.client_context(*ours, authority.root)
    theirs = tls.server_context(*authority.issue(CATALOG, folder, "b"), authority.root)
    theirs.set_alpn_protocols([alpn])

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            size = int.from_bytes(await reader.readexactly(4), "big")
            made.heard.append(await reader.readexactly(size))
            writer.write(segment(b"accepted"))
            await reader.read()
        except (asyncio.IncompleteReadError, OSError):
            pass
        finally:
            writer.transport.abort()

    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=theirs)
    made = Peer(environment, server.sockets[0].getsockname()[1])
    yield made
    made.pool.close()
    await until(lambda: made.pool.carried == 0)
    server.close()


@pytest.fixture
async def environment() -> Environment:
    return Environment()


async def test_each_relay_has_its_own(environment: Environment, tmp_path: Path) -> None:
    """Asked for the endpoint; revocation finds them."""
    async with peer(environment, tmp_path) as there:
        relays = [there.connect() for _ in range(3)]
        assert there.pool.carried == 3
        await until(lambda: all("on_upstream_connected" in relay.words for relay in relays))
        assert there.pool.statistics()["connections"] == there.pool.carried == 3
        port = there.pool.endpoint.port
        assert there.heard == [b"127.0.0.1:%d" % port] * 3
        assert environment.pools == {there.pool}
        environment.revoked = frozenset({CATALOG})
        there.pool.expel()
        await until(lambda: there.pool.carried == 0)
        assert all("on_upstream_reset" in relay.words for relay in relays)
        assert there.others == []


async def test_who_has_left_gets_none(environment: Environment, tmp_path: Path) -> None:
    """What was dialled for it is closed: a lane is not kept for others."""
    async with peer(environment, tmp_path) as there:
        relay = there.connect()
        await asyncio.sleep(0)  # the dial has begun
        there.pool.forget(relay)
        await until(lambda: there.pool.statistics()["dialling"] == 0 and not there.pool.carried)
        assert relay.words == []
        assert there.pool.wanted


async def test_a_peer_that_knows_no_lanes(environment: Environment, tmp_path: Path) -> None:
    """It is spoken to on its trunk, and not asked again for a while; nobody is refused."""
    async with peer(environment, tmp_path, alpn=tls.ALPN_TCP) as there:
        relays = [there.connect() for _ in range(2)]
        await until(lambda: there.others == relays)
        assert [relay.words for relay in relays] == [[], []]
        assert there.heard == []
        assert not there.pool.wanted
        now = environment.now
        environment.now = lambda: now() + AVOID + 1
        assert there.pool.wanted


async def test_another_peer_is_asked_anew(environment: Environment, tmp_path: Path) -> None:
    """When the trunk has ended, which the one before it had: a newer sidecar may have taken its place."""
    async with peer(environment, tmp_path, alpn=tls.ALPN_TCP) as there:
        relay = there.connect()
        await until(lambda: there.others == [relay])
        assert not there.pool.wanted
        there.pool.forgive()
        assert there.pool.wanted


async def test_a_lane_that_has_done_its_work_does_not_count(
    environment: Environment, tmp_path: Path
) -> None:
    """However long it takes to close: a limit of connections is about what they carry."""
    async with peer(environment, tmp_path) as there:
        relay = there.connect()
        await until(lambda: "on_upstream_connected" in relay.words)
        lane = relay.heard[0][1]
        assert there.pool.carried == 1
        lane.send_end()
        lane.on_end()  # the peer has not acknowledged ours
        assert there.pool.carried == 0
        assert there.pool.statistics()["connections"] == 1
        there.pool.look()
        assert lane.usable


async def test_nobody_there(environment: Environment, tmp_path: Path) -> None:
    """The trunk will find out for itself, and say so."""
    async with peer(environment, tmp_path) as there:
        there.pool.endpoint = EndpointSpec(address="127.0.0.1", port=1, identities=(CATALOG,))
        relay = there.connect()
        await until(lambda: there.others == [relay])
        assert relay.words == []


async def test_only_where_much_is_carried(environment: Environment, tmp_path: Path) -> None:
    """As the last connections have shown."""
    async with peer(environment, tmp_path) as there:
        assert there.pool.wanted
        for _ in range(9):
            there.sizes.observe(100)
        assert not there.pool.wanted
