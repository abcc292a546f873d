"""
Who shares a connection between two sidecars: bulk flows get about the same, stalled ones get nothing.

nghttp2 serves one stream after another where it may (RFC 9218 without `i`), so what makes eight
flows equal is ours: everything is drained with every flush, no stream may queue more than its
high-water mark, and the window of the connection is never what binds.

Bodies of HTTP, streams of gRPC and opaque connections share alike, the last a connection that is
theirs.  `STALLED_SECONDS=30` in the environment has those that stall do so for that long, while
their neighbours go on; otherwise, neighbours are served twice.
"""

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest
from websockets.asyncio.client import connect as connect_websocket
from websockets.asyncio.server import ServerConnection, serve

from tests.helpers.client import Client, connect
from tests.helpers.origin import Conversation, hello, origin
from tests.helpers.pair import Pair
from tests.integration.test_grpc import UNLIMITED
from tests.integration.test_tcp import echo, through

STALLED_SECONDS = float(os.environ.get("STALLED_SECONDS", "0"))

pytestmark = [pytest.mark.integration, pytest.mark.timeout(120 + STALLED_SECONDS)]

MIB = 1 << 20
FLOWS = 8
ENOUGH = 16 * MIB
"""Bytes of each flow, on the average: many windows' worth."""

BLOCK = b"10000\r\n" + bytes(0x10000) + b"\r\n"


class Shares:
    """
    How many bytes each flow has had; `enough` is set when together they have had enough.

    Counted from the moment in which all have begun: a quick machine moves the first ones' share of
    what is enough before the last has connected.
    """

    def __init__(self) -> None:
        self.of: dict[int, int] = {}
        self.enough = asyncio.Event()
        self._begun: set[int] = set()

    def add(self, flow: int, amount: int) -> None:
        self._begun.add(flow)
        if len(self._begun) == FLOWS and not self.enough.is_set():
            self.of[flow] = self.of.get(flow, 0) + amount
            if sum(self.of.values()) > FLOWS * ENOUGH:
                self.enough.set()


async def run_until_enough(
    shares: Shares, flow: Callable[[int], Awaitable[None]], flows: int = FLOWS
) -> None:
    tasks = [asyncio.ensure_future(flow(number)) for number in range(flows)]
    try:
        async with asyncio.timeout(60):
            await shares.enough.wait()
    finally:
        for task in tasks:
            task.cancel()
        with contextlib.suppress(ConnectionError, asyncio.CancelledError):
            await asyncio.gather(*tasks, return_exceptions=True)


async def endless(conversation: Conversation) -> None:
    """Send without end, or take without end, or just say hello."""
    path = conversation.request_line.split()[1]
    if path == b"/down":
        await conversation.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        while True:
            await conversation.send(BLOCK)
    await hello(conversation)


async def ask_for_much(client: Client) -> None:
    await client.send(b"GET /down HTTP/1.1\r\nHost: catalog\r\n\r\n")
    await client.head()


async def test_eight_downloads_share_the_connection(tmp_path: Path) -> None:
    """The slowest gets at least half of what the fastest gets, also beside those that do not read."""
    async with origin(endless) as app:
        with Pair(tmp_path, app.port) as pair:
            shares = Shares()

            async def download(number: int) -> None:
                async with connect(pair.door) as client:
                    await ask_for_much(client)
                    while data := await client.reader.read(MIB):
                        shares.add(number, len(data))

            async with AsyncExitStack() as stalled:
                for _ in range(10):  # they have asked, and never read
                    await ask_for_much(await stalled.enter_async_context(connect(pair.door)))
                await run_until_enough(shares, download)
            assert len(shares.of) == FLOWS
            assert 2 * min(shares.of.values()) >= max(shares.of.values()), shares.of


async def test_eight_uploads_share_the_connection(tmp_path: Path) -> None:
    """In the other direction, where no client can say how it wants to be served."""
    shares = Shares()

    async def take(conversation: Conversation) -> None:
        flow = int(conversation.request_line.split()[1][1:])
        while data := await conversation.reader.read(MIB):  # an end read again would never wait
            shares.add(flow, len(data))

    async with origin(take) as app:
        with Pair(tmp_path, app.port) as pair:

            async def upload(number: int) -> None:
                async with connect(pair.door) as client:
                    await client.send(
                        b"POST /%d HTTP/1.1\r\nHost: catalog\r\n"
                        b"Transfer-Encoding: chunked\r\n\r\n" % number
                    )
                    while True:
                        await client.send(BLOCK)

            await run_until_enough(shares, upload)
            assert len(shares.of) == FLOWS
            assert 2 * min(shares.of.values()) >= max(shares.of.values()), shares.of


# gRPC ---------------------------------------------------------------------------------------------

MESSAGE = bytes(0x10000)


class Endless(grpc.GenericRpcHandler):  # type: ignore[misc]  # no types
    """
    `Down` sends without end, `Up` takes without end and counts, `Deaf` takes nothing, `Echo` answers.

    Attributes:
        deaf: How many calls to `Deaf` have begun.
        go: What these wait for.
    """

    def __init__(self, shares: Shares | None = None) -> None:
        self.deaf = 0
        self.go = asyncio.Event()
        self._shares = shares
        self._methods = {
            "Down": grpc.unary_stream_rpc_method_handler(self._down),
            "Up": grpc.stream_unary_rpc_method_handler(self._up),
            "Deaf": grpc.stream_unary_rpc_method_handler(self._take_nothing),
            "Echo": grpc.unary_unary_rpc_method_handler(self._echo),
        }

    def service(self, details: Any) -> Any:
        return self._methods.get(details.method.rpartition("/")[2])

    async def _down(self, request: bytes, context: Any) -> AsyncIterator[bytes]:
        while True:
            yield MESSAGE

    async def _up(self, messages: AsyncIterator[bytes], context: Any) -> bytes:
        assert self._shares is not None
        flow = int(dict(context.invocation_metadata())["flow"])
        async for message in messages:
            self._shares.add(flow, len(message))
        return b""

    async def _take_nothing(self, messages: AsyncIterator[bytes], context: Any) -> bytes:
        self.deaf += 1
        await self.go.wait()
        return b""

    async def _echo(self, request: bytes, context: Any) -> bytes:
        return request


@asynccontextmanager
async def grpc_server(service: Endless) -> AsyncIterator[int]:
    """Serve, and yield the port."""
    server = grpc.aio.server(options=UNLIMITED)
    server.add_generic_rpc_handlers((service,))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        yield port
    finally:
        await server.stop(0)


def grpc_channel(port: int) -> Any:
    return grpc.aio.insecure_channel(f"127.0.0.1:{port}", options=UNLIMITED)


@pytest.mark.parametrize("direction", ["down", "up"])
async def test_eight_calls_share_the_connection(tmp_path: Path, direction: str) -> None:
    """Streams of messages, on one channel."""
    shares = Shares()
    async with grpc_server(Endless(shares)) as port:
        with Pair(tmp_path, port, app_protocol="http2") as pair:
            async with grpc_channel(pair.door) as channel:

                async def download(number: int) -> None:
                    async for message in channel.unary_stream("/test/Down")(b""):
                        shares.add(number, len(message))

                async def upload(number: int) -> None:
                    call = channel.stream_unary("/test/Up")(metadata=(("flow", str(number)),))
                    while True:
                        await call.write(MESSAGE)

                await run_until_enough(shares, download if direction == "down" else upload)
            assert len(shares.of) == FLOWS
            assert 2 * min(shares.of.values()) >= max(shares.of.values()), shares.of


# Opaque connections -------------------------------------------------------------------------------


async def pour(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Send without end."""
    await reader.readexactly(1)
    while True:
        writer.write(MESSAGE)
        await writer.drain()


@pytest.mark.parametrize("direction", ["down", "up"])
async def test_eight_tunnels_share_the_connection(tmp_path: Path, direction: str) -> None:
    """Streams of a trunk."""
    shares = Shares()

    async def take(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        flow = (await reader.readexactly(1))[0]
        while data := await reader.read(MIB):
            shares.add(flow, len(data))

    async with through(tmp_path, pour if direction == "down" else take) as pair:

        async def download(number: int) -> None:
            async with connect(pair.door) as client:
                await client.send(b"p")
                while data := await client.reader.read(MIB):
                    shares.add(number, len(data))

        async def upload(number: int) -> None:
            async with connect(pair.door) as client:
                await client.send(bytes([number]))
                while True:
                    await client.send(MESSAGE)

        await run_until_enough(shares, download if direction == "down" else upload)
    assert len(shares.of) == FLOWS
    assert 2 * min(shares.of.values()) >= max(shares.of.values()), shares.of


# Those that stall ---------------------------------------------------------------------------------

Write = Callable[[bytes], Awaitable[None]]


async def write_for_ever(write: Write) -> None:
    while True:
        await write(MESSAGE)


@asynccontextmanager
async def writing(each: Sequence[Write]) -> AsyncIterator[list[asyncio.Task[None]]]:
    """Write to each of them without end, until the end of the block."""
    tasks = [asyncio.create_task(write_for_ever(write)) for write in each]
    try:
        yield tasks
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def while_stalled(serve_all: Callable[[], Awaitable[None]]) -> None:
    """Have the neighbours served twice, and again until it has been long enough."""
    loop = asyncio.get_running_loop()
    until = loop.time() + STALLED_SECONDS
    rounds = 0
    while rounds < 2 or loop.time() < until:
        async with asyncio.timeout(60):
            await serve_all()
        rounds += 1


async def test_ninety_neighbours_of_ten_bodies(tmp_path: Path) -> None:
    """All have their answers while the ten hold what nobody takes; nothing waits for them."""
    async with origin(endless) as app:
        with Pair(tmp_path, app.port) as pair:
            async with AsyncExitStack() as open_:
                stalled = [await open_.enter_async_context(connect(pair.door)) for _ in range(10)]
                for client in stalled:
                    await ask_for_much(client)
                neighbours = [
                    await open_.enter_async_context(connect(pair.door)) for _ in range(90)
                ]

                async def serve_all() -> None:
                    for client in neighbours:
                        await client.send(b"GET / HTTP/1.1\r\nHost: catalog\r\n\r\n")
                    answers = [await client.response() for client in neighbours]
                    assert [answer.status for answer in answers] == [200] * 90

                await while_stalled(serve_all)
                assert not any(client.reader.at_eof() for client in stalled)
                [cluster] = pair.a.get("/clusters")
                assert cluster["endpoints"][0]["connections"] == 1


async def test_ninety_neighbours_of_ten_calls(tmp_path: Path) -> None:
    """Five that nobody reads, five that nobody takes, all on one channel with their neighbours."""
    service = Endless()
    async with grpc_server(service) as port:
        with Pair(tmp_path, port, app_protocol="http2") as pair:
            async with grpc_channel(pair.door) as channel:
                unread = [channel.unary_stream("/test/Down")(b"") for _ in range(5)]
                for call in unread:
                    assert await call.read() == MESSAGE
                untaken = [channel.stream_unary("/test/Deaf")() for _ in range(5)]
                async with writing([call.write for call in untaken]) as writers:
                    async with asyncio.timeout(20):
                        while service.deaf < 5:
                            await asyncio.sleep(0.01)

                    async def serve_all() -> None:
                        bodies = [b"%d" % number * 10_000 for number in range(90)]
                        call = channel.unary_unary("/test/Echo")
                        assert await asyncio.gather(*map(call, bodies)) == bodies

                    await while_stalled(serve_all)
                    assert not any(call.done() for call in (*unread, *untaken, *writers))
                    [cluster] = pair.a.get("/clusters")
                    assert cluster["endpoints"][0]["connections"] == 1
                service.go.set()


async def test_ninety_neighbours_of_ten_opaque_connections(tmp_path: Path) -> None:
    """Five that nobody reads, five that nobody takes, on one trunk with their neighbours."""
    go = asyncio.Event()

    async def app(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        match await reader.readexactly(1):
            case b"p":
                await pour(reader, writer)
            case b"d":
                await go.wait()
            case _:
                await echo(reader, writer)

    async with through(tmp_path, app) as pair, AsyncExitStack() as open_:
        stalled = [await open_.enter_async_context(connect(pair.door)) for _ in range(10)]
        for client in stalled[:5]:
            await client.send(b"pp")
            client.writer.transport.pause_reading()  # type: ignore[attr-defined]
        for client in stalled[5:]:
            await client.send(b"d")
        async with writing([client.send for client in stalled[5:]]) as writers:
            neighbours = [await open_.enter_async_context(connect(pair.door)) for _ in range(90)]
            for client in neighbours:
                await client.send(b"e")

            async def serve_all() -> None:
                for client in neighbours:
                    await client.send(b"y" * 10_000)
                for client in neighbours:
                    assert await client.reader.readexactly(10_000) == b"y" * 10_000

            await while_stalled(serve_all)
            assert not any(writer.done() for writer in writers)
            [cluster] = pair.a.get("/clusters")
            assert cluster["endpoints"][0]["trunks"]["connections"] == 1
        go.set()


async def test_ninety_neighbours_of_ten_websockets(tmp_path: Path) -> None:
    """Tunnels on a connection of requests: five that nobody reads, five that nobody takes."""
    go = asyncio.Event()

    async def app(websocket: ServerConnection) -> None:
        async for message in websocket:
            if message == "pour":
                await write_for_ever(websocket.send)
            if message == "deaf":
                await go.wait()
                return
            await websocket.send(message)

    async with AsyncExitStack() as stack:
        server = await stack.enter_async_context(
            serve(app, "127.0.0.1", 0, max_queue=1, compression=None)
        )
        pair = Pair(tmp_path, next(iter(server.sockets)).getsockname()[1])
        await asyncio.to_thread(pair.__enter__)
        stack.push_async_callback(asyncio.to_thread, pair.__exit__)
        url = f"ws://127.0.0.1:{pair.door}/"
        dialled = [
            await connect_websocket(url, proxy=None, max_queue=1, compression=None)
            for _ in range(100)
        ]
        stalled, neighbours = dialled[:10], dialled[10:]
        for websocket in stalled[:5]:
            await websocket.send("pour")
        for websocket in stalled[5:]:
            await websocket.send("deaf")
        async with writing([websocket.send for websocket in stalled[5:]]) as writers:

            async def serve_all() -> None:
                bodies = [b"%d" % number * 1_000 for number in range(90)]
                for websocket, body in zip(neighbours, bodies, strict=True):
                    await websocket.send(body)
                assert [await websocket.recv() for websocket in neighbours] == bodies

            await while_stalled(serve_all)
            assert not any(writer.done() for writer in writers)
            [cluster] = await asyncio.to_thread(pair.a.get, "/clusters")
            assert cluster["endpoints"][0]["connections"] == 1
        go.set()
        for websocket in dialled:
            websocket.transport.abort()
