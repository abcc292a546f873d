"""
Who shares a connection between two sidecars: bulk flows get about the same, stalled ones get nothing.

nghttp2 serves one stream after another where it may (RFC 9218 without `i`), so what makes eight
flows equal is ours: everything is drained with every flush, no stream may queue more than its
high-water mark, and the window of the connection is never what binds.
"""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from pathlib import Path

from tests.helpers.client import Client, connect
from tests.helpers.origin import Conversation, hello, origin
from tests.helpers.pair import Pair

MIB = 1 << 20
FLOWS = 8
ENOUGH = 4 * MIB
"""Bytes of each flow, on the average: many windows' worth."""

BLOCK = b"10000\r\n" + bytes(0x10000) + b"\r\n"


class Shares:
    """How many bytes each flow has had; `enough` is set when together they have had enough."""

    def __init__(self) -> None:
        self.of: dict[int, int] = {}
        self.enough = asyncio.Event()

    def add(self, flow: int, amount: int) -> None:
        if not self.enough.is_set():
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
                    while True:
                        shares.add(number, len(await client.reader.read(MIB)))

            async with contextlib.AsyncExitStack() as stalled:
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
        while True:
            shares.add(flow, len(await conversation.reader.read(MIB)))

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


async def test_ninety_neighbours_of_ten_that_are_stalled(tmp_path: Path) -> None:
    """All have their answers while the ten hold what nobody takes; nothing waits for them."""
    async with origin(endless) as app:
        with Pair(tmp_path, app.port) as pair:
            async with contextlib.AsyncExitStack() as open_:
                stalled = [await open_.enter_async_context(connect(pair.door)) for _ in range(10)]
                for client in stalled:
                    await ask_for_much(client)
                neighbours = [
                    await open_.enter_async_context(connect(pair.door)) for _ in range(90)
                ]
                for _ in range(5):
                    for client in neighbours:
                        await client.send(b"GET / HTTP/1.1\r\nHost: catalog\r\n\r\n")
                    answers = [await client.response() for client in neighbours]
                    assert [answer.status for answer in answers] == [200] * 90
                    assert not any(client.reader.at_eof() for client in stalled)
                [cluster] = pair.a.get("/clusters")
                assert cluster["endpoints"][0]["connections"] == 1
