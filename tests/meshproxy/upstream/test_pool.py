"""Connections to one endpoint: borrowed, given back, dialled, over real sockets."""

import asyncio
import contextlib
import logging
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec
import pytest

from meshproxy.contract.policies import LimitsSpec
from meshproxy.contract.resources import ClusterSpec, EndpointSpec
from meshproxy.identity import tls
from meshproxy.message import TUNNEL, RequestHead
from meshproxy.policies.limits import Limits
from meshproxy.upstream.http1 import Http1Connection
from meshproxy.upstream.pool import DIALS_AT_ONCE, Pool
from tests.helpers.certificates import TestAuthority
from tests.helpers.environment import Environment, until
from tests.helpers.http2 import Wire
from tests.helpers.origin import Conversation, Origin, hello, origin
from tests.helpers.ports import free_port
from tests.helpers.recorder import Recorder
from tests.helpers.transport import FakeTransport, unanswered

NOTHING = {"connections": 0, "idle": 0, "dialling": 0, "waiting": 0}
CATALOG = "spiffe://test.mesh/ns/default/sa/catalog"


class FakeExchange(Recorder):
    """Asks one thing and remembers what came of it."""

    def __init__(self, head: RequestHead | None = None) -> None:
        super().__init__()
        self.head = head or RequestHead(b"GET", b"catalog", b"/", [])
        self.upstream: Http1Connection | None = None
        self.failure: str | None = None

    def on_upstream_ready(self, upstream: Http1Connection) -> None:
        self.upstream = upstream
        upstream.send_head(self.head)
        upstream.send_end(None)

    def on_upstream_failed(self, code: str) -> None:
        self.failure = code

    def on_response_reset(self, code: str, *, reused: bool) -> None:
        self.failure = code

    @property
    def over(self) -> bool:
        return self.failure is not None or "on_response_end" in self.words


@pytest.fixture
async def environment() -> Environment:
    return Environment()


@pytest.fixture
async def app() -> AsyncIterator[Origin]:
    async with origin(hello) as app:
        yield app


def pool_of(
    port: int,
    environment: Environment,
    connections: int = 1024,
    pending: int = 1024,
    **options: int,
) -> Pool:
    endpoint = EndpointSpec(address="127.0.0.1", port=port)
    limits = LimitsSpec(connections=connections, pending=pending)
    cluster = ClusterSpec(name="app", endpoint_limits=limits, **options)  # type: ignore[arg-type]
    return Pool(cluster, endpoint, environment, Limits(limits), Limits(LimitsSpec()))


def ask(pool: Pool, count: int = 1) -> list[FakeExchange]:
    exchanges = [FakeExchange() for _ in range(count)]
    for exchange in exchanges:
        pool.acquire(exchange)
    return exchanges


async def answered(exchanges: list[FakeExchange]) -> None:
    await until(lambda: all(exchange.over for exchange in exchanges))
    assert {exchange.failure for exchange in exchanges} == {None}


async def test_a_connection_is_used_again(environment: Environment, app: Origin) -> None:
    """The second request finds the connection of the first."""
    pool = pool_of(app.port, environment)
    for _ in range(3):
        await answered(ask(pool))
    assert (app.connections, len(app.requests)) == (1, 3)
    assert pool.statistics() == {"connections": 1, "idle": 1, "dialling": 0, "waiting": 0}
    pool.close()
    counts = environment.connections_to("inbound")
    await until(lambda: counts.closed == 1)
    assert (counts.opened, counts.active) == (1, 0)


async def test_a_burst_dials_a_few(environment: Environment, app: Origin) -> None:
    """200 requests at once are served by a few connections, each in its turn."""
    pool = pool_of(app.port, environment)
    exchanges = ask(pool, 200)
    assert pool.statistics()["dialling"] == DIALS_AT_ONCE
    await answered(exchanges)
    assert len(app.requests) == 200
    pool.close()


async def test_limits_of_connections_and_of_the_line(environment: Environment, app: Origin) -> None:
    """Above the limit of connections requests wait, above that of the pending they are refused."""
    pool = pool_of(app.port, environment, connections=2, pending=10)
    exchanges = ask(pool, 12)
    assert [exchange.failure for exchange in exchanges] == [None] * 10 + ["overflow"] * 2
    await answered(exchanges[:10])
    assert app.connections <= 2
    pool.close()


async def test_a_tunnel_counts_and_never_comes_back(environment: Environment) -> None:
    """It is a connection of the endpoint's for as long as it lives, also for who closes the pool."""

    async def switch(conversation: Conversation) -> None:
        await conversation.send(
            b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: own\r\n\r\n"
        )
        if await conversation.reader.read(1) == b"":
            raise ConnectionError

    def upgrade() -> FakeExchange:
        head = RequestHead(b"GET", b"catalog", b"/", [], TUNNEL)
        head.upgrade = b"own"
        return FakeExchange(head)

    async with origin(switch) as app:
        pool = pool_of(app.port, environment, connections=2)
        several = [upgrade() for _ in range(3)]
        for exchange in several:
            pool.acquire(exchange)
        await until(lambda: sum("on_response_head" in exchange.words for exchange in several) == 2)
        assert pool.statistics() == {"connections": 2, "idle": 0, "dialling": 0, "waiting": 1}
        [tunnel] = [call[1] for call in several[0].heard if call[0] == "on_upstream_switched"]
        tunnel.reset()
        await until(lambda: "on_response_head" in several[2].words)
        [tunnel] = [call[1] for call in several[2].heard if call[0] == "on_upstream_switched"]
        there, tunnel.transport = tunnel.transport, FakeTransport()
        with unanswered() as tunnel.transport.socket:
            pool.look()  # nobody is at its other end any more
            assert tunnel.transport.state == "aborted"
        tunnel.transport = there
        pool.close()
        await until(lambda: environment.connections_to("inbound").active == 0)
        assert [exchange.failure for exchange in several[1:]] == ["upstream-closed"] * 2


async def test_who_leaves_the_line_is_not_served(environment: Environment, app: Origin) -> None:
    """And a dial that nobody waits for any more is not begun."""
    pool = pool_of(app.port, environment)
    [exchange] = ask(pool)
    pool.forget(exchange)
    await until(lambda: not pool.statistics()["dialling"])
    assert (exchange.upstream, app.connections) == (None, 0)
    pool.close()


async def test_a_connection_that_was_closed_is_not_lent(environment: Environment) -> None:
    """The server closes after each answer; nobody gets the dead connection."""

    async def closes(conversation: Conversation) -> None:
        await hello(conversation)
        conversation.writer.close()

    async with origin(closes) as app:
        pool = pool_of(app.port, environment)
        for number in range(1, 4):
            await answered(ask(pool))
            await until(lambda: pool.statistics()["connections"] == 0)
            assert app.connections == number
        pool.close()


@pytest.mark.parametrize("address", ["127.0.0.1", "a" * 70 + ".example", "nul\0byte"])
async def test_nobody_there(environment: Environment, address: str) -> None:
    """All who wait are told, also when the address is no address at all."""
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        endpoint = EndpointSpec(address=address, port=silent.getsockname()[1])
        pool = Pool(
            ClusterSpec(name="app"),
            endpoint,
            environment,
            Limits(LimitsSpec()),
            Limits(LimitsSpec()),
        )
        exchanges = ask(pool, 20)
        await until(lambda: all(exchange.over for exchange in exchanges))

    assert {exchange.failure for exchange in exchanges} == {"connect-failed"}
    await until(lambda: set(pool.statistics().values()) == {0})


async def test_a_failure_is_logged_when_it_begins_and_when_it_ends(
    environment: Environment, caplog: pytest.LogCaptureFixture
) -> None:
    """Where and why, for the operator, at WARNING: once, however often it is tried."""
    caplog.set_level(logging.INFO, "meshproxy.upstream")
    async with origin(hello) as app:
        port = app.port
    pool = pool_of(port, environment)
    for _ in range(3):
        [exchange] = ask(pool)
        await until(lambda exchange=exchange: exchange.over)  # type: ignore[misc]
    where = f"app at 127.0.0.1:{port}"
    assert [(entry.levelname, entry.message) for entry in caplog.records] == [
        ("WARNING", f"{where}: cannot connect: Connection refused (errno 111)")
    ]
    async with origin(hello, port=port):
        await answered(ask(pool))
        assert caplog.records[1].message == f"{where}: connected again"
        pool.close()


async def test_a_server_that_never_accepts_times_out(environment: Environment) -> None:
    """A full backlog drops our SYN: the connect timeout ends the wait."""
    with socket.socket() as full:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        port = full.getsockname()[1]
        others = [socket.socket() for _ in range(4)]
        try:
            for other in others:
                other.setblocking(False)
                other.connect_ex(("127.0.0.1", port))
            pool = pool_of(port, environment, connect_timeout=100)
            [exchange] = ask(pool)
            await until(lambda: exchange.over)
        finally:
            for other in others:
                other.close()

    assert exchange.failure == "connect-timeout"
    assert set(pool.statistics().values()) == {0}


async def test_idle_connections_grow_old(environment: Environment, app: Origin) -> None:
    """Those unused for the idle timeout are closed, others stay."""
    pool = pool_of(app.port, environment, idle_timeout=1000)
    await answered(ask(pool))
    pool.sweep(environment.now() + 0.5)
    assert pool.statistics()["idle"] == 1
    pool.sweep(environment.now() + 1.5)
    await until(lambda: pool.statistics()["connections"] == 0)
    assert pool.statistics()["idle"] == 0


async def test_a_retired_pool_finishes_and_keeps_nothing(environment: Environment) -> None:
    """Idle connections close at once, a busy one after its answer; who waits is still served."""
    go = asyncio.Event()

    async def waits(conversation: Conversation) -> None:
        await go.wait()
        await hello(conversation)

    async with origin(waits) as app:
        pool = pool_of(app.port, environment, connections=1)
        exchanges = ask(pool, 2)
        await until(lambda: len(app.requests) == 1)
        pool.retire()
        go.set()
        await answered(exchanges)
        await until(lambda: pool.statistics()["connections"] == 0)
        assert (app.connections, len(app.requests)) == (1, 2)


# Mutual TLS ---------------------------------------------------------------------------------------


class Peer:
    """A TLS server that proves an identity and counts what it was told."""

    def __init__(self) -> None:
        self.heard = b""
        self.port = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            self.heard += await reader.readuntil(b"\r\n\r\n")
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
            await reader.read()
        except (asyncio.IncompleteReadError, OSError):
            pass
        finally:
            writer.transport.abort()


@pytest.mark.parametrize(
    ("proved", "same_roots", "failure"),
    [
        (CATALOG, True, None),
        ("spiffe://test.mesh/ns/default/sa/evil", True, "peer-identity-mismatch"),
        ("spiffe://other.mesh/ns/default/sa/catalog", True, "peer-identity-mismatch"),
        (CATALOG, False, "handshake-failed"),
    ],
)
async def test_not_a_byte_goes_to_a_peer_that_is_not_the_expected_one(
    environment: Environment, tmp_path: Path, proved: str, same_roots: bool, failure: str | None
) -> None:
    """Another identity, another trust domain or another authority: nothing is said to it."""
    authority = TestAuthority()
    issuer = authority if same_roots else TestAuthority()
    ours = authority.issue("spiffe://test.mesh/ns/default/sa/storefront", tmp_path, "a")
    environment.client_context = tls.client_context(*ours, authority.root)
    theirs = tls.server_context(*issuer.issue(proved, tmp_path, "b"), authority.root)
    theirs.set_alpn_protocols([tls.ALPN_HTTP1])
    peer = Peer()
    server = await asyncio.start_server(peer.serve, "127.0.0.1", 0, ssl=theirs)
    endpoint = EndpointSpec(
        address="127.0.0.1", port=server.sockets[0].getsockname()[1], identities=(CATALOG,)
    )
    pool = Pool(
        ClusterSpec(name="catalog", mtls=True),
        endpoint,
        environment,
        Limits(LimitsSpec()),
        Limits(LimitsSpec()),
    )
    [exchange] = ask(pool)
    await until(lambda: exchange.over)

    assert exchange.failure == failure
    assert bool(peer.heard) == (failure is None)
    assert len(environment.failed_handshakes) == (failure is not None)
    assert set(pool.statistics().values()) == {0} or failure is None
    pool.close()
    await until(lambda: pool.statistics()["connections"] == 0)
    server.close()


async def test_a_revoked_peer_is_cut_off_and_not_called_again(
    environment: Environment, tmp_path: Path
) -> None:
    """The connection that stands ends, and nothing is said on the next one."""
    authority = TestAuthority()
    ours = authority.issue("spiffe://test.mesh/ns/default/sa/storefront", tmp_path, "a")
    environment.client_context = tls.client_context(*ours, authority.root)
    theirs = tls.server_context(*authority.issue(CATALOG, tmp_path, "b"), authority.root)
    theirs.set_alpn_protocols([tls.ALPN_HTTP1])
    peer = Peer()
    server = await asyncio.start_server(peer.serve, "127.0.0.1", 0, ssl=theirs)
    endpoint = EndpointSpec(
        address="127.0.0.1", port=server.sockets[0].getsockname()[1], identities=(CATALOG,)
    )
    pool = Pool(
        ClusterSpec(name="catalog", mtls=True),
        endpoint,
        environment,
        Limits(LimitsSpec()),
        Limits(LimitsSpec()),
    )
    assert pool not in environment.pools
    [exchange] = ask(pool)
    await until(lambda: exchange.over)
    assert pool in environment.pools
    environment.revoked = frozenset({"spiffe://test.mesh/ns/default/sa/reviews"})
    pool.expel()
    assert pool.statistics()["connections"] == 1
    environment.revoked = frozenset({CATALOG})
    pool.expel()
    await until(lambda: pool.statistics()["connections"] == 0)
    assert pool not in environment.pools
    heard = len(peer.heard)
    [exchange] = ask(pool)
    await until(lambda: exchange.over)

    assert exchange.failure == "identity-revoked"
    assert environment.failed_handshakes == ["identity-revoked"]
    assert len(peer.heard) == heard
    server.close()


async def test_without_a_certificate_nobody_is_called(environment: Environment) -> None:
    """Mutual TLS never falls back to plaintext."""
    endpoint = EndpointSpec(address="127.0.0.1", port=1, identities=(CATALOG,))
    pool = Pool(
        ClusterSpec(name="catalog", mtls=True),
        endpoint,
        environment,
        Limits(LimitsSpec()),
        Limits(LimitsSpec()),
    )
    [exchange] = ask(pool)
    await until(lambda: exchange.over)

    assert exchange.failure == "not-ready"


# HTTP/2 -------------------------------------------------------------------------------------------


class Sharing:
    """
    An HTTP/2 server (of another library than ours) that answers when the test says so.

    Attributes:
        streams: Requests that wait for an answer: their connection and number.
    """

    def __init__(self, **settings: int) -> None:
        self.connections: list[tuple[asyncio.StreamWriter, Wire]] = []
        self.streams: list[tuple[int, int]] = []
        self._settings = settings

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        wire = Wire()
        number = len(self.connections)
        self.connections.append((writer, wire))
        writer.write(wire.settings(**self._settings))
        with contextlib.suppress(OSError):
            while data := await reader.read(65536):
                for heard in wire.hear(data):
                    if heard.kind == "Headers":
                        self.streams.append((number, heard.stream))
        writer.close()

    def answer(self, *, most: int = 10_000) -> None:
        for number, stream in self.streams[:most]:
            writer, wire = self.connections[number]
            writer.write(wire.headers(stream, [(":status", "204")]))
        del self.streams[:most]


@asynccontextmanager
async def sharing(environment: Environment, **settings: int) -> AsyncIterator[tuple[Sharing, Pool]]:
    peer = Sharing(**settings)
    server = await asyncio.start_server(peer.serve, "127.0.0.1", 0)
    endpoint = EndpointSpec(address="127.0.0.1", port=server.sockets[0].getsockname()[1])
    pool = Pool(
        ClusterSpec(name="app", protocol="http2"),
        endpoint,
        environment,
        Limits(LimitsSpec()),
        Limits(LimitsSpec()),
    )
    try:
        yield peer, pool
    finally:
        pool.close()
        await until(lambda: pool.statistics()["connections"] == 0)
        server.close()


async def test_all_share_one_connection(environment: Environment) -> None:
    """A burst of requests waits for the one dial; then they are all under way at once."""
    async with sharing(environment) as (peer, pool):
        exchanges = ask(pool, 90)
        assert pool.statistics()["dialling"] == 1
        await until(lambda: len(peer.streams) == 90)
        assert len(peer.connections) == 1
        peer.answer()
        await answered(exchanges)
        await until(lambda: pool.statistics() == {**NOTHING, "connections": 1, "idle": 1})


async def test_a_second_one_when_the_peer_takes_no_more(environment: Environment) -> None:
    """And whoever waits gets the first stream that ends, on whichever connection."""
    async with sharing(environment, s3=4) as (peer, pool):
        first = ask(pool)
        await until(lambda: peer.streams)
        exchanges = first + ask(pool, 9)
        await until(lambda: len(peer.streams) == 10)
        assert [number for number, _ in peer.streams].count(0) == 4
        assert len(peer.connections) == 2  # of the second one's limit nothing was known yet
        peer.answer()
        await answered(exchanges)


async def test_a_connection_that_goes_away_is_replaced(environment: Environment) -> None:
    """What is under way on it ends there; the next request dials anew."""
    async with sharing(environment) as (peer, pool):
        [under_way] = ask(pool)
        await until(lambda: peer.streams)
        writer, wire = peer.connections[0]
        writer.write(wire.goaway(1))
        await until(lambda: not pool._shared)
        [next_one] = ask(pool)
        await until(lambda: len(peer.streams) == 2)
        assert [number for number, _ in peer.streams] == [0, 1]
        peer.answer()
        await answered([under_way, next_one])
        await until(lambda: pool.statistics()["connections"] == 1)


async def test_idle_and_retired_shared_connections_say_goodbye(environment: Environment) -> None:
    """One that nobody has needed for long; and all of them when their endpoint is gone."""
    async with sharing(environment) as (peer, pool):
        for end in ("idle", "retired"):
            exchanges = ask(pool)
            await until(lambda: peer.streams)
            pool.sweep(environment.now() + 61)
            assert pool.statistics()["connections"] == 1, "it is in use"
            peer.answer()
            await answered(exchanges)
            await until(lambda: pool.statistics()["idle"] == 1)
            if end == "idle":
                pool.sweep(environment.now() + 62)  # sees that it has served since the last time
                assert pool.statistics()["connections"] == 1
                pool.sweep(environment.now() + 124)
            else:
                pool.retire()
            await until(lambda: pool.statistics()["connections"] == 0)


async def test_an_old_connection_takes_no_more_requests(
    environment: Environment, app: Origin
) -> None:
    """One that rests is closed, one that is busy when its answer is complete; nothing is cut."""
    pool = pool_of(app.port, environment, max_connection_age=20)
    counts = environment.connections_to("inbound")
    await answered(ask(pool))
    await until(lambda: counts.closed == 1)
    await answered(ask(pool))
    assert app.connections == 2
    pool.close()


async def test_an_old_connection_finishes_what_it_has(environment: Environment) -> None:
    """The answer comes long after the connection has reached its age."""
    proceed = asyncio.Event()

    async def slowly(conversation: Conversation) -> None:
        await proceed.wait()
        await hello(conversation)

    async with origin(slowly) as app:
        pool = pool_of(app.port, environment, max_connection_age=10)
        exchanges = ask(pool)
        await until(lambda: app.requests)
        await until(lambda: not pool._ages)
        assert not exchanges[0].over
        proceed.set()
        await answered(exchanges)
        await until(lambda: pool.statistics() == NOTHING)
        await answered(ask(pool))
        assert app.connections == 2
        pool.close()


async def test_connections_do_not_grow_old_together(environment: Environment, app: Origin) -> None:
    """Ages differ by a tenth both ways, and timers go with their connections."""
    points = iter((0.0, 1.0, 0.5))
    environment.random = lambda: next(points)
    pool = pool_of(app.port, environment, max_connection_age=1_000_000)
    before = environment.loop.time()
    await answered(ask(pool, 3))
    await until(lambda: len(pool._ages) == 3)
    due = sorted(round(timer.when() - before, -1) for timer in pool._ages.values())
    assert due == [900, 1_000, 1_100]
    pool.close()
    await until(lambda: not pool._ages)


async def test_an_old_shared_connection_finishes_its_streams(environment: Environment) -> None:
    """New requests get a new connection at once; the old one is closed after its last answer."""
    async with sharing(environment) as (peer, pool):
        pool.cluster = msgspec.structs.replace(pool.cluster, max_connection_age=20)
        under_way = ask(pool)
        await until(lambda: peer.streams)
        await until(lambda: not pool._shared)
        pool.cluster = msgspec.structs.replace(pool.cluster, max_connection_age=None)
        later = ask(pool)
        await until(lambda: len(peer.streams) == 2)
        assert [number for number, _ in peer.streams] == [0, 1]
        peer.answer()
        await answered(under_way + later)
        await until(lambda: pool.statistics() == {**NOTHING, "connections": 1, "idle": 1})


# Limits of the whole cluster -----------------------------------------------------------------------


async def test_limits_are_shared_by_the_endpoints_of_a_cluster(environment: Environment) -> None:
    """Together they have so many connections and so long a line; each may have one connection."""
    gate = asyncio.Event()

    async def slowly(conversation: Conversation) -> None:
        await gate.wait()
        await hello(conversation)

    shared = Limits(LimitsSpec(connections=3, pending=6))
    async with origin(slowly) as first, origin(slowly) as second:
        pools = []
        for app in (first, second):
            endpoint = EndpointSpec(address="127.0.0.1", port=app.port)
            own = Limits(LimitsSpec())
            pools.append(Pool(ClusterSpec(name="app"), endpoint, environment, own, shared))
        exchanges = ask(pools[0], 5)
        assert pools[0].statistics()["dialling"] == shared.connections.count == 3
        exchanges += ask(pools[1], 3)
        assert pools[1].statistics()["dialling"] == 1
        assert [exchange.failure for exchange in exchanges] == [None] * 6 + ["overflow"] * 2
        assert shared.pending.count == 6
        await until(lambda: first.requests and second.requests)
        gate.set()
        await answered(exchanges[:6])
        assert (shared.pending.count, first.connections, second.connections) == (0, 3, 1)
        counted = dict(environment.metrics.counts().counters["overflows"])
        assert counted["app", "cluster", "pending"] == 2
        assert counted["app", "cluster", "connections"] >= 1
        for pool in pools:
            pool.close()
        await until(lambda: shared.connections.count == 0)


async def test_what_fails_or_leaves_gives_its_place_back(environment: Environment) -> None:
    """A dial that fails, an exchange that waits no longer, a connection that is lost."""
    shared = Limits(LimitsSpec(connections=3, pending=6))
    endpoint = EndpointSpec(address="127.0.0.1", port=free_port())
    pool = Pool(ClusterSpec(name="app"), endpoint, environment, Limits(LimitsSpec()), shared)
    exchanges = ask(pool, 3)
    pool.forget(exchanges[0])
    assert shared.pending.count == 2
    await until(lambda: all(exchange.failure for exchange in exchanges[1:]))
    await until(lambda: shared.connections.count == 0)
    assert shared.pending.count == 0
