"""
A host that vanishes without a word: who spoke with it learns that, whatever was on its way.

Two sidecars in a network namespace, between which a packet filter lets nothing pass any more: each has
vanished for the other.  The kernel counts whole seconds, and they are few here (`HASTY`); how many there
are without that, `tests/meshproxy/test_tunnel.py` says.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from meshproxy.contract.resources import ClusterSpec, EndpointSpec
from meshproxy.tunnel import Vigilance
from meshproxy.upstream import bulk, tcp
from meshproxy.upstream.http1 import Http1Connection
from tests.helpers.client import Client, connect
from tests.helpers.environment import Environment, until
from tests.helpers.namespaces import Namespace, inside, needs_namespaces
from tests.helpers.pair import Sidecar, until_ready
from tests.helpers.tcp_pair import TcpPair
from tests.integration.test_lanes import lanes
from tests.integration.test_tcp import served, teach
from tests.meshproxy.upstream.test_bulk import peer
from tests.meshproxy.upstream.test_pool import FakeExchange
from tests.meshproxy.upstream.test_tcp import FakeRelay

pytestmark = [pytest.mark.integration, needs_namespaces]

HASTY = """
from meshproxy import tunnel
tunnel.SIDECARS = tunnel.Vigilance(1, 1, 2)  # before others ask for it
from meshproxy import traffic
from meshproxy.downstream import listener
traffic.SWEEP, listener.LOOKS = 1.0, 1
from meshproxy.__main__ import main
main()
"""


class App:
    """
    Does what the first byte of a connection says, and remembers how it has ended.

    Attributes:
        ends: By that byte.
    """

    def __init__(self) -> None:
        self.ends: dict[str, str] = {}
        self.speak = asyncio.Event()

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        what = (await reader.read(1)).decode()
        if what == "\0":  # of `teach`
            while await reader.read(1 << 20):
                pass
            return
        writer.write(what.encode())
        try:
            if what in "Dd":  # down
                await self.speak.wait()
                writer.write(b"much to say" * 100)
            elif what in "Ff":  # full
                await self.speak.wait()
            await reader.read()
            self.ends[what] = "end"
        except ConnectionError as error:
            self.ends[what] = type(error).__name__


def start(sidecar: Sidecar) -> None:
    sidecar.process = sidecar.launch(program=("-c", HASTY))
    until_ready(sidecar.admin, sidecar.process, sidecar.log)


@contextlib.asynccontextmanager
async def running(pair: TcpPair) -> AsyncIterator[None]:
    try:
        for sidecar in (pair.b, pair.a):
            await asyncio.to_thread(start, sidecar)
        yield
    finally:
        for sidecar in (pair.a, pair.b):
            if hasattr(sidecar, "process"):
                sidecar.__exit__()


@pytest.fixture
def namespace() -> Iterator[Namespace]:
    made = Namespace()
    try:
        yield made
    finally:
        made.close()


async def stalled(client: Client) -> None:
    """Say more than anybody takes."""
    transport = client.writer.transport
    client.writer.write(bytes(32 << 20))
    before = -1
    while before != transport.get_write_buffer_size():
        before = transport.get_write_buffer_size()
        await asyncio.sleep(0.3)
    assert before


def cut(namespace: Namespace, port: int) -> None:
    """Let nothing pass any more from this port or to it."""
    for end in ("--sport", "--dport"):
        rule = ("-A", "INPUT", "-p", "tcp", end, str(port), "-j", "DROP")
        namespace.run("iptables", *rule).check_returncode()


async def end_of(client: Client) -> str:
    """Return how a connection ends, as the app does."""
    try:
        while await client.reader.read(1 << 20):
            pass
    except ConnectionError as error:
        return type(error).__name__
    return "end"


async def test_whatever_was_on_its_way(namespace: Namespace, tmp_path: Path) -> None:
    """
    On the trunk (capitals) and on lanes: on connections that are silent, with bytes on their way up,
    or down, and where somebody did not read.  Client and app see a reset each, and nothing is left.
    """
    app = App()
    async with contextlib.AsyncExitStack() as stack:
        stack.enter_context(inside(namespace))
        for buffers in ("tcp_rmem", "tcp_wmem"):  # or they grow to more than `stalled` says
            Path("/proc/sys/net/ipv4", buffers).write_text("4096 131072 2097152")
        pair = TcpPair(tmp_path, await stack.enter_async_context(served(app)))
        await stack.enter_async_context(running(pair))
        clients: dict[str, Client] = {}

        async def begin(what: str) -> None:
            clients[what] = client = await stack.enter_async_context(connect(pair.door))
            await client.send(what.encode())
            assert await client.reader.readexactly(1) == what.encode()

        for what in "SUDF":
            await begin(what)
        await teach(pair)
        for what in "sudf":
            await begin(what)
        assert await asyncio.to_thread(lanes, pair.a) == 4
        for what in "Ff":
            await stalled(clients[what])

        cut(namespace, pair.inbound)
        for what in "Uu":
            await clients[what].send(b"is anybody there?")
        app.speak.set()
        async with asyncio.timeout(60):
            ends = await asyncio.gather(*(end_of(client) for client in clients.values()))
        await until(lambda: len(app.ends) == len(clients), 60)
        assert app.ends == dict.fromkeys("SUDFsudf", "ConnectionResetError")
        assert ends == ["ConnectionResetError"] * len(clients)
        assert await asyncio.to_thread(lanes, pair.a) == 0


class Upload(FakeExchange):
    """A request that takes its time."""

    def on_upstream_ready(self, upstream: Http1Connection) -> None:
        self.upstream = upstream
        upstream.write(b"POST / HTTP/1.1\r\n")

    def go_on(self) -> None:
        assert self.upstream is not None
        self.upstream.write(b"X-Header: value\r\n")


async def test_others_who_ask_nobody_either(
    namespace: Namespace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A large body on a connection of its own, and an app without a sidecar; while they are there, nothing ends."""
    for module, name in ((bulk, "SIDECARS"), (tcp, "ANYBODY")):
        monkeypatch.setattr(module, name, Vigilance(1, 1, 1))
    environment = Environment()

    async def listen(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while await reader.read(1 << 20):
            pass

    with inside(namespace):
        async with served(listen) as port, peer(environment, tmp_path) as pool:
            endpoint = EndpointSpec(address="127.0.0.1", port=port)
            sockets = tcp.Sockets(ClusterSpec(name="app"), endpoint, environment)
            relay = FakeRelay()
            sockets.connect(relay)
            assert not pool.lend(Upload())
            await until(lambda: pool.statistics()["idle"] and relay.upstream)
            upload = Upload()
            assert pool.lend(upload)

            def noticed() -> bool:
                pool.look()
                for connection in list(environment.dialled):
                    connection.look()
                return upload.failure is not None and "on_upstream_reset" in relay.words

            assert not noticed()
            for one in (port, pool.endpoint.port):
                cut(namespace, one)
            assert relay.upstream is not None
            relay.upstream.send_data(b"is anybody there?")
            upload.go_on()
            await until(noticed, 60)
            assert sockets.carried == pool.statistics()["connections"] == 0
            assert not environment.dialled
