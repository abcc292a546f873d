"""Connections that ask for nothing are closed; others are not."""

import asyncio
import contextlib
import logging
import resource
import socket
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from aiohttp import web

from control_plane.admission import PAUSE, Admission, Port
from control_plane.config import Listen
from tests.helpers.certificates import TestAuthority

WITHIN = 0.3


@asynccontextmanager
async def port(
    context: ssl.SSLContext | None = None, most: int | None = None, *, known: bool = False
) -> AsyncIterator[int]:
    """Serve one slow page on a port."""
    admission = Admission(WITHIN, most)

    async def page(request: web.Request) -> web.Response:
        if known and request.transport is not None:
            admission.know(request.transport)
        await asyncio.sleep(3 * WITHIN)
        return web.Response(text="here")

    app = web.Application(middlewares=[admission.heard])
    app.router.add_get("/", page)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    assert runner.server is not None
    server = await admission.listen(runner.server, Listen(port=0), context)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        await runner.cleanup()


@pytest.mark.parametrize("said", [b"", b"GET / HT", b"GET / HTTP/1.1\r\nHost: x\r\n"])
async def test_a_first_request_that_does_not_come_ends_the_connection(said: bytes) -> None:
    """Nothing, and half a head; neither a certificate nor a token is needed to try that."""
    async with port() as number, asyncio.timeout(5):
        reader, writer = await asyncio.open_connection("127.0.0.1", number)
        writer.write(said)
        assert await reader.read() == b""
        writer.close()


async def test_an_unfinished_handshake_ends_the_connection(tmp_path: Path) -> None:
    """Somebody connects to the TLS port and says nothing, or no more than half a record."""
    certificate, key = TestAuthority().issue("spiffe://a/ns/b/sa/c", tmp_path, "server")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    async with port(context) as number, asyncio.timeout(5):
        reader, writer = await asyncio.open_connection("127.0.0.1", number)
        writer.write(b"\x16\x03\x01\x02")
        assert await reader.read() == b""
        writer.close()


async def test_a_request_under_way_may_last(tmp_path: Path) -> None:
    """A conversation that has begun is none of this: a discovery stream lives for days."""
    async with port() as number, asyncio.timeout(5):
        reader, writer = await asyncio.open_connection("127.0.0.1", number)
        writer.write(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        assert (await reader.read()).endswith(b"here")
        writer.close()


async def test_nonsense_is_answered_and_not_written_down(caplog: pytest.LogCaptureFixture) -> None:
    """Else anybody could fill the log, a traceback at a time."""
    async with port() as number, asyncio.timeout(5):
        for said in (b"\x16\x03\x01\x02\r\n\r\n", b"GET / HTTP/1.1\r\nContent-Length: x\r\n\r\n"):
            reader, writer = await asyncio.open_connection("127.0.0.1", number)
            writer.write(said)
            assert (await reader.read()).startswith(b"HTTP/1.0 400 ")
            writer.close()
    assert caplog.text == ""
    logging.getLogger("aiohttp.server").error("ours", exc_info=ValueError("x"))
    assert "ours" in caplog.text


@pytest.mark.parametrize("known", [False, True])
async def test_of_too_many_the_oldest_goes_unless_it_is_known(*, known: bool) -> None:
    """However busy it is; a discovery stream, which is known, stays."""
    async with port(most=2, known=known) as number, asyncio.timeout(5):
        reader, writer = await asyncio.open_connection("127.0.0.1", number)
        writer.write(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        await asyncio.sleep(WITHIN / 2)
        others = [await asyncio.open_connection("127.0.0.1", number) for _ in range(4)]
        with contextlib.suppress(ConnectionError):
            assert (await reader.read()).endswith(b"here") == known
        for _, other in (*others, (reader, writer)):
            other.close()


async def test_without_descriptors_it_waits() -> None:
    """And accepts again when there are some."""
    listening = socket.create_server(("127.0.0.1", 0))
    accepted: list[socket.socket] = []
    place = Port(listening, accepted.append)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        async with asyncio.timeout(5):
            _, writer = await asyncio.open_connection(*listening.getsockname())
            while len(accepted) < 1:
                await asyncio.sleep(0.01)
            client = socket.socket()
            resource.setrlimit(resource.RLIMIT_NOFILE, (client.fileno() + 1, hard))
            client.connect(listening.getsockname())
            await asyncio.sleep(2 * PAUSE)
            assert len(accepted) == 1
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
            while len(accepted) < 2:
                await asyncio.sleep(0.01)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        place.close()
        for sock in (client, *accepted):
            sock.close()
        writer.close()
