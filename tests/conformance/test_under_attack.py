"""
A normal client is served while others do their worst, and what they took is given back.

Slowloris in all its forms, thousands of connections that say nothing, floods of HTTP/2 frames, and
more connections than there may be: each has its own tests elsewhere; here they come together.
"""

import asyncio
import contextlib
import resource
import socket
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from pathlib import Path

import psutil
import pytest

from tests.conformance import http2_verdict
from tests.conformance.backend import recording
from tests.conformance.sidecar import sidecar_before
from tests.conformance.vectors import read
from tests.helpers.client import connect, get
from tests.helpers.pair import Sidecar
from tests.helpers.pair import get as ask_admin

pytestmark = pytest.mark.integration

IDLE = 5_000
LEVEL = 24 << 20
"""Bytes by which the memory may be larger afterwards: allocators keep some for the next time."""

# Requests that have begun count for the app's own limit (1,024 at a time), so not too many of these.
SLOW_BODIES = (
    b"POST /slow HTTP/1.1\r\nHost: catalog\r\nContent-Length: 100\r\n\r\na",
    b"POST /slow HTTP/1.1\r\nHost: catalog\r\nTransfer-Encoding: chunked\r\n\r\n5\r\na",
)

STARTS: dict[str, bytes] = {
    "nothing": b"",
    "half a request line": b"GET /sl",
    "half a head": b"GET / HTTP/1.1\r\nHost: catalog\r\nX-A: ",
    "half a TLS hello": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    "half a preface": b"PRI * HTTP/2.0\r\n\r\nSM",
    "a preface and nothing": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
}


@contextlib.asynccontextmanager
async def running(directory: Path, **limits: int) -> AsyncIterator[tuple[Sidecar, int]]:
    async with recording() as app:
        sidecar, port = sidecar_before(directory, app.port, {"limits": limits})
        await asyncio.to_thread(sidecar.start)
        try:
            yield sidecar, port
        finally:
            await asyncio.to_thread(sidecar.__exit__)


@pytest.fixture
def many_descriptors() -> Iterator[None]:
    """For this process and the sidecars that it starts."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < 4 * IDLE:
        pytest.skip(f"at most {hard} descriptors are allowed here")
    resource.setrlimit(resource.RLIMIT_NOFILE, (4 * IDLE, hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def idle(port: int, data: bytes) -> socket.socket:
    sock = socket.socket()
    with contextlib.suppress(ConnectionError):  # it may be one too many
        sock.connect(("127.0.0.1", port))
        sock.send(data)
    return sock


async def while_a_client_asks(port: int, attack: Callable[[], Coroutine[None, None, None]]) -> int:
    """Return how many requests a normal client has made meanwhile; each must have been answered."""
    served = 0
    attacking = asyncio.create_task(attack())
    async with connect(port) as client:  # one that stays, and one that comes anew each time
        while not attacking.done():
            await client.send(b"GET /normal HTTP/1.1\r\nHost: catalog\r\n\r\n")
            assert (await client.response()).status == 200
            assert (await get(port)).status == 200
            served += 2
            await asyncio.sleep(0.002)
    await attacking
    return served


@pytest.mark.timeout(90)
async def test_a_normal_client_does_not_notice(tmp_path: Path, many_descriptors: None) -> None:
    """All its requests succeed, and the memory returns to its level."""
    chosen = ("PING", "CONTINUATION", "rapid reset")
    floods = [v for v in read("http2-frames") if v.kind == "floods" and v.name in chosen]
    async with running(tmp_path) as (sidecar, port):
        process = psutil.Process(sidecar.process.pid)

        async def attack(size: int = IDLE) -> None:
            held: list[socket.socket] = []
            try:
                starts = list(STARTS.values())
                for number in range(size):
                    some = SLOW_BODIES if number < size // 10 else starts
                    held.append(idle(port, some[number % len(some)]))
                    if number % 25 == 0:
                        await asyncio.sleep(0.005)
                for vector in floods if size == IDLE else ():
                    assert str(await http2_verdict.ask(port, vector.send)) == "goaway"
            finally:
                for sock in held:
                    sock.close()

        await while_a_client_asks(
            port, attack
        )  # once, so that caches and arenas are what they will be
        await _quiet(process)
        level = process.memory_info().rss
        served = await while_a_client_asks(port, attack)
        await _quiet(process)
        assert served >= 20
        assert process.memory_info().rss < level + LEVEL


async def test_above_its_limit_it_says_so_and_recovers(tmp_path: Path) -> None:
    """503 with a code for who speaks HTTP; the admin pages answer; room that is given back is used."""
    async with running(tmp_path, connections=50) as (sidecar, port):
        held = [
            idle(port, b"GET / HTTP/1.1\r\n") for _ in range(40)
        ]  # four fifths for one listener
        try:
            async with asyncio.timeout(10):
                while (response := await get(port)).status != 503:
                    await asyncio.sleep(0.01)
            assert response.header("x-mesh-refusal") == "proxy-overloaded"
            assert (await asyncio.to_thread(ask_admin, sidecar.admin, "/healthz/live"))[0] == 200
        finally:
            for sock in held:
                sock.close()
        async with asyncio.timeout(10):
            while (await get(port)).status != 200:
                await asyncio.sleep(0.01)


async def test_few_descriptors(tmp_path: Path) -> None:
    """Of 256, some are left for the admin pages and for the connections upstream, whoever comes."""
    async with recording() as app:
        sidecar, port = sidecar_before(tmp_path, app.port)
        await asyncio.to_thread(sidecar.start)
        await asyncio.to_thread(sidecar.__exit__)
        sidecar.process = sidecar.launch(before=("prlimit", "--nofile=256:256"))
        try:
            async with asyncio.timeout(20):
                while True:
                    with contextlib.suppress(OSError):
                        if (await get(port)).status == 200:
                            break
                    await asyncio.sleep(0.02)
            process = psutil.Process(sidecar.process.pid)
            async with connect(port) as known:
                await known.send(b"GET /known HTTP/1.1\r\nHost: catalog\r\n\r\n")
                assert (await known.response()).status == 200
                held = [idle(port, b"GET / HT") for _ in range(400)]
                try:
                    for _ in range(20):
                        await known.send(b"GET /known HTTP/1.1\r\nHost: catalog\r\n\r\n")
                        assert (await known.response()).status == 200
                        page = await asyncio.to_thread(ask_admin, sidecar.admin, "/healthz/live")
                        assert page[0] == 200
                    assert process.num_fds() < 256
                finally:
                    for sock in held:
                        sock.close()
        finally:
            await asyncio.to_thread(sidecar.__exit__)


async def _quiet(process: psutil.Process) -> None:
    """Wait until all that was held has been given back."""
    async with asyncio.timeout(30):
        while process.num_fds() > 100:
            await asyncio.sleep(0.05)
