"""The first bytes on a raw socket, looked at and left where they are."""

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from meshproxy.codec.sniff import Protocol as Wire
from meshproxy.downstream.greeting import Greeting
from tests.helpers.recorder import Recorder
from tests.meshproxy.codec.test_client_hello import real
from tests.meshproxy.downstream.test_arrival import FakeCluster, destination, place_of

GET = b"GET / HTTP/1.1\r\n"


@asynccontextmanager
async def greeted(
    place: Any = None, *, permissive: bool = True
) -> AsyncIterator[tuple[Greeting, socket.socket, socket.socket]]:
    """Return a greeting, our end of its connection and the client's."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        theirs = socket.create_connection(server.getsockname())
        theirs.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        ours, _ = server.accept()
    ours.setblocking(False)
    loop = asyncio.get_running_loop()
    greeting = Greeting(loop, ours, place or place_of()[0], permissive=permissive)
    with ours, theirs:
        yield greeting, ours, theirs
        greeting.withdraw()


async def hear(greeting: Greeting) -> Wire | None:
    async with asyncio.timeout(10):
        return await greeting.hear()


@pytest.mark.parametrize(
    ("said", "permissive", "expected"),
    [
        (real("a.b", ["mesh-h2", "mesh-h1"]), True, Wire.TLS),
        (real("a.b", ["mesh-tcp"]), True, Wire.TLS),
        (real("a.b", ["h2"]), True, Wire.OPAQUE),
        (real("a.b"), True, Wire.OPAQUE),
        (real("a.b"), False, Wire.TLS),
        (GET, True, Wire.HTTP1),
        (b"PROPFIND /a/path/longer/than/the/peek HTTP/1.1\r\n", True, Wire.HTTP1),
        (b"\0\1\2", True, Wire.OPAQUE),
    ],
)
@pytest.mark.parametrize("cut", [7, 1000])
async def test_what_it_is(said: bytes, permissive: bool, expected: Wire, cut: int) -> None:
    """For any cut; and all of it is still there to be read."""
    async with greeted(permissive=permissive) as (greeting, ours, theirs):
        heard = asyncio.create_task(hear(greeting))
        for at in range(0, len(said), cut):
            theirs.send(said[at : at + cut])
            await asyncio.sleep(0)
        assert await heard is expected
        read = b""
        while len(read) < len(said):
            read += await asyncio.get_running_loop().sock_recv(ours, 65536)
        assert read == said


async def test_where_bytes_lead_nowhere_all_tls_is_ours() -> None:
    """Without a route for opaque connections."""
    async with greeted(destination()) as (greeting, _, theirs):
        theirs.send(real("a.b"))
        assert await hear(greeting) is Wire.TLS


async def test_what_is_there_already_is_not_waited_for() -> None:
    """It is known in the first step, and the kernel wakes us for a single byte as before."""
    async with greeted(permissive=False) as (greeting, ours, theirs):
        theirs.send(real("a.b"))
        with pytest.raises(StopIteration) as known:
            greeting.hear().send(None)
        assert known.value.value is Wire.TLS
        assert ours.getsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT) == 1


async def test_the_kernel_wakes_us_for_more_than_we_have_seen() -> None:
    """Else a few bytes and a silence would keep us busy; when all is known, for any byte again."""
    async with greeted(permissive=False) as (greeting, ours, theirs):
        theirs.send(b"\x16\3")
        heard = asyncio.create_task(hear(greeting))
        await asyncio.sleep(0)
        assert ours.getsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT) == 3
        theirs.send(real("a.b")[2:])
        assert await heard is Wire.TLS
        assert ours.getsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT) == 1


async def test_who_leaves_is_noticed() -> None:
    """At once, not at a timeout."""
    async with greeted() as (greeting, _, theirs):
        theirs.send(b"\x16\3")
        theirs.shutdown(socket.SHUT_WR)
        assert await hear(greeting) is None
        assert greeting.speculation is None


def waiting(cluster: FakeCluster) -> Any:
    return [call[1] for call in cluster.endpoint.heard if call[0] == "connect"]


async def silent(cluster: FakeCluster) -> Any:
    """Return the relay, when a silent client's endpoint has been dialled."""
    async with asyncio.timeout(10):
        while not waiting(cluster):
            await asyncio.sleep(0.001)
    return waiting(cluster)[0]


async def test_a_silent_clients_server_may_speak() -> None:
    """Then the connection goes on with it."""
    place, cluster = place_of()
    async with greeted(place) as (greeting, _, _theirs):
        heard = asyncio.create_task(hear(greeting))
        relay = await silent(cluster)
        relay.on_upstream_ready(Recorder())
        relay.on_upstream_connected()
        relay.on_upstream_data(b"220 mail")
        assert await heard is None
        assert greeting.speculation is not None
        assert greeting.speculation.settled


async def test_a_peer_is_heard_out_where_servers_speak_first() -> None:
    """Its hello comes a moment after its connection; the server is not asked to greet it."""
    place, cluster = place_of()
    loop = asyncio.get_running_loop()
    place.first_speaker.server_spoke(loop.time())
    async with greeted(place) as (greeting, _, theirs):
        heard = asyncio.create_task(hear(greeting))
        for _ in range(3):
            await asyncio.sleep(0)
        theirs.send(real("a.b", ["mesh-lane"]))
        assert await heard is Wire.TLS
        assert waiting(cluster) == []


async def test_a_peer_that_was_slow_is_still_one() -> None:
    """What was dialled is withdrawn."""
    place, cluster = place_of()
    async with greeted(place) as (greeting, _, theirs):
        heard = asyncio.create_task(hear(greeting))
        relay = await silent(cluster)
        upstream = Recorder()
        relay.on_upstream_ready(upstream)
        theirs.send(real("a.b", ["mesh-tcp"]))
        assert await heard is Wire.TLS
        greeting.on_http()
        greeting.withdraw()
        assert upstream.words == ["withdraw"]
        assert place.first_speaker.speaks_http(asyncio.get_running_loop().time())


async def test_two_silent_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    """Are none of the mesh; what the client says later may still be HTTP, where that is known."""
    monkeypatch.setattr("meshproxy.downstream.greeting.SILENCE", 0.05)
    async with greeted() as (greeting, _, _theirs):
        assert await hear(greeting) is Wire.OPAQUE
    place, _ = place_of(protocol="tcp")
    async with greeted(place) as (greeting, _, _theirs):
        assert await hear(greeting) is None
        assert greeting.speculation is not None
