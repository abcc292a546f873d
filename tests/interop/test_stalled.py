"""Bodies that nobody takes, and their neighbours on the connection between two sidecars."""

import asyncio
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from tests.helpers.client import connect, get
from tests.helpers.http2 import GET, POST
from tests.helpers.http2_peers import http2_client
from tests.helpers.origin import Conversation, hello, origin
from tests.helpers.services import Service, Services
from tests.interop.witness import BODY

pytestmark = pytest.mark.integration

MIB = 1 << 20
SIZE = 48 * MIB


async def test_stalled_bodies_do_not_delay_their_neighbours(tmp_path: Path) -> None:
    """
    Five downloads that nobody reads and five uploads that nobody takes, of HTTP/1.1 and of HTTP/2
    clients: ninety neighbours complete meanwhile, and the ten arrive whole when they may.
    """
    go = asyncio.Event()
    deaf = 0

    async def serve(conversation: Conversation) -> None:
        nonlocal deaf
        path = conversation.request_line.split()[1]
        if path == b"/large":
            await conversation.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % SIZE)
            await conversation.send(b"d" * SIZE)
            return
        if path == b"/deaf":
            deaf += 1
            await go.wait()
        await hello(conversation)

    async with AsyncExitStack() as stack:
        app = await stack.enter_async_context(origin(serve))
        services = Services(tmp_path, [Service("app", app.port)])
        await asyncio.to_thread(stack.enter_context, services)
        door = services.doors["app"]
        client = await stack.enter_async_context(http2_client(door))
        old = [await stack.enter_async_context(connect(door)) for _ in range(5)]
        before = services.a.rss() + services.b.rss()

        unread = [client.ask([*GET[:3], (":path", "/large")]) for _ in range(3)]
        for connection in old[:2]:
            await connection.send(b"GET /large HTTP/1.1\r\nHost: a\r\n\r\n")
        untaken = [client.ask([*POST[:3], (":path", "/deaf")], end=False) for _ in range(3)]
        writers = [asyncio.create_task(stream.body(b"u" * SIZE)) for stream in untaken]
        head = b"POST /deaf HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % SIZE
        writers += [asyncio.create_task(one.send(head + b"u" * SIZE)) for one in old[2:4]]
        async with asyncio.timeout(20):
            while deaf < 5:
                await asyncio.sleep(0.01)

        async def neighbour(number: int) -> bytes:
            if number % 3 == 0:
                return (await get(door, "/n")).body
            stream = client.ask([*POST[:3], (":path", "/n")], end=False)
            await stream.body(BODY[:100_000])
            return (await stream.message()).body

        answers = await asyncio.gather(*[neighbour(number) for number in range(90)])
        assert answers == [b"/n 100000" if number % 3 else b"/n 0" for number in range(90)]
        assert not any(writer.done() for writer in writers)
        [cluster] = await asyncio.to_thread(services.a.get, "/clusters")
        assert cluster["endpoints"][0]["connections"] == 1
        # What waits is bounded by the windows of each stream, not by what there is to say.
        assert services.a.rss() + services.b.rss() - before < 90 * MIB

        go.set()
        await asyncio.gather(*writers)
        uploads = [(await stream.message()).body for stream in untaken]
        uploads += [(await one.response()).body for one in old[2:4]]
        assert uploads == [b"/deaf %d" % SIZE] * 5
        downloads = [(await stream.message()).body for stream in unread]
        downloads += [(await one.response()).body for one in old[:2]]
        assert downloads == [b"d" * SIZE] * 5
