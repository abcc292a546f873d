"""
What comes and goes leaves nothing for the cycle collector, which would stop everybody to look for it.

At thousands of new connections a second it took a fifth of a sidecar's CPU, in pauses of tens of
milliseconds.
"""

import asyncio
import json
import re
import signal
from functools import partial
from pathlib import Path

import pytest

from tests.helpers import counting_garbage
from tests.helpers.client import Client, connect
from tests.helpers.environment import until
from tests.helpers.http2 import GET, POST, Wire
from tests.helpers.listening import listening
from tests.helpers.pair import Pair, Sidecar
from tests.helpers.tcp_pair import TcpPair
from tests.integration.test_mtls import metric

pytestmark = pytest.mark.integration

MANY = 40
"""Connections of each kind: what one of them leaves is found so many times."""


async def unmannered(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answers once, and closes."""
    await reader.readuntil(b"\r\n\r\n")
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nConnection: close\r\n\r\nheard")


async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while await reader.readuntil(b"\r\n\r\n"):
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nheard")
        await writer.drain()


async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        await answer(reader, writer)
    except (asyncio.IncompleteReadError, ConnectionError):
        writer.close()


async def by_http1(port: int) -> None:
    async with connect(port) as client:
        await client.send(b"GET / HTTP/1.1\r\nHost: catalog\r\n\r\n")
        assert (await client.response()).body == b"heard"


async def heard(client: Client) -> None:
    async with asyncio.timeout(60):
        await client.reader.readuntil(b"heard")


async def by_http2(port: int) -> None:
    wire = Wire()
    async with connect(port) as client:
        await client.send(wire.hello() + wire.settings_ack() + wire.headers(1, GET))
        await heard(client)


async def left_open(port: int) -> None:
    """A client that goes while its request is under way."""
    wire = Wire()
    async with connect(port) as client:
        await client.send(wire.hello() + wire.settings_ack() + wire.headers(1, POST, end=False))
        await client.send(wire.headers(3, GET))
        await heard(client)
        client.writer.transport.abort()


async def opaque(port: int) -> None:
    async with connect(port) as client:
        await client.send(b"anything\r\n\r\n")
        await heard(client)
        client.writer.write_eof()
        await client.rest()


async def given_up(port: int) -> None:
    async with connect(port) as client:
        await client.send(b"anything\r\n\r\n")
        await heard(client)
        client.writer.transport.abort()


async def garbage(sidecar: Sidecar) -> dict[str, int]:
    """Return how many of each type only the collector has found since it was asked before."""
    said = partial(re.findall, r"^garbage (.*)$", flags=re.MULTILINE)
    before = len(said(sidecar.log()))
    sidecar.process.send_signal(signal.SIGUSR1)
    await until(lambda: len(said(sidecar.log())) > before)
    found: dict[str, int] = json.loads(said(sidecar.log())[-1])
    return found


async def nobody(sidecar: Sidecar) -> None:
    """Wait until no client's connection is open."""
    while await metric(sidecar, "mesh_connections_active", side="downstream", direction="outbound"):
        await asyncio.sleep(0.01)


KINDS = {
    "http1": (Pair, by_http1, serve),
    "http2": (Pair, by_http2, serve),
    "http2-left-open": (Pair, left_open, serve),
    "closing-app": (Pair, by_http1, unmannered),
    "opaque": (TcpPair, opaque, serve),
    "opaque-given-up": (TcpPair, given_up, serve),
}


@pytest.mark.parametrize("kind", KINDS)
async def test_connections_leave_nothing_to_the_cycle_collector(
    tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    sidecars, visit, app = KINDS[kind]
    async with listening(app) as port:
        pair = sidecars(tmp_path, port)
        for one in (pair.a, pair.b):
            program = ("-m", counting_garbage.__name__)
            monkeypatch.setattr(one, "launch", partial(one.launch, program=program))
        await asyncio.to_thread(pair.__enter__)
        try:
            await visit(pair.door)  # what is made once may be made
            await garbage(pair.a), await garbage(pair.b)
            for _ in range(MANY):
                await visit(pair.door)
            await nobody(pair.a)
            for sidecar in (pair.a, pair.b):
                found = await garbage(sidecar)
                assert max(found.values(), default=0) < MANY / 2, (sidecar.directory.name, found)
        finally:
            await asyncio.to_thread(pair.__exit__)
