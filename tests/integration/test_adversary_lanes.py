"""A peer with a certificate of the mesh that misuses lanes: it gains nothing, and others notice nothing."""

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from meshproxy.codec.segments import END, HEARD, WITHDRAWN, header, segment
from meshproxy.identity import tls
from tests.helpers.client import Client, connect
from tests.helpers.environment import until
from tests.helpers.pair import Sidecar, spiffe
from tests.helpers.tcp_pair import TcpPair
from tests.integration.test_lane_peers import App, say
from tests.integration.test_mtls import metric
from tests.integration.test_tcp import served

pytestmark = pytest.mark.integration

MIB = 1 << 20
PLACES, OF_THESE = 150, 120
"""Connections of the attacked process, and how many one of its ports may have (`admission.SHARE`)."""


class Attacked:
    """
    Two sidecars that are well, and how to misuse the second.

    Attributes:
        word: What a lane has to begin with.
        app: What stands behind it.
    """

    def __init__(self, pair: TcpPair, app: App, directory: Path) -> None:
        self.pair = pair
        self.app = app
        self.word = segment(b"127.0.0.1:%d" % pair.inbound)
        both = pair.authority.issue(spiffe("mallory"), directory, "mallory")
        self._context = tls.client_context(*both, pair.authority.pem)
        self._context.set_alpn_protocols(tls.ALPN_LANES)

    @contextlib.asynccontextmanager
    async def lane(self) -> AsyncIterator[Client]:
        async with connect(self.pair.inbound, ssl=self._context, server_hostname="") as client:
            yield client

    async def refusals(self, code: str) -> float:
        return await metric(self.pair.b, "mesh_refusals_total", code=code)

    async def active(self) -> float:
        return await metric(
            self.pair.b, "mesh_connections_active", side="downstream", direction="inbound"
        )


@pytest.fixture
async def attacked(tmp_path: Path) -> AsyncIterator[Attacked]:
    app = App()
    async with served(app) as port:
        pair = TcpPair(tmp_path, port)
        pair.b.settings["limits"] = {"connections": PLACES}
        await asyncio.to_thread(pair.__enter__)
        try:
            yield Attacked(pair, app, tmp_path)
        finally:
            await asyncio.to_thread(pair.__exit__)


async def over(client: Client) -> bytes:
    """Wait until the other side has cut it; return what it has said."""
    said = b""
    with contextlib.suppress(ConnectionError, ssl.SSLError):
        async with asyncio.timeout(30):
            while data := await client.reader.read(65536):
                said += data
    return said


async def test_nonsense(attacked: Attacked) -> None:
    """Each is cut at once, and counted; an app that had been reached sees a reset; others go on."""
    before = [bytes(range(97, 123)) * 50, header(65536) + bytes(65536), END, WITHDRAWN, HEARD]
    word, x = attacked.word, segment(b"x")
    after = [HEARD, x + HEARD, x + END + END, x + END + x, x + END + WITHDRAWN]
    async with connect(attacked.pair.door) as neighbour:
        await neighbour.send(b"e")
        await say(neighbour)

        async def say_nonsense(nonsense: bytes, answer: bytes | None = None) -> None:
            async with attacked.lane() as client:
                await client.send(nonsense)
                said = await over(client)
                assert answer is None or said == answer

        elsewhere = [segment(place) + x for place in (b"10.0.0.5:22", b"x")]
        await asyncio.gather(
            *(say_nonsense(nonsense) for nonsense in before),
            *(say_nonsense(word + nonsense) for nonsense in after),
            *(say_nonsense(nonsense, segment(b"misdirected")) for nonsense in elsewhere),
        )
        assert await attacked.refusals("malformed-request") == len(before) + len(after)
        assert await attacked.refusals("misdirected") == 2
        # Reached, and left in the middle of a segment, with TLS closed as it should be.
        async with attacked.lane() as client:
            await client.send(word + header(9) + b"eight")
            async with asyncio.timeout(30):
                assert await client.reader.readexactly(12) == segment(b"accepted")
            client.writer.close()
            await over(client)
        await until(lambda: len(attacked.app.ends) >= 1)
        assert set(attacked.app.ends) == {"reset"}
        await say(neighbour)
    async with asyncio.timeout(30):
        while await attacked.active() > 1:  # the trunk
            await asyncio.sleep(0.02)


async def test_a_flood_of_silent_ones(attacked: Attacked) -> None:
    """
    Some say where to, some begin to, most nothing.  As many are taken as one port may have, and who
    comes after them is refused and counted; what they held is given back when they have gone.
    """
    sidecar = attacked.pair.b
    said = [b"", attacked.word[:9], attacked.word]

    async def silent(stack: contextlib.AsyncExitStack, number: int) -> bool:
        try:
            client = await stack.enter_async_context(attacked.lane())
            await client.send(said[number % 3])
        except (OSError, ssl.SSLError):
            return False
        return True

    async def flood() -> int:
        """Return the memory of the sidecar under it."""
        before = await refused(sidecar)
        async with contextlib.AsyncExitStack() as stack:
            taken = sum([await silent(stack, number) for number in range(OF_THESE + 30)])
            assert taken == OF_THESE
            assert await refused(sidecar) - before == 30
            memory = sidecar.rss()
        async with asyncio.timeout(30):
            while await attacked.active():
                await asyncio.sleep(0.02)
        return memory

    first = await flood()
    assert await flood() < first + 4 * MIB  # what the first has left is used again
    async with connect(attacked.pair.door) as client:
        await client.send(b"e")
        await say(client)


async def refused(sidecar: Sidecar) -> float:
    return await metric(sidecar, "mesh_connections_refused_total", reason="connections")
