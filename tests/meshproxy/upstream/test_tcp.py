"""TCP connections to an app, over real sockets."""

import asyncio
import contextlib
import gc
import logging
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from meshproxy.contract.resources import ClusterSpec, EndpointSpec
from meshproxy.relay import Side
from meshproxy.upstream.tcp import Sockets
from tests.helpers.environment import Environment, until
from tests.helpers.ports import free_port
from tests.helpers.recorder import Recorder


class FakeRelay(Recorder):
    """Says `ask` as soon as it can, and remembers the answer."""

    def __init__(self) -> None:
        super().__init__()
        self.upstream: Side | None = None
        self.bytes = b""

    def on_upstream_ready(self, upstream: Side) -> None:
        self.upstream = upstream
        upstream.send_data(b"ask")

    def on_upstream_data(self, data: memoryview) -> None:
        self.bytes += data


@pytest.fixture
async def environment() -> Environment:
    return Environment()


@asynccontextmanager
async def app() -> AsyncIterator[tuple[int, list[socket.socket]]]:
    """Accept connections, and give them to the test."""
    loop = asyncio.get_running_loop()
    accepted: list[socket.socket] = []
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.setblocking(False)

        def accept() -> None:
            sock, _ = server.accept()
            sock.setblocking(False)
            accepted.append(sock)

        loop.add_reader(server, accept)
        try:
            yield server.getsockname()[1], accepted
        finally:
            loop.remove_reader(server)
            for sock in accepted:
                sock.close()


def sockets(port: int, environment: Environment, **options: int) -> Sockets:
    cluster = ClusterSpec(name="app", **options)  # type: ignore[arg-type]
    return Sockets(cluster, EndpointSpec(address="127.0.0.1", port=port), environment)


def begin(sockets: Sockets) -> FakeRelay:
    relay = FakeRelay()
    sockets.connect(relay)
    return relay


async def received(sock: socket.socket) -> bytes:
    async with asyncio.timeout(30):
        return await asyncio.get_running_loop().sock_recv(sock, 4096)


async def test_one_connection_for_each_relay(environment: Environment) -> None:
    """Bytes, pace and end pass; when both halves have ended it is gone."""
    async with app() as (port, accepted):
        to_app = sockets(port, environment)
        relay = begin(to_app)
        assert to_app.statistics() == {"connections": 0, "dialling": 1}
        await until(lambda: relay.words == ["on_upstream_connected"])
        assert to_app.statistics() == {"connections": 1, "dialling": 0}
        assert await received(accepted[0]) == b"ask"
        accepted[0].send(b"answer")
        accepted[0].shutdown(socket.SHUT_WR)
        await until(lambda: "on_upstream_end" in relay.words)
        assert relay.bytes == b"answer"
        assert relay.upstream is not None
        relay.upstream.send_end()
        assert await received(accepted[0]) == b""
        await until(lambda: to_app.statistics()["connections"] == 0)
    counts = environment.connections_to("inbound")
    assert (counts.opened, counts.closed) == (1, 1)
    assert relay.words == ["on_upstream_connected", "on_upstream_end"]


async def test_a_lost_connection_is_a_reset(environment: Environment) -> None:
    """Whether the app resets it or everything is ended here."""
    async with app() as (port, accepted):
        to_app = sockets(port, environment)
        first, second = begin(to_app), begin(to_app)
        await until(lambda: len(accepted) == 2 and to_app.statistics()["connections"] == 2)
        for sock in accepted:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        accepted.pop(0).close()
        await until(lambda: ("on_upstream_reset", "upstream-reset") in first.heard + second.heard)
        to_app.close()
        await until(lambda: to_app.statistics()["connections"] == 0)


async def test_a_relay_that_ends_it_hears_nothing_more(environment: Environment) -> None:
    """The app gets a reset."""
    async with app() as (port, accepted):
        to_app = sockets(port, environment)
        relay = begin(to_app)
        await until(lambda: relay.upstream is not None and len(accepted) == 1)
        assert await received(accepted[0]) == b"ask"
        assert relay.upstream is not None
        relay.upstream.reset()
        with pytest.raises(ConnectionResetError):
            await received(accepted[0])
        await until(lambda: to_app.statistics()["connections"] == 0)
        assert relay.words == ["on_upstream_connected"]


@pytest.mark.parametrize("turns", [0, 1, 2])
async def test_who_changes_its_mind_leaves_nothing(environment: Environment, turns: int) -> None:
    """At once, it is not even dialled; while it is, nobody hears of it, the log included."""
    complaints: list[object] = []
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda _, context: complaints.append(context))
    async with app() as (port, accepted):
        to_app = sockets(port, environment)
        relay = begin(to_app)
        for _ in range(turns):
            await asyncio.sleep(0)
        to_app.disconnect(relay)
        assert to_app.statistics()["dialling"] == 0
        second = begin(to_app)  # behind it
        await until(lambda: second.upstream is not None and len(accepted) >= 1)
        if not turns:
            assert len(accepted) == 1
        to_app.close()
        await until(lambda: to_app.statistics()["connections"] == 0)
    assert relay.heard == []
    gc.collect()
    assert complaints == []


async def test_nobody_there_is_said_once(
    environment: Environment, caplog: pytest.LogCaptureFixture
) -> None:
    """Each relay is told; the log says it when it begins and when it is over."""
    caplog.set_level(logging.INFO)
    port = free_port()
    to_app = sockets(port, environment)
    relays = [begin(to_app), begin(to_app)]
    failed = [("on_upstream_failed", "connect-failed")]
    await until(lambda: [relay.heard for relay in relays] == [failed, failed])
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert caplog.records[0].message.endswith("cannot connect: Connection refused (errno 111)")

    with contextlib.closing(socket.socket()) as server:
        server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        server.bind(("127.0.0.1", port))
        server.listen()
        relay = begin(to_app)
        await until(lambda: relay.upstream is not None)
        assert caplog.records[-1].message == f"app at 127.0.0.1:{port}: connected again"
        to_app.close()
        await until(lambda: to_app.statistics()["connections"] == 0)


async def test_silence_has_a_limit(environment: Environment) -> None:
    """A full backlog answers nothing; who no longer waits is told nothing."""
    with socket.create_server(("127.0.0.1", 0), backlog=0) as server:
        port = server.getsockname()[1]
        with contextlib.ExitStack() as stack:
            for _ in range(4):
                filler = stack.enter_context(socket.socket())
                filler.setblocking(False)
                filler.connect_ex(("127.0.0.1", port))
            to_app = sockets(port, environment, connect_timeout=50)
            patient, gone = begin(to_app), begin(to_app)
            to_app.disconnect(gone)
            to_app.disconnect(gone)
            await until(lambda: patient.heard == [("on_upstream_failed", "connect-timeout")])
            assert gone.heard == []
            assert to_app.statistics() == {"connections": 0, "dialling": 0}
