"""
The event loop that we run on: a descriptor that it closes twice closes somebody else's connection.

uvloop did so before 0.23 when a connection attempt was cancelled at the wrong moment (its #740, seen as
"data leakage under heavy load" in #645, #646 and #738): bytes of one client went to another.
"""

import asyncio
import contextlib
import random
import socket
from importlib.metadata import version

import uvloop

STREAMS = 20
CANCELLED = 2_000


async def _echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(ConnectionError):
        while data := await reader.read(65536):
            writer.write(data)
    writer.close()


async def _talk(port: int, number: int, done: asyncio.Event) -> int:
    """Say something of one's own and hear it, again and again; return how often."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    said = 0
    while not done.is_set():
        word = b"%04d %08d\n" % (number, said)
        writer.write(word)
        assert await reader.readexactly(len(word)) == word, "somebody else's bytes"
        said += 1
    writer.close()
    return said


async def _dial(port: int, chosen: random.Random, done: asyncio.Event) -> None:
    loop = asyncio.get_running_loop()
    for _ in range(CANCELLED // 4):
        dial = loop.create_task(loop.create_connection(asyncio.Protocol, "127.0.0.1", port))
        for _ in range(chosen.randrange(4)):
            await asyncio.sleep(0)
        dial.cancel()
        with contextlib.suppress(asyncio.CancelledError, OSError):
            transport, _ = await dial
            transport.abort()
    done.set()


async def _all() -> list[int]:
    server = await asyncio.start_server(_echo, "127.0.0.1", 0, backlog=socket.SOMAXCONN)
    port = server.sockets[0].getsockname()[1]
    chosen, done = random.Random(7), asyncio.Event()
    async with asyncio.TaskGroup() as group:
        talks = [group.create_task(_talk(port, number, done)) for number in range(STREAMS)]
        for _ in range(4):
            group.create_task(_dial(port, chosen, done))
    server.close()
    return [talk.result() for talk in talks]


def test_no_byte_crosses_when_connects_are_cancelled() -> None:
    """Thousands of them, at any moment, beside streams that tell whose bytes they hear."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        assert all(runner.run(_all()))


def test_it_is_a_version_that_was_mended() -> None:
    """Also where the test above has luck."""
    assert tuple(map(int, version("uvloop").split(".")[:2])) >= (0, 23)
