"""What one client can do to all others by taking their room: it must not be much."""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from meshproxy.contract import wire
from meshproxy.contract.policies import CircuitBreakerSpec, LimitsSpec, SheddingSpec
from meshproxy.contract.resources import ClusterSpec, Snapshot
from tests.conformance.sidecar import sidecar_before
from tests.helpers.client import get
from tests.helpers.origin import Answer, Conversation, hello, origin
from tests.helpers.pair import Pair, Sidecar

pytestmark = pytest.mark.integration

PLACES = 40
PATIENCE = 60.0

HEADS: dict[str, bytes] = {
    "nothing of a known length": b"POST / HTTP/1.1\r\nHost: catalog\r\nContent-Length: 9\r\n\r\n",
    "a byte": b"POST / HTTP/1.1\r\nHost: catalog\r\nContent-Length: 9\r\n\r\na",
    "half a chunk": b"POST / HTTP/1.1\r\nHost: catalog\r\nTransfer-Encoding: chunked\r\n\r\n5\r\na",
    "nothing after 100-continue": (
        b"POST / HTTP/1.1\r\nHost: catalog\r\nContent-Length: 9\r\nExpect: 100-continue\r\n\r\n"
    ),
    "much, and then nothing": (
        b"POST / HTTP/1.1\r\nHost: catalog\r\nContent-Length: 99999\r\n\r\n" + b"a" * 70_000
    ),
}


@contextlib.asynccontextmanager
async def running(
    directory: Path, answer: Answer = hello, **cluster: Any
) -> AsyncIterator[tuple[Sidecar, int]]:
    """A sidecar that takes plaintext, before an app, with policies for that app."""
    async with origin(answer) as app:
        sidecar, port = sidecar_before(directory, app.port)
        path = directory / "catalog" / "snapshot.json"
        snapshot = wire.decode(path.read_bytes(), Snapshot)
        spec = ClusterSpec(name="app", **cluster)
        path.write_bytes(wire.encode(msgspec.structs.replace(snapshot, clusters=(spec,))))
        await asyncio.to_thread(sidecar.start)
        try:
            yield sidecar, port
        finally:
            await asyncio.to_thread(sidecar.__exit__)


async def holding(port: int, said: bytes, held: list[socket.socket]) -> None:
    loop = asyncio.get_running_loop()
    sock = socket.socket()
    sock.setblocking(False)
    await loop.sock_connect(sock, ("127.0.0.1", port))
    await loop.sock_sendall(sock, said)
    held.append(sock)


async def _active(sidecar: Sidecar) -> int:
    [cluster] = await asyncio.to_thread(sidecar.get, "/clusters")
    return sum(endpoint["active"] for endpoint in cluster["endpoints"])


async def until(condition: Callable[[], Any]) -> None:
    async with asyncio.timeout(PATIENCE):
        while not await condition():
            await asyncio.sleep(0.05)


@pytest.mark.parametrize(
    "limited",
    [
        {"limits": LimitsSpec(requests=PLACES)},
        {"shedding": SheddingSpec(initial=PLACES, adaptive=False)},
    ],
    ids=["limit", "shedding"],
)
async def test_bodies_that_never_come_keep_nobody_out(
    tmp_path: Path, limited: dict[str, Any]
) -> None:
    """All places are taken by them; others are served a moment later, and those are told why."""
    held: list[socket.socket] = []
    async with running(tmp_path, **limited) as (sidecar, port):
        try:
            for number in range(PLACES):
                await holding(port, [*HEADS.values()][number % len(HEADS)], held)

            async def full() -> bool:
                return await _active(sidecar) >= PLACES * 0.95 - 1

            await until(full)

            async def served() -> bool:
                return (await get(port)).status == 200

            await until(served)
            metrics = await asyncio.to_thread(sidecar.metrics)
            assert 'mesh_refusals_total{code="body-timeout"' in metrics
        finally:
            for sock in held:
                sock.close()


async def test_who_fills_the_places_again_and_again_keeps_nobody_out(tmp_path: Path) -> None:
    """As often as all are taken they are cleared, and sooner for who has taken them before."""
    held: list[socket.socket] = []
    over = asyncio.Event()

    async def attack(port: int) -> None:
        while not over.is_set():
            for _ in range(PLACES):
                await holding(port, HEADS["nothing of a known length"], held)
            await asyncio.sleep(1)

    async with running(tmp_path, limits=LimitsSpec(requests=PLACES)) as (_, port):
        attacking = asyncio.create_task(attack(port))
        try:
            statuses: list[int] = []
            async with asyncio.timeout(PATIENCE):
                while statuses[-30:].count(200) < 20 or len(held) <= 2 * PLACES:
                    statuses.append((await get(port)).status)
                    await asyncio.sleep(0.05)
        finally:
            over.set()
            await attacking
            for sock in held:
                sock.close()


async def test_probes_that_never_come_do_not_keep_a_breaker_open(tmp_path: Path) -> None:
    """Half-open, it lets few requests through; if they are somebody's who sends no bodies, others follow."""
    broken = True

    async def answer(conversation: Conversation) -> None:
        if broken:
            await conversation.send(b"HTTP/1.1 503 No\r\nContent-Length: 0\r\n\r\n")
        else:
            await hello(conversation)

    held: list[socket.socket] = []
    breaker = CircuitBreakerSpec(min_requests=3, open_time=3_000, probes=2, max_open_time=60_000)
    async with running(tmp_path, answer, breaker=breaker) as (sidecar, port):
        for _ in range(3):
            assert (await get(port)).status == 503
        assert (await get(port)).header("x-mesh-refusal") == "circuit-open"
        broken = False
        try:

            async def probing() -> bool:
                await holding(port, HEADS["nothing of a known length"], held)
                [cluster] = await asyncio.to_thread(sidecar.get, "/clusters")
                return bool(sum(one["active"] for one in cluster["endpoints"]) == 2)

            await until(probing)

            async def served() -> bool:
                return (await get(port)).status == 200

            await until(served)
            metrics = await asyncio.to_thread(sidecar.metrics)
            assert 'mesh_refusals_total{code="body-timeout"' in metrics
        finally:
            for sock in held:
                sock.close()


async def test_who_calls_everything_critical_has_no_app_to_itself(tmp_path: Path) -> None:
    """An identity that fills the app with critical requests leaves others their part."""

    async def answer(conversation: Conversation) -> None:
        await asyncio.sleep(0.1)
        await hello(conversation)

    def change(snapshot: Snapshot) -> Snapshot:
        spec = ClusterSpec(name="app", shedding=SheddingSpec(initial=10, adaptive=False))
        return msgspec.structs.replace(snapshot, clusters=(spec,))

    over = asyncio.Event()

    async def attack(port: int) -> None:
        while not over.is_set():
            if (await get(port, extra="x-mesh-criticality: critical\r\n")).status != 200:
                await asyncio.sleep(0.1)

    async with origin(answer) as app:
        two = Pair(tmp_path, app.port, change_b=change, mtls="permissive")
        await asyncio.to_thread(two.__enter__)
        attacking = [asyncio.create_task(attack(two.door)) for _ in range(25)]
        try:
            statuses: list[int] = []
            async with asyncio.timeout(PATIENCE):
                # Of all that others ask, they got a tenth when the greedy one was believed.
                while statuses[-30:].count(200) < 20:
                    statuses.append((await get(two.inbound)).status)
                    await asyncio.sleep(0.02)
        finally:
            over.set()
            await asyncio.gather(*attacking, return_exceptions=True)
            await asyncio.to_thread(two.__exit__)
