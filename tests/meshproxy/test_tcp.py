"""A TCP socket with two halves: ends are ends, and resets are resets."""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager

import pytest
import uvloop

from meshproxy.tcp import TcpSocket, keep_alive
from tests.helpers.environment import until


class Heard(TcpSocket):
    """Writes down what it hears."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(loop)
        self.bytes = b""
        self.words: list[str] = []

    def on_bytes(self, data: bytes) -> None:
        self.bytes += data

    def on_end(self) -> None:
        self.words.append("end")

    def on_lost(self, error: Exception | None) -> None:
        self.words.append("complete" if self.complete else "torn")


def on_both_loops(story: Callable[[], Coroutine[None, None, None]]) -> Callable[..., None]:
    """Tell it on asyncio's own loop and on uvloop's, which differ just here."""

    @pytest.mark.parametrize("factory", [asyncio.new_event_loop, uvloop.new_event_loop])
    def test(factory: Callable[[], asyncio.AbstractEventLoop]) -> None:
        with asyncio.Runner(loop_factory=factory) as runner:
            runner.run(story())

    test.__doc__ = story.__doc__
    return test


@asynccontextmanager
async def connected() -> AsyncIterator[tuple[Heard, socket.socket]]:
    """Return ours, and a plain socket at the other end."""
    loop = asyncio.get_running_loop()
    with socket.create_server(("127.0.0.1", 0)) as server:
        theirs = socket.create_connection(server.getsockname())
        accepted, _ = server.accept()
    theirs.setblocking(False)
    _, heard = await loop.connect_accepted_socket(lambda: Heard(loop), accepted)
    try:
        yield heard, theirs
    finally:
        theirs.close()
        heard.abort()
        await until(lambda: heard.transport is None)


async def read(sock: socket.socket) -> bytes:
    async with asyncio.timeout(5):
        return await asyncio.get_running_loop().sock_recv(sock, 65536)


@on_both_loops
async def test_each_half_ends_on_its_own() -> None:
    """Their end first, ours later; what we say in between arrives."""
    async with connected() as (ours, theirs):
        theirs.sendall(b"ask")
        theirs.shutdown(socket.SHUT_WR)
        await until(lambda: ours.words == ["end"])
        assert ours.bytes == b"ask"
        ours.send_data(memoryview(b"answer"))
        ours.resume()
        assert await read(theirs) == b"answer"
        ours.send_end()
        assert await read(theirs) == b""
        await until(lambda: ours.words == ["end", "complete"])


@on_both_loops
async def test_our_end_leaves_theirs_open() -> None:
    """After it nothing is written any more, and all that they say is heard."""
    async with connected() as (ours, theirs):
        ours.send_data(b"all")
        ours.send_end()
        ours.send_end()
        ours.send_data(b"not this")
        assert await read(theirs) == b"all"
        assert await read(theirs) == b""
        theirs.sendall(b"x" * 500_000)
        await until(lambda: len(ours.bytes) == 500_000)
        theirs.shutdown(socket.SHUT_WR)
        await until(lambda: ours.words == ["end", "complete"])


@on_both_loops
async def test_a_reset_is_none_of_these() -> None:
    """The peer gets ECONNRESET."""
    async with connected() as (ours, theirs):
        ours.reset()
        await until(lambda: ours.words == ["torn"])
        with pytest.raises(ConnectionResetError):
            await read(theirs)


@on_both_loops
async def test_a_reset_may_follow_an_end() -> None:
    """For what they say is not taken any more."""
    async with connected() as (ours, theirs):
        ours.send_end()
        assert await read(theirs) == b""
        ours.reset()
        await until(lambda: ours.words == ["torn"])
        with pytest.raises(BrokenPipeError):  # what Linux says when an end came before
            theirs.send(b"?")
        ours.reset()


@on_both_loops
async def test_their_reset_is_heard_as_one() -> None:
    """No end was said."""
    async with connected() as (ours, theirs):
        theirs.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        theirs.close()
        await until(lambda: ours.words == ["torn"])
        ours.send_data(b"to nobody")
        ours.send_end()


def test_the_kernel_looks_after_silent_peers() -> None:
    """A listening socket hands it on to those that it accepts."""
    with socket.socket() as server:
        keep_alive(server)
        server.bind(("127.0.0.1", 0))
        server.listen()
        with socket.create_connection(server.getsockname()):
            accepted, _ = server.accept()
            with contextlib.closing(accepted):
                assert accepted.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
                assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE) == 60
