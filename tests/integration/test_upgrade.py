"""WebSocket and other protocols behind an Upgrade, through two real sidecars."""

import asyncio
import hashlib
import shutil
import socket
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from websockets.asyncio.client import ClientConnection
from websockets.asyncio.client import connect as ws_connect
from websockets.asyncio.server import ServerConnection, serve
from websockets.client import ClientProtocol
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.frames import Frame, Opcode
from websockets.protocol import State
from websockets.server import ServerProtocol
from websockets.uri import parse_uri

from tests.helpers.client import Client, connect
from tests.helpers.environment import until
from tests.helpers.http2 import GET, Headers
from tests.helpers.http2_peers import End, Stream, http2_app, http2_client
from tests.helpers.origin import Answer, Conversation, hello, origin
from tests.helpers.pair import Pair, Sidecar

pytestmark = pytest.mark.integration

MIB = 1 << 20
ASK = b"GET /x HTTP/1.1\r\nHost: catalog\r\nConnection: Upgrade\r\nUpgrade: own/1\r\n\r\n"
SWITCHED = b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: own/1\r\n\r\n"
EXTENDED: Headers = (
    (":method", "CONNECT"),
    (":protocol", "websocket"),
    (":scheme", "http"),
    (":path", "/chat"),
    (":authority", "catalog"),
    ("sec-websocket-version", "13"),
)


@asynccontextmanager
async def running(pair: Pair) -> AsyncIterator[Pair]:
    await asyncio.to_thread(pair.__enter__)
    try:
        yield pair
    finally:
        await asyncio.to_thread(pair.__exit__)


@asynccontextmanager
async def mesh(directory: Path, answer: Answer) -> AsyncIterator[tuple[Pair, Any]]:
    async with origin(answer) as app, running(Pair(directory, app.port)) as pair:
        yield pair, app


def metric(sidecar: Sidecar, *parts: str) -> float:
    """Return the sum of the samples whose line has all these parts."""
    lines = [line for line in sidecar.metrics().splitlines() if all(part in line for part in parts)]
    return sum(float(line.rsplit(" ", 1)[1]) for line in lines if not line.startswith("#"))


async def settled(pair: Pair) -> None:
    """Wait until neither sidecar carries a tunnel any more."""
    async with asyncio.timeout(10):
        for sidecar in (pair.a, pair.b):
            while await asyncio.to_thread(metric, sidecar, "mesh_tunnels_active"):
                await asyncio.sleep(0.02)


# WebSocket ----------------------------------------------------------------------------------------


async def echo(connection: ServerConnection) -> None:
    """Say everything back; `close N reason` closes with that."""
    async for message in connection:
        if isinstance(message, str) and message.startswith("close "):
            _, code, reason = message.split(" ", 2)
            await connection.close(int(code), reason)
            return
        await connection.send(message)


@asynccontextmanager
async def websocket_mesh(directory: Path) -> AsyncIterator[tuple[Pair, list[ServerConnection]]]:
    """Yield the sidecars before an echo, and the connections that it has accepted."""
    accepted: list[ServerConnection] = []

    async def remembered(connection: ServerConnection) -> None:
        accepted.append(connection)
        await echo(connection)

    async with serve(remembered, "127.0.0.1", 0, max_size=32 * MIB) as server:
        port = next(iter(server.sockets)).getsockname()[1]
        async with running(Pair(directory, port)) as pair:
            yield pair, accepted


def dial(pair: Pair) -> ws_connect:
    return ws_connect(
        "ws://catalog:80/", host="127.0.0.1", port=pair.outbound, proxy=None, max_size=32 * MIB
    )


async def closed(connection: ClientConnection) -> tuple[int | None, str | None]:
    """Wait until the other side closes; return its code and reason."""
    with pytest.raises(ConnectionClosed) as caught:
        await connection.recv()
    received = caught.value.rcvd
    return (None, None) if received is None else (received.code, received.reason)


async def test_websocket(tmp_path: Path) -> None:
    """Text, binary, fragments, pings and compression pass; it counts once, when it has ended."""
    async with websocket_mesh(tmp_path) as (pair, _):
        async with dial(pair) as ws:
            assert ws.response is not None
            assert "permessage-deflate" in ws.response.headers["Sec-WebSocket-Extensions"]
            await ws.send("héllo")
            assert await ws.recv() == "héllo"
            await ws.send(bytes(range(256)))
            assert await ws.recv() == bytes(range(256))
            await ws.send(["a", "b", "c"])
            assert await ws.recv() == "abc"
            assert await (await ws.ping()) >= 0
            assert await asyncio.to_thread(metric, pair.b, "mesh_tunnels_active") == 1
            assert not await asyncio.to_thread(metric, pair.b, "mesh_requests_total", 'code="101"')
        await settled(pair)
        for sidecar in (pair.a, pair.b):
            counted = await asyncio.to_thread(
                metric, sidecar, "mesh_requests_total", 'code="101"', 'flag="-"'
            )
            assert counted == 1


@pytest.mark.parametrize("code", [1000, 1001, 4321])
async def test_close_codes(tmp_path: Path, code: int) -> None:
    """Whoever closes, the other side learns code and reason."""
    async with websocket_mesh(tmp_path) as (pair, accepted):
        async with dial(pair) as ws:
            await ws.send(f"close {code} because")
            assert await closed(ws) == (code, "because")
        async with dial(pair) as ws:
            await ws.close(code, "enough")
        await until(lambda: len(accepted) == 2 and accepted[1].close_code is not None)
        assert (accepted[1].close_code, accepted[1].close_reason) == (code, "enough")
        await settled(pair)


async def test_a_large_message(tmp_path: Path) -> None:
    """16 MiB in one."""
    message = hashlib.sha256(b"seed").digest() * (16 * MIB // 32)
    async with websocket_mesh(tmp_path) as (pair, _), dial(pair) as ws:
        await ws.send(message)
        assert await ws.recv() == message


async def test_many_at_once(tmp_path: Path) -> None:
    """A hundred, all open at the same time, on one connection between the sidecars."""
    async with websocket_mesh(tmp_path) as (pair, _):
        several = [await dial(pair) for _ in range(100)]
        assert await asyncio.to_thread(metric, pair.a, "mesh_tunnels_active") == 100
        for number, ws in enumerate(several):
            await ws.send(str(number))
        assert [await ws.recv() for ws in several] == [str(n) for n in range(100)]
        await asyncio.gather(*(ws.close() for ws in several))
        await settled(pair)


async def test_aiohttp(tmp_path: Path) -> None:
    """Another client and server, with a subprotocol."""

    async def handle(request: web.Request) -> web.WebSocketResponse:
        ws = web.WebSocketResponse(protocols=("chat",))
        await ws.prepare(request)
        async for message in ws:
            await ws.send_str(message.data.upper())
        return ws

    app = web.Application()
    app.router.add_get("/", handle)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    port = runner.addresses[0][1]
    try:
        async with running(Pair(tmp_path, port)) as pair, aiohttp.ClientSession() as session:
            address = f"http://127.0.0.1:{pair.door}/"
            async with session.ws_connect(address, protocols=("x", "chat")) as ws:
                assert ws.protocol == "chat"
                await ws.send_str("abc")
                assert await ws.receive_str() == "ABC"
            assert ws.close_code == 1000
    finally:
        await runner.cleanup()


async def test_a_refused_handshake(tmp_path: Path) -> None:
    """The app's answer is the client's, and its connection serves the next request."""
    async with mesh(tmp_path, hello) as (pair, app):
        with pytest.raises(InvalidStatus) as caught:
            await dial(pair)
        assert caught.value.response.status_code == 200
        async with connect(pair.outbound) as client:
            for _ in range(3):
                await client.send(ASK)
                response = await client.response()
                assert (response.status, response.body) == (200, b"/x 0")
                assert response.header("connection") is None
        assert app.connections == 1


# WebSocket where one side speaks HTTP/2 -----------------------------------------------------------


async def test_websocket_from_http2(tmp_path: Path) -> None:
    """RFC 8441: the app gets its key, and the client no answer to one that it has not sent."""
    async with websocket_mesh(tmp_path) as (pair, accepted), http2_client(pair.outbound) as end:
        stream = end.ask(EXTENDED, end=False)
        ws = ClientProtocol(parse_uri("ws://catalog/chat"), state=State.OPEN)
        ws.send_text(b"hello")
        head = await stream.next()
        assert head.headers is not None
        assert (":status", "200") in head.headers
        assert not {"sec-websocket-accept", "upgrade", "connection"} & dict(head.headers).keys()
        await stream.body(b"".join(ws.data_to_send()), end=False)
        assert await frame(stream, ws) == (Opcode.TEXT, b"hello")
        ws.send_text(b"close 4000 bye")
        await stream.body(b"".join(ws.data_to_send()), end=False)
        assert await frame(stream, ws) == (Opcode.CLOSE, struct.pack(">H", 4000) + b"bye")
        await stream.body(b"".join(ws.data_to_send()), end=True)
        message = await stream.message()
        assert message.reset is None
        assert accepted[0].close_code == 4000
        await settled(pair)


async def frame(stream: Stream, protocol: ClientProtocol | ServerProtocol) -> tuple[Opcode, bytes]:
    """Return the next frame of a WebSocket on an HTTP/2 stream."""
    while not (events := protocol.events_received()):
        protocol.receive_data((await stream.next()).frame.data)
    [event] = events
    assert isinstance(event, Frame)
    return event.opcode, bytes(event.data)


async def http2_echo(stream: Stream) -> None:
    """Accept one WebSocket over HTTP/2, as RFC 8441 says, and echo one message."""
    head = await stream.next()
    assert head.headers is not None
    fields = dict(head.headers)
    assert (fields[":method"], fields[":protocol"]) == ("CONNECT", "websocket")
    assert (fields[":path"], fields["sec-websocket-version"]) == ("/chat", "13")
    stream.head([(":status", "200")])
    ws = ServerProtocol(state=State.OPEN)
    opcode, data = await frame(stream, ws)
    assert opcode is Opcode.TEXT
    ws.send_text(data)
    await stream.body(b"".join(ws.data_to_send()), end=False)
    opcode, _ = await frame(stream, ws)
    assert opcode is Opcode.CLOSE
    await stream.body(b"".join(ws.data_to_send()), end=True)


@pytest.mark.parametrize("client", ["HTTP/1.1", "HTTP/2"])
async def test_websocket_to_http2(tmp_path: Path, client: str) -> None:
    """A client of HTTP/1.1 gets the proof that it waits for; one of HTTP/2 needs none."""
    async with (
        http2_app(http2_echo, s8=1) as app,
        running(Pair(tmp_path, app.port, app_protocol="http2")) as pair,
    ):
        if client == "HTTP/1.1":
            address = "ws://catalog:80/chat"
            async with ws_connect(
                address, host="127.0.0.1", port=pair.outbound, proxy=None, compression=None
            ) as ws:
                await ws.send("hello")
                assert await ws.recv() == "hello"
            assert ws.close_code == 1000
        else:
            async with http2_client(pair.outbound) as end:
                stream = end.ask(EXTENDED, end=False)
                await stream.next()
                protocol = ClientProtocol(parse_uri("ws://catalog/chat"), state=State.OPEN)
                protocol.send_text(b"hello")
                await stream.body(b"".join(protocol.data_to_send()), end=False)
                assert await frame(stream, protocol) == (Opcode.TEXT, b"hello")
                protocol.send_close(1000)
                await stream.body(b"".join(protocol.data_to_send()), end=True)
                assert (await stream.message()).reset is None
        await settled(pair)


async def test_an_app_that_has_not_offered_it_is_not_asked(tmp_path: Path) -> None:
    """RFC 8441 section 3: CONNECT with :protocol would be malformed to it."""
    asked = []

    async def never(stream: Stream) -> None:
        asked.append(stream)

    async with (
        http2_app(never) as app,
        running(Pair(tmp_path, app.port, app_protocol="http2")) as pair,
        connect(pair.outbound) as client,
    ):
        for _ in range(2):  # on a new connection, and on one that has said what it knows
            await client.send(ASK)
            response = await client.response()
            assert (response.status, response.header("x-mesh-refusal")) == (
                501, "upgrade-not-supported",
            )  # fmt: skip
        assert asked == []


# Any other protocol -------------------------------------------------------------------------------


class Peer:
    """A server that switches and then does what a test tells it to; one connection at a time."""

    def __init__(self) -> None:
        self.arrived: asyncio.Queue[Conversation] = asyncio.Queue()
        self._done: list[asyncio.Event] = []

    async def answer(self, conversation: Conversation) -> None:
        done = asyncio.Event()
        self._done.append(done)
        self.arrived.put_nowait(conversation)
        await done.wait()
        raise ConnectionError  # nothing more to read here

    async def next(self) -> Conversation:
        async with asyncio.timeout(10):
            return await self.arrived.get()

    def release(self) -> None:
        for done in self._done:
            done.set()


@asynccontextmanager
async def tunnel(directory: Path) -> AsyncIterator[tuple[Pair, Client, Conversation]]:
    """Yield both ends of a tunnel that has just been opened."""
    peer = Peer()
    async with mesh(directory, peer.answer) as (pair, _), connect(pair.outbound) as client:
        await client.send(ASK)
        app = await peer.next()
        await app.send(SWITCHED)
        assert (await client.head()).status == 101
        try:
            yield pair, client, app
        finally:
            peer.release()


async def test_heads_of_an_upgrade(tmp_path: Path) -> None:
    """What the app hears, and what the client; methods other than GET keep theirs."""
    peer = Peer()
    async with mesh(tmp_path, peer.answer) as (pair, _):
        for method in (b"GET", b"POST", b"OPTIONS"):
            async with connect(pair.outbound) as client:
                await client.send(ASK.replace(b"GET", method))
                app = await peer.next()
                assert app.request_line == method + b" /x HTTP/1.1"
                assert (app.header("connection"), app.header("upgrade")) == ("Upgrade", "own/1")
                assert not app.header("x-mesh-method")
                await app.send(SWITCHED.replace(b"\r\n\r\n", b"\r\nX-Own: a\r\n\r\n"))
                head = await client.head()
                assert head.status == 101
                assert (head.header("connection"), head.header("upgrade")) == ("Upgrade", "own/1")
                assert head.header("x-own") == "a"
        peer.release()


@pytest.mark.parametrize("first", ["client", "app"])
async def test_half_close(tmp_path: Path, first: str) -> None:
    """The end of one direction is heard, and the other goes on for as long as it wants."""
    async with tunnel(tmp_path) as (pair, client, app):
        ends = [(client.reader, client.writer), (app.reader, app.writer)]
        (early_reader, early), (late_reader, late) = ends if first == "client" else ends[::-1]
        early.write(b"the end")
        early.write_eof()
        async with asyncio.timeout(10):
            assert await late_reader.read() == b"the end"
        for number in range(5):
            late.write(b"still %d" % number)
            async with asyncio.timeout(10):
                assert await early_reader.readexactly(7) == b"still %d" % number
        assert await asyncio.to_thread(metric, pair.a, "mesh_tunnels_active") == 1
        late.write_eof()
        async with asyncio.timeout(10):
            assert await early_reader.read() == b""
        await settled(pair)
        assert await asyncio.to_thread(
            metric, pair.a, "mesh_requests_total", 'code="101"', 'flag="-"'
        )


def reset(writer: asyncio.StreamWriter) -> None:
    """End a connection with RST."""
    channel = writer.get_extra_info("socket")
    channel.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


@pytest.mark.parametrize("half", [False, True])
@pytest.mark.parametrize("first", ["client", "app"])
async def test_a_reset_arrives_as_a_reset(tmp_path: Path, first: str, half: bool) -> None:
    """Never as an end, also where the other direction has ended before."""
    async with tunnel(tmp_path) as (pair, client, app):
        ends = [(client.reader, client.writer), (app.reader, app.writer)]
        (early_reader, early), (late_reader, late) = ends if first == "client" else ends[::-1]
        early.write(b"half of it")
        async with asyncio.timeout(10):
            assert await late_reader.readexactly(10) == b"half of it"
            if half:
                late.write_eof()
                assert await early_reader.read() == b""
            reset(early)
            with pytest.raises(ConnectionResetError):
                await late_reader.read()
        await settled(pair)


async def test_a_slow_reader_stops_the_sender(tmp_path: Path) -> None:
    """In both directions; a GiB could not hide in our memory."""
    async with tunnel(tmp_path) as (pair, client, app):
        before = pair.a.rss() + pair.b.rss()
        for sender, receiver in ((app, client), (client, app)):
            sent = 0
            chunk = b"x" * (256 * 1024)
            try:
                async with asyncio.timeout(3):
                    while sent < 512 * MIB:
                        sender.writer.write(chunk)
                        await sender.writer.drain()
                        sent += len(chunk)
            except TimeoutError:
                sent += len(chunk)  # written, but not drained
            assert sent < 64 * MIB
            assert pair.a.rss() + pair.b.rss() < before + 48 * MIB
            sender.writer.write(b"end")
            async with asyncio.timeout(20):
                received = await receiver.reader.readexactly(sent + 3)
            assert received.endswith(b"xend")


# What must not get through ------------------------------------------------------------------------


async def test_early_data_waits_for_the_switch(tmp_path: Path) -> None:
    """Not a byte behind the head reaches the app before its own 101; then all of them do."""
    peer = Peer()
    smuggled = b"GET /admin HTTP/1.1\r\nHost: catalog\r\n\r\n"
    async with mesh(tmp_path, peer.answer) as (pair, _), connect(pair.outbound) as client:
        await client.send(ASK + smuggled)
        app = await peer.next()
        await client.send(b"more")
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.3):
                await app.reader.read(1)
        await app.send(SWITCHED + b"mine")
        async with asyncio.timeout(10):
            assert await app.reader.readexactly(len(smuggled) + 4) == smuggled + b"more"
        assert (await client.head()).status == 101
        assert await client.reader.readexactly(4) == b"mine"
        peer.release()


@pytest.mark.parametrize("version", ["HTTP/1.1", "HTTP/2"])
async def test_early_data_is_dropped_when_nobody_switches(tmp_path: Path, version: str) -> None:
    """It becomes no request, neither of the app's nor of ours."""
    smuggled = b"GET /admin HTTP/1.1\r\nHost: catalog\r\n\r\n"
    async with mesh(tmp_path, hello) as (pair, app):
        if version == "HTTP/1.1":
            async with connect(pair.outbound) as client:
                await client.send(ASK + smuggled)
                response = await client.response()
                assert (response.status, response.header("connection")) == (200, "close")
                assert await client.rest() == b""
        else:
            async with http2_client(pair.outbound) as end:
                stream = end.ask(EXTENDED, end=False)
                await stream.body(smuggled, end=False)
                # RFC 9113 section 8.5: any 2xx would open the tunnel.
                assert (await stream.message()).status == "501"
        assert [head.split(b"\r\n")[0] for head in app.requests] == [
            b"GET /x HTTP/1.1" if version == "HTTP/1.1" else b"GET /chat HTTP/1.1"
        ]


@pytest.mark.parametrize(
    "extra",
    [
        b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\n",
        b"Connection: Upgrade\r\nUpgrade: H2C\r\n",
        b"Connection: Upgrade\r\nUpgrade: TLS/1.2, HTTP/2.0\r\n",
        b"Upgrade: own/1\r\n",
        b"Connection: Upgrade\r\nUpgrade: own/1\r\nContent-Length: 2\r\n",
    ],
)
async def test_upgrades_that_are_ignored(tmp_path: Path, extra: bytes) -> None:
    """To another HTTP, to TLS, without Connection, with a body: an ordinary request goes on."""
    async with mesh(tmp_path, hello) as (pair, app), connect(pair.outbound) as client:
        for _ in range(2):
            body = b"ab" if b"Length" in extra else b""
            await client.send(b"POST /y HTTP/1.1\r\nHost: catalog\r\n" + extra + b"\r\n" + body)
            response = await client.response()
            assert (response.status, response.body) == (200, b"/y %d" % len(body))
        for head in app.requests:
            assert b"pgrade" not in head
            assert b"http2-settings" not in head.lower()


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 101 Switching Protocols\r\n\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n",
    ],
)
async def test_a_switch_to_nothing_or_to_something_else(tmp_path: Path, answer: bytes) -> None:
    """502, and not a byte that the app has said behind it."""

    async def lie(conversation: Conversation) -> None:
        await conversation.send(answer + b"secret")
        await conversation.reader.read()
        raise ConnectionError

    async with mesh(tmp_path, lie) as (pair, app), connect(pair.outbound) as client:
        await client.send(ASK)
        response = await client.response()
        assert response.status == 502
        assert response.header("x-mesh-refusal") == "upstream-protocol-error"
        assert b"secret" not in response.body
        assert app.connections == 1


@pytest.mark.skipif(shutil.which("curl") is None, reason="needs curl")
async def test_curl(tmp_path: Path) -> None:
    """curl's own h2c upgrade becomes HTTP/1.1, and one by hand is carried."""

    async def switch(conversation: Conversation) -> None:
        if conversation.header("upgrade") is None:
            await hello(conversation)
            return
        await conversation.send(SWITCHED + b"hello, curl")
        raise ConnectionError

    async def curl(*arguments: str) -> str:
        process = await asyncio.create_subprocess_exec(
            "curl", "-s", "-i", "--max-time", "10", *arguments, stdout=asyncio.subprocess.PIPE
        )
        out, _ = await process.communicate()
        return out.decode()

    async with mesh(tmp_path, switch) as (pair, _):
        address = f"http://127.0.0.1:{pair.door}/"
        out = await curl("--http2", address)
        assert out.startswith("HTTP/1.1 200 OK")
        own = ("-H", "Connection: Upgrade", "-H", "Upgrade: own/1")
        out = await curl("-p", "-x", f"http://127.0.0.1:{pair.outbound}", "http://catalog/")
        assert out.startswith("HTTP/1.1 200 OK\r\n\r\nHTTP/1.1 200 OK")
        out = await curl("--http1.1", *own, address)
        assert out.startswith("HTTP/1.1 101 Switching Protocols")
        assert out.endswith("hello, curl")


# CONNECT ------------------------------------------------------------------------------------------


async def test_websocket_through_an_http_proxy(tmp_path: Path) -> None:
    """A client that has HTTP_PROXY in its environment sends CONNECT before it asks to switch."""
    async with websocket_mesh(tmp_path) as (pair, _):
        proxy = f"http://127.0.0.1:{pair.outbound}"
        for _ in range(2):
            async with ws_connect("ws://catalog:80/", proxy=proxy) as ws:
                await ws.send("hello")
                assert await ws.recv() == "hello"
        await settled(pair)
        for code in ("101", "200"):  # the upgrade, and the CONNECT before it
            wanted = ("mesh_requests_total", f'code="{code}"')
            assert await asyncio.to_thread(metric, pair.a, *wanted) == 2


async def test_connect_to_a_service(tmp_path: Path) -> None:
    """What follows are requests, in one piece with it or not; anything else is refused."""
    connect_to = "CONNECT {0} HTTP/1.1\r\nHost: {0}\r\n\r\n"
    get = b"GET /a HTTP/1.1\r\nHost: catalog\r\n\r\n"
    async with mesh(tmp_path, hello) as (pair, app):
        for apart in (False, True):
            async with connect(pair.outbound) as client:
                ask = connect_to.format("catalog:80").encode()
                await client.send(ask if apart else ask + get + get)
                head = await client.head()
                assert head.status == 200
                assert (head.header("content-length"), head.header("transfer-encoding")) == (
                    None,
                    None,
                )
                if apart:
                    await client.send(get + get)
                for _ in range(2):
                    assert (await client.response()).body == b"/a 0"
        refusals = [
            (pair.outbound, "nowhere:80", 404), (pair.outbound, "127.0.0.1:15000", 404),
            (pair.outbound, f"127.0.0.1:{app.port}", 404), (pair.door, "catalog:80", 501),
        ]  # fmt: skip
        for port, place, status in refusals:
            async with connect(port) as client:
                await client.send(connect_to.format(place).encode() + get)
                response = await client.response()
                assert (response.status, response.header("connection")) == (status, "close")
                assert await client.rest() == b""
        assert len(app.requests) == 4


async def test_connect_within_connect_within_connect(tmp_path: Path) -> None:
    """A thousand of them in one read cost a thousand answers, and nothing else."""
    ask = b"CONNECT catalog:80 HTTP/1.1\r\nHost: catalog:80\r\n\r\n"
    async with mesh(tmp_path, hello) as (pair, _), connect(pair.outbound) as client:
        await client.send(ask * 1000 + b"GET /a HTTP/1.1\r\nHost: catalog\r\n\r\n")
        for _ in range(1000):
            assert (await client.head()).status == 200
        assert (await client.response()).body == b"/a 0"
        assert "Traceback" not in pair.a.log()


async def test_http2_after_connect(tmp_path: Path) -> None:
    """With prior knowledge, as gRPC clients do; a stream of such a connection cannot CONNECT."""
    async with mesh(tmp_path, hello) as (pair, _):
        reader, writer = await asyncio.open_connection("127.0.0.1", pair.outbound)
        writer.write(b"CONNECT catalog:80 HTTP/1.1\r\nHost: catalog:80\r\n\r\n")
        assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200 ")
        end = End(reader, writer)
        task = asyncio.create_task(end.run())
        message = await end.ask(GET).message()
        assert (message.status, message.body) == ("200", b"/ 0")
        stream = end.ask([(":method", "CONNECT"), (":authority", "catalog:80")], end=False)
        refused = await stream.message()
        assert (refused.status, refused.header("x-mesh-refusal")) == ("501", "not-implemented")
        writer.transport.abort()
        await task


# The end of a sidecar -----------------------------------------------------------------------------


@pytest.mark.parametrize("which", ["a", "b"])
async def test_draining_waits_for_tunnels_and_then_cuts_them(tmp_path: Path, which: str) -> None:
    """For as long as the grace period; what is cut is torn, not ended."""
    async with tunnel(tmp_path) as (pair, client, app):
        sidecar = pair.a if which == "a" else pair.b
        sidecar.process.terminate()
        await until(lambda: "draining" in sidecar.log())
        await client.send(b"ping")
        async with asyncio.timeout(10):
            assert await app.reader.readexactly(4) == b"ping"
            await app.send(b"pong")
            assert await client.reader.readexactly(4) == b"pong"
            assert sidecar.process.poll() is None
            with pytest.raises(ConnectionResetError):
                await client.reader.read()
            with pytest.raises(ConnectionResetError):
                await app.reader.read()
        assert await asyncio.to_thread(sidecar.process.wait, 10) == 0


async def test_draining_ends_with_the_last_tunnel(tmp_path: Path) -> None:
    """No longer than it has to."""
    async with websocket_mesh(tmp_path) as (pair, _):
        async with dial(pair) as ws:
            pair.b.process.terminate()
            await until(lambda: "draining" in pair.b.log())
            await ws.send("still")
            assert await ws.recv() == "still"
        assert await asyncio.to_thread(pair.b.process.wait, 10) == 0
        assert "cut" not in pair.b.log()
