"""Opaque TCP through two real sidecars: whatever the apps say and do arrives, and nothing else."""

import asyncio
import contextlib
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from meshproxy.policies.flow_sizes import MOST
from tests.helpers.certificates import TestAuthority
from tests.helpers.client import Client, connect
from tests.helpers.environment import until
from tests.helpers.listening import listening
from tests.helpers.pair import Sidecar, spiffe
from tests.helpers.ports import free_port
from tests.helpers.tcp_pair import TcpPair
from tests.integration.test_mtls import counted, metric

pytestmark = pytest.mark.integration

App = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@asynccontextmanager
async def served(app: App) -> AsyncIterator[int]:
    """Serve `app` on a free port, and yield that."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            await app(reader, writer)

    async with listening(serve, limit=1 << 20) as port:
        yield port


BOTH_WAYS = pytest.mark.parametrize("lanes", [False, True], ids=["trunk", "lanes"])
"""A stream among others, or a connection between the sidecars for each."""


@asynccontextmanager
async def through(
    directory: Path, app: App, *, lanes: bool = False, **options: Any
) -> AsyncIterator[TcpPair]:
    """Serve `app` behind two sidecars, over lanes if they are to be used."""
    taught = asyncio.Event()

    async def first_swallow(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if taught.is_set():
            await app(reader, writer)
        else:
            while await reader.read(1 << 20):
                pass

    async with served(first_swallow if lanes else app) as port:
        pair = TcpPair(directory, port, **options)
        await asyncio.to_thread(pair.__enter__)
        try:
            if lanes:
                await teach(pair)
            taught.set()
            yield pair
            if lanes and pair.a.process.returncode is None:
                assert await opened(pair.a) > before_lanes(pair), "no lane was used"
        finally:
            await asyncio.to_thread(pair.__exit__)


async def teach(pair: TcpPair) -> None:
    """Have the first sidecar expect much of each connection; a few small ones do not change that."""
    async with connect(pair.door) as client:
        for _ in range(MOST // (1 << 20)):
            await client.send(bytes(1 << 20))
        client.writer.write_eof()
        assert await client.rest() == b""


async def opened(sidecar: Sidecar) -> float:
    """Return how many connections to other sidecars it has made."""
    return await metric(
        sidecar, "mesh_connections_opened_total", side="upstream", direction="outbound"
    )


def before_lanes(pair: TcpPair) -> int:
    """Return how many trunks a pair needs: one for each endpoint."""
    return sum(len(endpoints.endpoints) for endpoints in pair.a_snapshot.endpoints[:1])


async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(65536):
        writer.write(data)
        await writer.drain()


@BOTH_WAYS
async def test_echo(tmp_path: Path, lanes: bool) -> None:
    """What is said comes back, on many connections at once."""
    async with through(tmp_path, echo, lanes=lanes) as pair:

        async def talk(number: int) -> None:
            async with connect(pair.door) as client:
                for turn in range(5):
                    said = b"%d.%d" % (number, turn)
                    await client.send(said)
                    assert await client.reader.readexactly(len(said)) == said
                client.writer.write_eof()
                assert await client.rest() == b""

        await asyncio.gather(*(talk(number) for number in range(50)))


async def test_a_peer_that_offers_no_protocol(tmp_path: Path) -> None:
    """Its bytes come back by TLS, however many at once: none of them goes past it to the socket."""
    much = bytes(range(256)) * 8192
    async with through(tmp_path, echo) as pair:
        context = ssl.create_default_context(cadata=pair.authority.pem)
        context.check_hostname = False
        context.load_cert_chain(*pair.authority.issue(spiffe("visitor"), tmp_path, "visitor"))
        async with connect(pair.inbound, ssl=context, server_hostname="") as client:
            assert client.writer.get_extra_info("ssl_object").selected_alpn_protocol() is None
            sending = asyncio.ensure_future(client.send(much))
            async with asyncio.timeout(60):
                assert await client.reader.readexactly(len(much)) == much
            await sending


@BOTH_WAYS
async def test_a_quiet_connection_is_watched_by_tcp(tmp_path: Path, lanes: bool) -> None:
    """No limit of silence: the kernel looks, from the door to the app, whether anybody is there."""
    apps = []

    async def app(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        apps.append(writer.get_extra_info("sockname")[1])
        await echo(reader, writer)

    async with through(tmp_path, app, lanes=lanes) as pair, connect(pair.door) as client:
        await client.send(b"hello")
        assert await client.reader.readexactly(5) == b"hello"
        mine = client.writer.get_extra_info("sockname")[1]

        def watched() -> bool:
            sockets = {
                (local, remote) for local, remote, timer in established() if timer == KEEP_ALIVE
            }
            return (pair.door, mine) in sockets and apps[0] in {remote for _, remote in sockets}

        await until(watched)


KEEP_ALIVE = 2
"""Column `tr` of /proc/net/tcp: which timer is running."""


def established() -> list[tuple[int, int, int]]:
    """Return the local port, the remote port and the timer of each connection on this machine."""
    lines = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    return [
        (int(local.split(":")[1], 16), int(remote.split(":")[1], 16), int(timer.split(":")[0], 16))
        for _, local, remote, state, _, timer, *_ in lines
        if state == "01"
    ]


@BOTH_WAYS
async def test_each_half_ends_on_its_own(tmp_path: Path, lanes: bool) -> None:
    """3 MB and an end; the answer comes after the end, and is complete."""

    async def count(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        total = len(await reader.read())
        writer.write(b"%d" % total + b"." * 3_000_000)
        await writer.drain()

    async with through(tmp_path, count, lanes=lanes) as pair, connect(pair.door) as client:
        await client.send(b"x" * 3_000_000)
        client.writer.write_eof()
        assert await client.rest() == b"3000000" + b"." * 3_000_000


@BOTH_WAYS
async def test_server_speaks_first(tmp_path: Path, lanes: bool) -> None:
    """A greeting arrives although the client has said nothing."""

    async def greet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"220 mail ESMTP\r\n")
        assert await reader.readline() == b"QUIT\r\n"
        writer.write(b"221 bye\r\n")

    async with through(tmp_path, greet, lanes=lanes) as pair, connect(pair.door) as client:
        assert await client.reader.readline() == b"220 mail ESMTP\r\n"
        await client.send(b"QUIT\r\n")
        assert await client.rest() == b"221 bye\r\n"


# Resets and failures ------------------------------------------------------------------------------


def will_reset(writer: asyncio.StreamWriter) -> None:
    """Make the coming close an RST."""
    sock = writer.get_extra_info("socket")
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")


async def torn(client: Client) -> None:
    """The connection must end as a reset, not as an end."""
    with pytest.raises(ConnectionResetError):
        await client.rest()


@BOTH_WAYS
async def test_an_apps_reset_arrives_as_one(tmp_path: Path, lanes: bool) -> None:
    """Half an answer must not look like all of it."""

    async def break_off(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readexactly(3)
        writer.write(b"half")
        await writer.drain()
        await reader.readexactly(2)
        will_reset(writer)

    async with through(tmp_path, break_off, lanes=lanes) as pair, connect(pair.door) as client:
        await client.send(b"ask")
        assert await client.reader.readexactly(4) == b"half"
        await client.send(b"ok")
        await torn(client)
        await counted(pair.a, 1, "mesh_tcp_connections_total", flag="UR")
        await counted(
            pair.b, 1, "mesh_tcp_connections_total", flag="UR", source=spiffe("storefront")
        )


@BOTH_WAYS
async def test_a_clients_reset_arrives_as_one(tmp_path: Path, lanes: bool) -> None:
    """The app learns that the client has gone."""
    seen: asyncio.Queue[str] = asyncio.Queue()

    async def listen(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(await reader.readexactly(3))
        try:
            await reader.read()
        except ConnectionResetError:
            await seen.put("reset")
        else:
            await seen.put("end")

    async with through(tmp_path, listen, lanes=lanes) as pair:
        async with connect(pair.door) as client:
            await client.send(b"ask")
            await client.reader.readexactly(3)
            will_reset(client.writer)
        async with asyncio.timeout(10):
            assert await seen.get() == "reset"


async def test_nobody_there_is_a_reset(tmp_path: Path) -> None:
    """The app's port is closed; what the client has said ahead changes nothing."""
    pair = TcpPair(tmp_path, free_port())
    await asyncio.to_thread(pair.__enter__)
    try:
        for said in (b"", b"hello"):
            async with connect(pair.door) as client:
                await client.send(said)
                await torn(client)
        await counted(pair.a, 2, "mesh_tcp_connections_total", flag="UF")
        assert await metric(pair.b, "mesh_refusals_total", code="connect-failed") >= 2
        assert await metric(pair.a, "mesh_retries_total") >= 2
    finally:
        await asyncio.to_thread(pair.__exit__)


@BOTH_WAYS
async def test_another_endpoint_is_tried(tmp_path: Path, lanes: bool) -> None:
    """One of two endpoints refuses connections; no client notices."""
    inbound = free_port()
    async with through(
        tmp_path, echo, lanes=lanes, endpoints=(inbound, free_port()), inbound=inbound
    ) as pair:
        for _ in range(10):
            async with connect(pair.door) as client:
                await client.send(b"hello")
                assert await client.reader.readexactly(5) == b"hello"


# Flow control -------------------------------------------------------------------------------------


@BOTH_WAYS
async def test_stalled_connections_delay_nobody(tmp_path: Path, lanes: bool) -> None:
    """Ten clients that do not read stop their own servers, and not ninety others."""
    poured = [0]

    async def pour_or_echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if await reader.readexactly(1) == b"p":
            with contextlib.suppress(ConnectionError):
                while True:
                    writer.write(b"x" * 65536)
                    await writer.drain()
                    poured[0] += 65536
        else:
            await echo(reader, writer)

    async def stopped() -> None:
        """Wait until nothing more is poured."""
        before = -1
        while before != poured[0]:
            before = poured[0]
            await asyncio.sleep(0.3)

    async with (
        through(tmp_path, pour_or_echo, lanes=lanes) as pair,
        contextlib.AsyncExitStack() as stack,
    ):
        for _ in range(10):
            slow = await stack.enter_async_context(connect(pair.door))
            await slow.send(b"p")
            slow.writer.transport.pause_reading()  # type: ignore[attr-defined]
        async with asyncio.timeout(60):
            await stopped()
        clients = [await stack.enter_async_context(connect(pair.door)) for _ in range(90)]
        async with asyncio.timeout(20):
            for client in clients:
                await client.send(b"e" + b"y" * 10_000)
            for client in clients:
                assert await client.reader.readexactly(10_000) == b"y" * 10_000
    assert poured[0] < 10 * (48 << 20)  # what the kernels of three connections hold, mostly


# First bytes decide -------------------------------------------------------------------------------


async def hello(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answer HTTP, and echo anything else."""
    while data := await reader.read(65536):
        if data.startswith(b"GET "):
            data = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"
        writer.write(data)


GET = b"GET / HTTP/1.1\r\nHost: broker\r\n\r\n"


@BOTH_WAYS
async def test_requests_are_told_from_bytes(tmp_path: Path, lanes: bool) -> None:
    """However the first bytes are cut, on one port."""
    async with through(tmp_path, hello, lanes=lanes, protocol="detect") as pair:
        for said in (GET, b"PING\r\n", b"\0\1\2\3 anything"):
            for cut in (1, 3, 100):
                async with connect(pair.door) as client:
                    client.writer.get_extra_info("socket").setsockopt(6, socket.TCP_NODELAY, 1)
                    for at in range(0, len(said), cut):
                        await client.send(said[at : at + cut])
                        await asyncio.sleep(0)
                    if said == GET:
                        assert (await client.response()).body == b"ok"
                    else:
                        assert await client.reader.readexactly(len(said)) == said
        await counted(pair.a, 3, "mesh_requests_total", code="200")
        await counted(pair.a, 6 + lanes, "mesh_tcp_connections_total")


@BOTH_WAYS
async def test_a_server_that_speaks_first_is_heard(tmp_path: Path, lanes: bool) -> None:
    """On a port of which nobody has said what it speaks, through both sidecars."""

    async def greet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"220 mail ESMTP\r\n")
        writer.write(await reader.readline())

    async with through(tmp_path, greet, lanes=lanes, protocol="detect") as pair:
        for _ in range(3):
            async with connect(pair.door) as client:
                assert await client.reader.readline() == b"220 mail ESMTP\r\n"
                await client.send(b"EHLO me\r\n")
                assert await client.rest() == b"EHLO me\r\n"


async def test_requests_cost_the_app_no_connections(tmp_path: Path) -> None:
    """Clients of HTTP that dawdle: at most one connection is dialled in vain, then none."""
    silent = [0]

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        silent[0] += 1
        data = await reader.read(65536)
        silent[0] -= bool(data)
        while data:
            writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")
            data = await reader.read(65536)

    async with through(tmp_path, serve, protocol="detect") as pair:
        for pause in (0.5, 0.1, 0.1, 0.1):
            async with connect(pair.door) as client:
                await asyncio.sleep(pause)
                await client.send(GET)
                assert (await client.response()).status == 200
    assert silent[0] <= 1


async def test_a_client_that_says_nothing_to_http(tmp_path: Path) -> None:
    """It is waited for; when it speaks it is served."""
    async with (
        through(tmp_path, hello, protocol="detect") as pair,
        connect(pair.door) as silent,
        connect(pair.door) as client,
    ):
        await client.send(GET)
        assert (await client.response()).status == 200
        await silent.send(GET)
        assert (await silent.response()).status == 200


# The app's own TLS --------------------------------------------------------------------------------


def tls_app(directory: Path, name: str) -> ssl.SSLContext:
    """Return a server's context for a name, signed by nobody that clients must know."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    files = TestAuthority(name).issue(f"spiffe://app/{name}", directory, name)
    context.load_cert_chain(*files)
    return context


def tls_client() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


async def ask_over_tls(port: int, name: str) -> bytes:
    reader, writer = await asyncio.open_connection(
        "127.0.0.1", port, ssl=tls_client(), server_hostname=name
    )
    try:
        writer.write(b"who?")
        async with asyncio.timeout(10):
            return await reader.read(100)
    finally:
        writer.transport.abort()


@asynccontextmanager
async def named_apps(directory: Path, *names: str) -> AsyncIterator[dict[str, int]]:
    """Serve TLS apps that say their names."""

    def app(name: str) -> Any:
        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            with contextlib.suppress(ConnectionError):
                await reader.readexactly(4)
                writer.write(name.encode())
                await writer.drain()
            writer.close()

        return serve

    servers = {
        name: await asyncio.start_server(app(name), "127.0.0.1", 0, ssl=tls_app(directory, name))
        for name in names
    }
    try:
        yield {name: server.sockets[0].getsockname()[1] for name, server in servers.items()}
    finally:
        for server in servers.values():
            server.close()


@pytest.mark.parametrize("protocol", ["tcp", "detect"])
async def test_tls_passes_through_by_name(tmp_path: Path, protocol: str) -> None:
    """Two apps behind one port; the handshake is theirs."""
    async with named_apps(tmp_path, "one", "two") as ports, through(
        tmp_path, echo, protocol=protocol, plain=ports,
        routes={"one": ["one.example"], "two": ["*.two.example"]},
    ) as pair:  # fmt: skip
        assert await ask_over_tls(pair.door, "one.example") == b"one"
        assert await ask_over_tls(pair.door, "ONE.example") == b"one"
        assert await ask_over_tls(pair.door, "a.b.two.example") == b"two"
        with pytest.raises((ConnectionError, ssl.SSLError)):
            await ask_over_tls(pair.door, "three.example")
        await counted(pair.a, 1, "mesh_refusals_total", code="no-route")


async def test_permissive_tells_three_apart(tmp_path: Path) -> None:
    """A mesh peer's TLS, the app's own TLS and plaintext, on one port."""
    async with named_apps(tmp_path, "app") as ports:
        pair = TcpPair(tmp_path, ports["app"], mtls="permissive")
        await asyncio.to_thread(pair.__enter__)
        try:
            assert await ask_over_tls(pair.door, "app.example") == b"app"
            assert await ask_over_tls(pair.inbound, "app.example") == b"app"
        finally:
            await asyncio.to_thread(pair.__exit__)
        series = await asyncio.to_thread(pair.b.directory.joinpath("log").read_text)
        assert "refused" not in series


@BOTH_WAYS
async def test_permissive_plaintext(tmp_path: Path, lanes: bool) -> None:
    """Bytes of a client without a sidecar, for any cut, and a server that speaks first."""

    async def greet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"220 mail\r\n")
        await echo(reader, writer)

    async with through(tmp_path, greet, lanes=lanes, mtls="permissive") as pair:
        for port in (pair.inbound, pair.door, pair.inbound):
            async with connect(port) as client:
                assert await client.reader.readline() == b"220 mail\r\n"
                for letter in b"hello":
                    await client.send(bytes([letter]))
                assert await client.reader.readexactly(5) == b"hello"


# CONNECT by clients -------------------------------------------------------------------------------


@asynccontextmanager
async def connected(pair: TcpPair, authority: str, early: bytes = b"") -> AsyncIterator[Client]:
    """Ask the HTTP proxy for a connection, as `HTTPS_PROXY` makes clients do."""
    async with connect(pair.outbound) as client:
        await client.send(
            f"CONNECT {authority} HTTP/1.1\r\nHost: {authority}\r\n\r\n".encode() + early
        )
        assert (await client.head()).status == 200
        yield client


@pytest.mark.parametrize("protocol", ["tcp", "detect"])
async def test_clients_may_ask_the_proxy_for_a_connection(tmp_path: Path, protocol: str) -> None:
    """By the service's name; then all is as if they had connected to it, also a first greeting."""

    async def greet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"220 mail\r\n")
        await echo(reader, writer)

    async with through(tmp_path, greet, protocol=protocol) as pair:
        async with connected(pair, "broker.default:5672") as client:
            assert await client.reader.readline() == b"220 mail\r\n"
            await client.send(b"hello")
            assert await client.reader.readexactly(5) == b"hello"
            client.writer.write_eof()
            assert await client.rest() == b""
        async with connected(pair, "Broker.Default.:5672", early=b"ahead") as client:
            assert await client.reader.readexactly(15) == b"220 mail\r\nahead"
        async with connect(pair.outbound) as client:
            await client.send(b"CONNECT nobody:1 HTTP/1.1\r\nHost: nobody:1\r\n\r\n")
            assert (await client.response()).header("x-mesh-refusal") == "no-route"


async def test_requests_inside_a_connection_are_requests(tmp_path: Path) -> None:
    """What is spoken there is found out as everywhere."""
    async with through(tmp_path, hello, protocol="detect") as pair:
        async with connected(pair, "broker.default:5672") as client:
            await client.send(GET)
            assert (await client.response()).body == b"ok"
        await counted(pair.a, 1, "mesh_requests_total", protocol="http", code="200", route="all")
