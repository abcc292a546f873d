"""
Much, by every protocol, both ways: it arrives as it was, and neither sidecar grows.

`BULK_MIB=1024` in the environment passes a GiB up and a GiB down; 32 MiB otherwise, which is many
times what there is room for on the way.  What counts is the greatest memory that a sidecar had
meanwhile, not what it has left of it.
"""

import asyncio
import hashlib
import os
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest
from websockets.asyncio.client import connect as connect_websocket
from websockets.asyncio.server import ServerConnection, serve

from tests.helpers.client import Client, connect
from tests.helpers.http2 import POST
from tests.helpers.http2_peers import Stream, http2_app, http2_client
from tests.helpers.origin import Conversation, origin
from tests.helpers.pair import Pair, Sidecar
from tests.helpers.tcp_pair import TcpPair
from tests.integration.test_grpc import UNLIMITED
from tests.integration.test_tcp import BOTH_WAYS, through

MIB = 1 << 20
MUCH = int(os.environ.get("BULK_MIB", "32"))
LITTLE = 4
GROWTH = 12 * MIB

pytestmark = [pytest.mark.integration, pytest.mark.timeout(60 + MUCH)]

MATERIAL = random.Random(1).randbytes(2 * MIB)

RoundTrip = Callable[[int], Awaitable[tuple[str, str]]]
"""Passes so many MiB up, and as many down; returns what the app and what the client has hashed."""


def blocks(count: int) -> Iterator[bytes]:
    """Yield so many MiB, no two of them alike: what is lost, doubled or out of order shows."""
    for number in range(count):
        start = number * 257 % MIB
        yield MATERIAL[start : start + MIB]


def expected(count: int) -> str:
    digest = hashlib.sha256()
    for block in blocks(count):
        digest.update(block)
    return digest.hexdigest()


async def hashed(reader: asyncio.StreamReader, size: int) -> str:
    digest = hashlib.sha256()
    while size:
        data = await reader.read(min(size, MIB))
        assert data, f"{size} bytes are missing"
        digest.update(data)
        size -= len(data)
    return digest.hexdigest()


async def passes(pair: Pair | TcpPair, round_trip: RoundTrip) -> None:
    """Pass little, so that all is in place that is needed; then much, and look at the memory."""
    assert await round_trip(LITTLE) == (expected(LITTLE),) * 2
    sidecars = pair.a, pair.b
    before = [sidecar.rss() for sidecar in sidecars]
    for sidecar in sidecars:
        forget_peak(sidecar)
    assert await round_trip(MUCH) == (expected(MUCH),) * 2
    growth = [peak(sidecar) - rss for sidecar, rss in zip(sidecars, before, strict=True)]
    print("growth in MiB:", [round(one / MIB, 1) for one in growth])
    assert max(growth) < GROWTH, growth


def forget_peak(sidecar: Sidecar) -> None:
    """Let the kernel count the greatest resident memory from now on: 5, see proc(5)."""
    Path(f"/proc/{sidecar.process.pid}/clear_refs").write_text("5")


def peak(sidecar: Sidecar) -> int:
    status = Path(f"/proc/{sidecar.process.pid}/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) * 1024


# HTTP ---------------------------------------------------------------------------------------------


async def test_http1(tmp_path: Path) -> None:
    """One request and its answer, on one connection."""

    async def answer(conversation: Conversation) -> None:
        size = int(conversation.header("content-length") or 0)
        digest = await hashed(conversation.reader, size)
        await conversation.send(
            b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\nX-Digest: %b\r\n\r\n"
            % (size, digest.encode())
        )
        for block in blocks(size // MIB):
            await conversation.send(block)

    async with origin(answer) as app, started(Pair(tmp_path, app.port)) as pair:

        async def round_trip(count: int) -> tuple[str, str]:
            async with connect(pair.door) as client:
                await client.send(
                    b"PUT / HTTP/1.1\r\nHost: catalog\r\nContent-Length: %d\r\n\r\n" % (count * MIB)
                )
                for block in blocks(count):
                    await client.send(block)
                head = await client.reader.readuntil(b"\r\n\r\n")
                assert head.startswith(b"HTTP/1.1 200 ")
                above = head.lower().partition(b"x-digest: ")[2].split(b"\r\n")[0].decode()
                return above, await hashed(client.reader, count * MIB)

        await passes(pair, round_trip)


async def test_http2(tmp_path: Path) -> None:
    """On one stream, HTTP/2 on every leg."""

    async def heard(stream: Stream) -> str:
        """Hash the body, to its end."""
        digest = hashlib.sha256()
        ended = False
        while not ended:
            frame = await stream.next()
            assert frame.kind != "RstStream"
            if frame.kind == "Data":
                digest.update(frame.frame.data)
            ended = frame.ended
        return digest.hexdigest()

    async def answer(stream: Stream) -> None:
        head = await stream.next()
        count = int(dict(head.headers or [])["x-count"])
        stream.head([(":status", "200"), ("x-digest", await heard(stream))])
        for block in blocks(count):
            await stream.body(block, end=False)
        stream.end()

    async with (
        http2_app(answer) as app,
        started(Pair(tmp_path, app.port, app_protocol="http2")) as pair,
        http2_client(pair.door) as client,
    ):

        async def round_trip(count: int) -> tuple[str, str]:
            stream = client.ask([*POST, ("x-count", str(count))], end=False)
            for block in blocks(count):
                await stream.body(block, end=False)
            stream.end()
            head = dict((await stream.next()).headers or [])
            return head["x-digest"], await heard(stream)

        await passes(pair, round_trip)


# gRPC ---------------------------------------------------------------------------------------------


class Mirror(grpc.GenericRpcHandler):  # type: ignore[misc]  # no types
    """Takes messages to the last, then gives back as many MiB; what it has hashed comes behind."""

    def service(self, details: Any) -> Any:
        return grpc.stream_stream_rpc_method_handler(self._mirror)

    async def _mirror(self, messages: AsyncIterator[bytes], context: Any) -> AsyncIterator[bytes]:
        digest, size = hashlib.sha256(), 0
        async for message in messages:
            digest.update(message)
            size += len(message)
        context.set_trailing_metadata((("x-digest", digest.hexdigest()),))
        for message in messages_of_4_mib(size // MIB):
            yield message


def messages_of_4_mib(count: int) -> Iterator[bytes]:
    """Yield so many MiB four by four."""
    each = blocks(count)
    for block in each:
        yield b"".join((block, *(next(each, b"") for _ in range(3))))


async def test_grpc(tmp_path: Path) -> None:
    """On one call, in messages of 4 MiB."""
    server = grpc.aio.server(options=UNLIMITED)
    server.add_generic_rpc_handlers((Mirror(),))
    pair = Pair(tmp_path, server.add_insecure_port("127.0.0.1:0"), app_protocol="http2")
    await server.start()
    async with (
        started(pair),
        grpc.aio.insecure_channel(f"127.0.0.1:{pair.door}", options=UNLIMITED) as channel,
    ):

        async def round_trip(count: int) -> tuple[str, str]:
            call = channel.stream_stream("/test/Mirror")()
            for message in messages_of_4_mib(count):
                await call.write(message)
            await call.done_writing()
            digest = hashlib.sha256()
            async for message in call:
                digest.update(message)
            return dict(await call.trailing_metadata())["x-digest"], digest.hexdigest()

        try:
            await passes(pair, round_trip)
        finally:
            await server.stop(0)


# What is not HTTP ---------------------------------------------------------------------------------


async def test_websocket(tmp_path: Path) -> None:
    """On one connection, in messages of a MiB."""

    async def mirror(websocket: ServerConnection) -> None:
        digest, count = hashlib.sha256(), int(await websocket.recv())
        for _ in range(count):
            message = await websocket.recv()
            assert isinstance(message, bytes)
            digest.update(message)
        await websocket.send(digest.hexdigest())
        for block in blocks(count):
            await websocket.send(block)

    async with serve(mirror, "127.0.0.1", 0, max_size=None, compression=None) as server:
        port = next(iter(server.sockets)).getsockname()[1]
        async with started(Pair(tmp_path, port)) as pair:

            async def round_trip(count: int) -> tuple[str, str]:
                digest = hashlib.sha256()
                async with connect_websocket(
                    f"ws://127.0.0.1:{pair.door}/", proxy=None, max_size=None, compression=None
                ) as websocket:
                    await websocket.send(str(count))
                    for block in blocks(count):
                        await websocket.send(block)
                    above = await websocket.recv()
                    for _ in range(count):
                        message = await websocket.recv()
                        assert isinstance(message, bytes)
                        digest.update(message)
                return str(above), digest.hexdigest()

            await passes(pair, round_trip)


async def mirror(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Take everything up to the end; give back what it hashes to, and as much again."""
    digest, size = hashlib.sha256(), 0
    while data := await reader.read(MIB):
        digest.update(data)
        size += len(data)
    writer.write(digest.hexdigest().encode())
    for block in blocks(size // MIB):
        writer.write(block)
        await writer.drain()


async def said_and_heard(client: Client, count: int) -> tuple[str, str]:
    """Talk to `mirror`."""
    await say_all(client, count)
    return await all_heard(client, count)


async def say_all(client: Client, count: int) -> None:
    for block in blocks(count):
        await client.send(block)
    client.writer.write_eof()


async def all_heard(client: Client, count: int) -> tuple[str, str]:
    above = (await client.reader.readexactly(64)).decode()
    below = await hashed(client.reader, count * MIB)
    assert await client.rest() == b""
    return above, below


@BOTH_WAYS
async def test_tcp(tmp_path: Path, lanes: bool) -> None:
    """
    On one opaque connection: a stream between the sidecars, or a connection of its own.  One beside it
    whose client does not read for as long costs nothing more, and comes to its end, too.
    """
    async with through(tmp_path, mirror, lanes=lanes) as pair:

        async def round_trip(count: int) -> tuple[str, str]:
            async with connect(pair.door) as client:
                return await said_and_heard(client, count)

        async with connect(pair.door) as slow:
            await say_all(slow, MUCH)
            slow.writer.transport.pause_reading()  # type: ignore[attr-defined]
            await passes(pair, round_trip)
            slow.writer.transport.resume_reading()  # type: ignore[attr-defined]
            assert await all_heard(slow, MUCH) == (expected(MUCH),) * 2


async def test_connect(tmp_path: Path) -> None:
    """Through a tunnel that the client has asked the proxy for."""
    async with through(tmp_path, mirror) as pair:

        async def round_trip(count: int) -> tuple[str, str]:
            async with connect(pair.outbound) as client:
                await client.send(b"CONNECT broker.default:5672 HTTP/1.1\r\nHost: broker\r\n\r\n")
                assert (await client.head()).status == 200
                return await said_and_heard(client, count)

        await passes(pair, round_trip)


@asynccontextmanager
async def started(pair: Pair) -> AsyncIterator[Pair]:
    await asyncio.to_thread(pair.__enter__)
    try:
        yield pair
    finally:
        await asyncio.to_thread(pair.__exit__)
