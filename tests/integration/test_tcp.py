"""Opaque TCP through two real sidecars: whatever the apps say and do arrives, and nothing else."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.helpers.client import connect
from tests.helpers.tcp_pair import TcpPair

pytestmark = pytest.mark.integration

App = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@asynccontextmanager
async def through(directory: Path, app: App, **options: Any) -> AsyncIterator[TcpPair]:
    """Serve `app` behind two sidecars."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            await app(reader, writer)
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0, limit=1 << 20)
    pair = TcpPair(directory, server.sockets[0].getsockname()[1], **options)
    await asyncio.to_thread(pair.__enter__)
    try:
        yield pair
    finally:
        await asyncio.to_thread(pair.__exit__)
        server.close()


async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(65536):
        writer.write(data)
        await writer.drain()


async def test_echo(tmp_path: Path) -> None:
    """What is said comes back, on many connections at once."""
    async with through(tmp_path, echo) as pair:

        async def talk(number: int) -> None:
            async with connect(pair.door) as client:
                for turn in range(5):
                    said = b"%d.%d" % (number, turn)
                    await client.send(said)
                    assert await client.reader.readexactly(len(said)) == said
                client.writer.write_eof()
                assert await client.rest() == b""

        await asyncio.gather(*(talk(number) for number in range(50)))


async def test_each_half_ends_on_its_own(tmp_path: Path) -> None:
    """3 MB and an end; the answer comes after the end, and is complete."""

    async def count(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        total = len(await reader.read())
        writer.write(b"%d" % total + b"." * 3_000_000)
        await writer.drain()

    async with through(tmp_path, count) as pair, connect(pair.door) as client:
        await client.send(b"x" * 3_000_000)
        client.writer.write_eof()
        assert await client.rest() == b"3000000" + b"." * 3_000_000


async def test_server_speaks_first(tmp_path: Path) -> None:
    """A greeting arrives although the client has said nothing."""

    async def greet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"220 mail ESMTP\r\n")
        assert await reader.readline() == b"QUIT\r\n"
        writer.write(b"221 bye\r\n")

    async with through(tmp_path, greet) as pair, connect(pair.door) as client:
        assert await client.reader.readline() == b"220 mail ESMTP\r\n"
        await client.send(b"QUIT\r\n")
        assert await client.rest() == b"221 bye\r\n"
