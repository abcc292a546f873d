"""When opaque connections have one of their own between two sidecars, and what holds for it."""

import asyncio
import contextlib
from pathlib import Path

import pytest

from meshproxy.contract.policies import LimitsSpec
from tests.helpers.client import connect
from tests.helpers.pair import Sidecar
from tests.helpers.tcp_pair import TcpPair
from tests.integration.test_mtls import counted, metric
from tests.integration.test_tcp import echo, opened, served, teach, through, torn, will_reset

pytestmark = pytest.mark.integration


def lanes(sidecar: Sidecar) -> int:
    """Return how many there are, by its own account."""
    [cluster] = sidecar.get("/clusters")
    return sum(endpoint["trunks"]["lanes"] for endpoint in cluster["endpoints"])


async def say(pair: TcpPair, word: bytes) -> None:
    """Have it echoed, on a connection of its own."""
    async with connect(pair.door) as client:
        await client.send(word)
        assert await client.reader.readexactly(len(word)) == word
        client.writer.write_eof()
        assert await client.rest() == b""


async def test_small_connections_share_the_trunk(tmp_path: Path) -> None:
    """However many they are."""
    async with through(tmp_path, echo) as pair:
        for _ in range(20):
            await say(pair, b"hello")
        assert await opened(pair.a) == 1


async def test_what_was_learned_is_forgotten_again(tmp_path: Path) -> None:
    """After some small ones the next goes over the trunk; each lane ends with its connection."""
    async with through(tmp_path, echo, lanes=True) as pair:
        async with connect(pair.door) as client:
            await client.send(b"x")
            assert await client.reader.readexactly(1) == b"x"
            assert await asyncio.to_thread(lanes, pair.a) == 1
        await counted(pair.a, 2, "mesh_tcp_connections_total")
        for _ in range(10):
            await say(pair, b"hello")
        before = await opened(pair.a)
        await say(pair, b"hello")
        assert await opened(pair.a) == before
        await until_none(pair.a)
        await until_none_accepted(pair)


async def until_none(sidecar: Sidecar) -> None:
    async with asyncio.timeout(10):
        while await asyncio.to_thread(lanes, sidecar):
            await asyncio.sleep(0.02)


async def until_none_accepted(pair: TcpPair) -> None:
    """The other end has its trunk, and nothing else."""
    await counted(pair.b, 1, "mesh_connections_active", side="downstream", direction="inbound")


def counts(sidecar: Sidecar) -> dict[str, float]:
    """Return all that is counted of opaque connections and refusals, by series."""
    lines = (line.rsplit(" ", 1) for line in sidecar.metrics().splitlines())
    wanted = ("mesh_tcp_", "mesh_refusals_", "mesh_retries_", "mesh_limit_")
    return {
        name: float(value)
        for name, value in lines
        if name.startswith(wanted) and not name.partition("{")[0].endswith("_created")
    }


async def test_they_count_as_others_do(tmp_path: Path) -> None:
    """
    The same conversations on the trunk and on lanes: bytes, ends, resets and who is above a limit are
    counted alike, on both sides, and nothing stays counted that is over.
    """

    async def app(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        what = await reader.read(1)
        if what == b"\0":
            await swallow(reader, writer)
        elif what == b"r":
            will_reset(writer)
        else:
            writer.write(what * 1000)
            await echo(reader, writer)

    async with served(app) as port:
        pair = TcpPair(tmp_path, port, limits=LimitsSpec(connections=1))
        await asyncio.to_thread(pair.__enter__)
        try:

            async def converse() -> list[dict[str, float]]:
                """Return what has been counted of it."""
                before = [await asyncio.to_thread(counts, side) for side in (pair.a, pair.b)]
                for number in range(3):  # one after the other: never above the limit of one
                    async with connect(pair.door) as client:
                        await client.send(b"e")
                        assert await client.reader.readexactly(1000) == b"e" * 1000
                        if number == 1:
                            with pytest.raises(ConnectionResetError):
                                async with connect(pair.door) as other:
                                    await other.rest()
                        client.writer.write_eof()
                        assert await client.rest() == b""
                async with connect(pair.door) as client:
                    await client.send(b"r")
                    await torn(client)
                async with connect(pair.door) as client:
                    await client.send(b"e")
                    await client.reader.readexactly(1000)
                    will_reset(client.writer)
                return await settled(pair, before)

            on_trunk = await converse()
            for _ in range(2):  # so that five small ones do not make it forget
                await teach(pair)
            made = await opened(pair.a)
            on_lanes = await converse()
            assert await opened(pair.a) - made == 5
            assert on_lanes == on_trunk
            [cluster] = await asyncio.to_thread(pair.a.get, "/clusters")
            assert cluster["limits"]["connections"]["now"] == 0
            assert cluster["endpoints"][0]["active"] == 0
        finally:
            await asyncio.to_thread(pair.__exit__)


async def settled(pair: TcpPair, before: list[dict[str, float]]) -> list[dict[str, float]]:
    """Return by how much everything has grown, once nothing is open."""
    for side in (pair.a, pair.b):
        async with asyncio.timeout(20):
            while await metric(side, "mesh_tcp_connections_active"):
                await asyncio.sleep(0.02)
    now = [await asyncio.to_thread(counts, side) for side in (pair.a, pair.b)]
    return [
        {name: value - old.get(name, 0.0) for name, value in new.items()}
        for new, old in zip(now, before, strict=True)
    ]


async def test_who_ends_while_the_other_does_not_read(tmp_path: Path) -> None:
    """Both have said all, and one of them is slow: nothing is cut although it takes a while."""
    size = 8 << 20
    go = asyncio.Event()

    async def pour(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readexactly(1)
        writer.write(b"x" * size)
        writer.write_eof()
        assert await reader.read() == b""

    async with through(tmp_path, pour, lanes=True) as pair, connect(pair.door) as client:
        client.writer.transport.pause_reading()  # type: ignore[attr-defined]
        await client.send(b"x")
        client.writer.write_eof()
        loop = asyncio.get_running_loop()
        loop.call_later(4.0, go.set)  # longer than any limit of TLS's own goodbye
        await go.wait()
        client.writer.transport.resume_reading()  # type: ignore[attr-defined]
        assert len(await client.rest()) == size


async def test_nobody_there_is_found_out_as_on_a_trunk(tmp_path: Path) -> None:
    """The app has gone: the peer says so on the lane, it is tried again, and then reset."""
    async with contextlib.AsyncExitStack() as stack:
        app = await stack.enter_async_context(contextlib.AsyncExitStack())
        port = await app.enter_async_context(served(swallow))
        pair = TcpPair(tmp_path, port)
        await asyncio.to_thread(pair.__enter__)
        stack.callback(pair.__exit__)
        await teach(pair)
        await app.aclose()
        before = await opened(pair.a)
        async with connect(pair.door) as client:
            await client.send(b"hello")
            await torn(client)
        await counted(pair.a, 1, "mesh_tcp_connections_total", flag="UF")
        assert await metric(pair.b, "mesh_refusals_total", code="connect-failed") >= 2
        assert await opened(pair.a) - before >= 2


async def swallow(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while await reader.read(1 << 20):
        pass
