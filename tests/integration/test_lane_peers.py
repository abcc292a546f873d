"""Lanes and the processes at their ends: older ones, newer ones that take over, and ones that leave."""

import asyncio
import contextlib
from pathlib import Path

import pytest

from tests.helpers.client import Client, connect
from tests.helpers.environment import until
from tests.helpers.pair import Sidecar, until_ready
from tests.helpers.tcp_pair import TcpPair
from tests.integration.test_bulk import MIB, blocks, expected, hashed, mirror
from tests.integration.test_hot_restart import ended
from tests.integration.test_lanes import lanes
from tests.integration.test_mtls import metric
from tests.integration.test_tcp import echo, served, teach, through, torn

pytestmark = pytest.mark.integration

OLDER = """
from meshproxy.identity import tls
new = tls.server_context
def without_lanes(*about):
    context = new(*about)
    context.set_alpn_protocols([*tls.ALPN, tls.ALPN_TCP])
    return context
tls.server_context = without_lanes
from meshproxy.__main__ import main
main()
"""


async def say(client: Client, word: bytes = b"hello") -> None:
    """Have it echoed."""
    await client.send(word)
    async with asyncio.timeout(30):
        assert await client.reader.readexactly(len(word)) == word


async def accepted(pair: TcpPair) -> float:
    """Return how many connections of its peer the second sidecar has accepted."""
    return await metric(
        pair.b, "mesh_connections_opened_total", side="downstream", direction="inbound"
    )


def start_older(sidecar: Sidecar) -> None:
    sidecar.process = sidecar.launch(program=("-c", OLDER))
    until_ready(sidecar.admin, sidecar.process, sidecar.log)


async def test_a_peer_that_is_older(tmp_path: Path) -> None:
    """
    It agrees to a trunk where it is asked for a lane: one connection has waited for that, and it and
    those after it go over the trunk.  When a newer process has taken its place, lanes are used at once.
    """
    async with through(tmp_path, echo, lanes=True) as pair:
        pair.b.process.kill()
        pair.b.process.wait()
        await asyncio.to_thread(start_older, pair.b)
        async with contextlib.AsyncExitStack() as stack:
            clients = [await stack.enter_async_context(connect(pair.door)) for _ in range(5)]
            for client in clients:
                await say(client)
            assert await asyncio.to_thread(lanes, pair.a) == 0
            assert await accepted(pair) <= 2  # the trunk, and perhaps it has heard of the attempt
            assert await metric(pair.a, "mesh_refusals_total") == 0

            await asyncio.to_thread(pair.b.restart)
            newer = await stack.enter_async_context(connect(pair.door))
            await say(newer)
            assert await asyncio.to_thread(lanes, pair.a) == 1
            for client in clients:
                await say(client)


class App:
    """
    What the first byte of a connection asks for: `m` a mirror, `e` an echo, `d` (down) bytes without
    end; else it only listens.

    Attributes:
        ends: How all but mirrors have ended.
    """

    def __init__(self) -> None:
        self.ends: list[str] = []

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        what = await reader.read(1)
        if what == b"m":
            return await mirror(reader, writer)
        pouring = asyncio.create_task(pour(writer)) if what == b"d" else None
        try:
            while data := await reader.read(MIB):
                if what == b"e":
                    writer.write(data)
        except ConnectionResetError:
            self.ends.append("reset")
        else:
            self.ends.append("end")
        if pouring is not None:
            pouring.cancel()
        return None


async def pour(writer: asyncio.StreamWriter) -> None:
    """Say as much as is taken."""
    with contextlib.suppress(ConnectionError):
        while True:
            writer.write(bytes(65536))
            await writer.drain()


async def test_new_processes_take_over(tmp_path: Path) -> None:
    """
    What moves on a lane ends where it began, whichever side is replaced: unchanged, with each half's
    end, within the grace period; and then the old process ends.  After it, both ends see a reset.
    """
    app = App()
    async with contextlib.AsyncExitStack() as stack:
        pair = TcpPair(tmp_path, await stack.enter_async_context(served(app)))
        sides = pair.a, pair.b
        for sidecar in sides:
            sidecar.settings["drain_seconds"] = 60
        await asyncio.to_thread(pair.__enter__)
        stack.push_async_callback(asyncio.to_thread, pair.__exit__)

        async def lane(word: bytes) -> Client:
            client = await stack.enter_async_context(connect(pair.door))
            await client.send(word)
            return client

        await teach(pair)
        mover, talker = await lane(b"m"), await lane(b"e")
        await say(talker)
        material = list(blocks(24))
        for block in material[:8]:
            await mover.send(block)
        assert await asyncio.to_thread(lanes, pair.a) == 2
        for sidecar in sides:
            sidecar.settings["drain_seconds"] = 1
            await asyncio.to_thread(sidecar.restart)
        for block in material[8:]:
            await mover.send(block)
        mover.writer.write_eof()
        await say(talker)
        async with asyncio.timeout(60):
            assert (await mover.reader.readexactly(64)).decode() == expected(24)
            assert await hashed(mover.reader, 24 * MIB) == expected(24)
        assert await mover.rest() == b""
        talker.writer.write_eof()
        assert await talker.rest() == b""
        for sidecar in sides:
            assert await ended(sidecar.relieved[0]) == 0
            assert "not drained in time" not in sidecar.log()
        assert app.ends == ["end"] * 2  # of `teach`, too

        await teach(pair)
        for sidecar in (pair.b, pair.a):
            talker = await lane(b"e")
            await say(talker)
            assert await asyncio.to_thread(lanes, pair.a) == 1
            app.ends.clear()
            await asyncio.to_thread(sidecar.restart)
            await torn(talker)
            await until(lambda: app.ends == ["reset"])
            assert await ended(sidecar.relieved[1]) == 0


@pytest.mark.parametrize("victim", ["a", "b"])
async def test_who_is_killed_has_not_ended(tmp_path: Path, victim: str) -> None:
    """
    `kill -9` of either sidecar, of connections on the trunk and on lanes: silent ones, with bytes on
    their way up, and down.  Client and app see a reset each: an end would mean that this was all.
    """
    app = App()
    async with contextlib.AsyncExitStack() as stack:
        pair = TcpPair(tmp_path, await stack.enter_async_context(served(app)))
        await asyncio.to_thread(pair.__enter__)
        stack.push_async_callback(asyncio.to_thread, pair.__exit__)
        clients: list[Client] = []

        async def begin() -> None:
            for word in (b"e", b"u", b"d"):
                client = await stack.enter_async_context(connect(pair.door))
                await client.send(word)
                if word == b"e":
                    await say(client)
                elif word == b"u":
                    pouring = asyncio.create_task(pour(client.writer))
                    stack.callback(pouring.cancel)
                else:
                    await client.reader.readexactly(MIB)
                clients.append(client)

        await begin()
        await teach(pair)
        await begin()
        assert await asyncio.to_thread(lanes, pair.a) == 3
        app.ends.clear()
        process = (pair.a if victim == "a" else pair.b).process
        process.kill()
        process.wait()
        for client in clients:
            await torn(client)
        await until(lambda: len(app.ends) == len(clients))
        assert set(app.ends) == {"reset"}
