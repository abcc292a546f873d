"""Many who knock at once: who has a connection is served, and the next peer gets in."""

import asyncio
import contextlib
import ssl
from pathlib import Path

import pytest

from tests.helpers.client import connect
from tests.helpers.origin import hello, origin
from tests.helpers.pair import Pair

pytestmark = pytest.mark.integration

KNOCKS = 900


def client_hello() -> bytes:
    """Return what a handshake begins with; to say it again costs an attacker nothing."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    said = ssl.MemoryBIO()
    with contextlib.suppress(ssl.SSLWantReadError):
        context.wrap_bio(ssl.MemoryBIO(), said).do_handshake()
    return said.read()


async def test_a_flood_of_handshakes_stops_nobody_who_is_there(tmp_path: Path) -> None:
    """Each knock is heard or reset, nobody waits for ever; every request of a client is answered."""
    said = client_hello()
    ends = {"answered": 0, "reset": 0}

    async def knock(port: int) -> None:
        try:
            async with connect(port) as stranger:
                await stranger.send(said)
                answer = await stranger.reader.read(65536)
        except ConnectionError:
            answer = b""
        ends["answered" if answer else "reset"] += 1

    async def flood(port: int) -> None:
        for _ in range(KNOCKS // 300):
            await asyncio.gather(*(knock(port) for _ in range(300)))

    async with origin(hello) as app:
        pair = Pair(tmp_path, app.port)
        await asyncio.to_thread(pair.__enter__)
        try:
            async with connect(pair.door) as client:
                flooding = asyncio.create_task(flood(pair.inbound))
                served = 0
                while not flooding.done() or not served:
                    await client.send(b"GET / HTTP/1.1\r\nHost: catalog\r\n\r\n")
                    assert (await client.response()).status == 200
                    served += 1
                await flooding
            assert ends["answered"] + ends["reset"] == KNOCKS
            assert ends["answered"] >= KNOCKS // 10
        finally:
            await asyncio.to_thread(pair.__exit__)
