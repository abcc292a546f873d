"""A sidecar that is short of memory lets go of what nobody takes, serves the others, and lives."""

import asyncio
import contextlib
import re
import signal
import socket
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from typing import Any, cast

import pytest

from meshproxy.flow import TIGHT
from tests.conformance import http2_verdict
from tests.conformance.sidecar import sidecar_before
from tests.conformance.vectors import read as read_vectors
from tests.helpers.client import Client, connect
from tests.helpers.environment import until
from tests.helpers.http2 import GET, Wire
from tests.helpers.pair import Sidecar, until_ready

pytestmark = pytest.mark.integration

ROOM = 8 << 20
"""What the sidecar may take besides what it takes when it is idle: less than many hold at least."""

MANY = 450
NORMAL = b"GET /normal HTTP/1.1\r\nHost: catalog\r\n\r\n"
ENDLESS = b"GET /endless HTTP/1.1\r\nHost: catalog\r\n\r\n"
UPLOAD = b"POST /never-read HTTP/1.1\r\nHost: catalog\r\nContent-Length: 1000000000\r\n\r\n"


class App(asyncio.Protocol):
    """Answers; or says more than anybody reads; or reads nothing of what is said."""

    transport: asyncio.Transport

    def __init__(self, visitors: set["App"]) -> None:
        self._visitors = visitors
        self._heard = b""
        self._writing = True
        self.waits = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)
        self._visitors.add(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self._visitors.discard(self)

    def data_received(self, data: bytes) -> None:
        self._heard += data
        while b"\r\n\r\n" in self._heard:
            head, _, self._heard = self._heard.partition(b"\r\n\r\n")
            if b"/endless" in head:
                self.answer_endlessly()
            elif b"/together" in head:
                self.waits = True
            elif b"/never-read" in head:
                self.transport.pause_reading()
            else:
                self.transport.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")

    def answer_endlessly(self) -> None:
        self.transport.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000000\r\n\r\n")
        self.resume_writing()

    def pause_writing(self) -> None:
        self._writing = False

    def resume_writing(self) -> None:
        self._writing = True
        while self._writing and not self.transport.is_closing():
            self.transport.write(bytes(65536))


@contextlib.asynccontextmanager
async def serving(
    directory: Path,
    before: Sequence[str] = (),
    visitors: set[App] | None = None,
    **settings: Any,
) -> AsyncIterator[tuple[Sidecar, int]]:
    directory.mkdir(exist_ok=True)
    visitors = set() if visitors is None else visitors
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: App(visitors), "127.0.0.1", 0)
    sidecar, port = sidecar_before(directory, server.sockets[0].getsockname()[1], settings)
    try:
        sidecar.process = sidecar.launch(before=before)
        await asyncio.to_thread(until_ready, sidecar.admin, sidecar.process, sidecar.log)
        yield sidecar, port
    finally:
        await asyncio.to_thread(sidecar.__exit__)
        server.close()
        for visitor in list(visitors):
            visitor.transport.abort()


class Normal:
    """A client that came before, asks again and again, and is answered each time."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self.served = 0
        self.task = asyncio.create_task(self._ask())

    async def _ask(self) -> None:
        while True:
            await self._client.send(NORMAL)
            assert (await self._client.response()).status == 200
            self.served += 1
            await asyncio.sleep(0.005)


def _open(port: int) -> socket.socket:
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)  # so that the kernels hold little
    with contextlib.suppress(ConnectionError):  # it may be one too many
        sock.connect(("127.0.0.1", port))
    return sock


def _served(port: int) -> socket.socket:
    """Return a client that has had an answer: nobody keeps it out any more."""
    sock = _open(port)
    with contextlib.suppress(ConnectionError):
        sock.settimeout(30)
        sock.send(NORMAL)
        while (heard := sock.recv(4096)) and not heard.endswith(b"ok"):
            pass
    sock.settimeout(None)
    return sock


async def _limit(directory: Path, room: int) -> int:
    """Return what a sidecar takes when it is idle, and so much more."""
    async with serving(directory / "idle") as (sidecar, port):
        while not await _newcomer(port):
            pass
        await asyncio.to_thread(sidecar.metrics)  # which are loaded when they are wanted
        return sidecar.rss() + room


def downloads(port: int, many: int = MANY, asked: bytes = b"/endless") -> list[socket.socket]:
    """Clients that ask for much and read nothing."""
    held = [_served(port) for _ in range(many)]
    for sock in held:
        with contextlib.suppress(ConnectionError):
            sock.send(ENDLESS.replace(b"/endless", asked))
    return held


def uploads(port: int) -> list[socket.socket]:
    """Clients that send much to an app that reads nothing."""
    held = [_served(port) for _ in range(MANY)]
    for sock in held:
        sock.setblocking(False)
        with contextlib.suppress(OSError):
            sock.send(UPLOAD)
    return held


def streams(port: int, many: int = MANY, asked: bytes = b"/endless") -> list[socket.socket]:
    """Some clients that ask for much, many times at once, and give no credit for it."""
    held = [_open(port) for _ in range(many // 90)]
    path = [*GET[:3], (":path", asked.decode())]
    for sock in held:
        wire = Wire()
        with contextlib.suppress(ConnectionError):  # it may be one too many
            sock.sendall(wire.hello(s4=0))
            for number in range(90):
                sock.sendall(wire.headers(2 * number + 1, path))
    return held


@pytest.mark.parametrize("stall", [downloads, uploads, streams])
async def test_what_has_stalled_is_let_go(
    tmp_path: Path, stall: Callable[[int], list[socket.socket]]
) -> None:
    """
    And no more than needed: who works is served all the time, and who comes as soon as there is room.
    """
    limit = await _limit(tmp_path, ROOM)
    async with (
        serving(tmp_path / "busy", limits={"memory": limit}) as (sidecar, port),
        connect(port) as client,
    ):
        normal = Normal(client)
        held = await asyncio.to_thread(stall, port)
        feeding = asyncio.create_task(_feed(held)) if stall is uploads else None
        try:
            async with asyncio.timeout(30):
                metrics = await _when_let_go(sidecar)
                assert read(metrics, "mesh_memory_limit_bytes") == limit
                while sidecar.rss() > limit or not await _newcomer(port):
                    await asyncio.sleep(0.05)
            assert not normal.task.done()
            before = normal.served
            await until(lambda: normal.served > before)
        finally:
            normal.task.cancel()
            if feeding is not None:
                feeding.cancel()
            for sock in held:
                sock.close()
        assert "short of memory" in sidecar.log()
        with contextlib.suppress(asyncio.CancelledError):
            await normal.task


async def _feed(held: list[socket.socket]) -> None:
    """Send as much as is taken."""
    while True:
        for sock in held:
            with contextlib.suppress(OSError):
                sock.send(bytes(65536))
        await asyncio.sleep(0.01)


async def _newcomer(port: int) -> bool:
    with contextlib.suppress(OSError, asyncio.IncompleteReadError):
        async with connect(port) as client:
            await client.send(NORMAL)
            return (await client.response()).status == 200
    return False


def read(metrics: str, name: str) -> float:
    found = re.search(rf"^{re.escape(name)} (\S+)$", metrics, re.MULTILINE)
    return float(found[1]) if found else 0.0


async def _when_let_go(sidecar: Sidecar) -> str:
    """Wait until something was reset for want of memory; return the metrics that say so."""
    name = 'mesh_refusals_total{code="memory-pressure",direction="inbound"}'
    while True:
        with contextlib.suppress(OSError):
            metrics = await asyncio.to_thread(sidecar.metrics)
            if read(metrics, name):
                return metrics
        await asyncio.sleep(0.05)


@pytest.mark.parametrize("ask", [downloads, streams])
async def test_what_comes_in_one_turn_is_bounded(
    tmp_path: Path, ask: Callable[..., list[socket.socket]]
) -> None:
    """
    Hundreds of answers, all there when the sidecar looks: more than it may take, before time has passed.
    """
    limit = await _limit(tmp_path, room := 24 << 20)
    visitors: set[App] = set()
    async with serving(tmp_path / "busy", visitors=visitors, limits={"memory": limit}) as (
        sidecar,
        port,
    ):
        held = await asyncio.to_thread(ask, port, asked=b"/together")
        try:
            await until(lambda: sum(visitor.waits for visitor in visitors) == MANY)
            sidecar.process.send_signal(signal.SIGSTOP)
            for visitor in visitors:
                visitor.answer_endlessly()
            sidecar.process.send_signal(signal.SIGCONT)
            async with asyncio.timeout(60):
                while not await _newcomer(port):
                    await asyncio.sleep(0.05)
            most = _most_ever(sidecar)
            assert limit - room // 4 < most < limit + MANY * 2 * TIGHT
        finally:
            for sock in held:
                sock.close()


def _most_ever(sidecar: Sidecar) -> int:
    status = Path(f"/proc/{sidecar.process.pid}/status").read_text()
    [found] = re.findall(r"^VmHWM:\s+(\d+) kB$", status, re.MULTILINE)
    return int(found) * 1024


CONTAINER = 96 << 20
NEVER_USED = 24 << 20
OVERSHOOT = 8 << 20
"""What may come between two looks."""


async def test_a_small_container_holds_out(tmp_path: Path) -> None:
    """
    Everything at once, against a sidecar that the kernel gives 96 MiB: it lives, and serves.

    A control group cannot be made everywhere.  RLIMIT_DATA is stricter: it counts what was asked for
    and never used, too, stacks of threads above all, and whoever asks for more fails at once.
    """
    async with serving(
        tmp_path,
        limits={"memory": CONTAINER - NEVER_USED - OVERSHOOT},
        before=("prlimit", f"--data={CONTAINER}"),
    ) as (sidecar, port):
        async with connect(port) as client:
            normal = Normal(client)
            held: list[socket.socket] = []
            try:
                for _ in range(300):
                    held.append(_open(port))
                    held[-1].send(b"GET / HTTP/1.1\r\nX-A: ")
                held += await asyncio.to_thread(downloads, port, 150)
                held += await asyncio.to_thread(streams, port)
                for vector in read_vectors("http2-frames"):
                    if vector.kind == "floods" and vector.name in ("PING", "rapid reset"):
                        with contextlib.suppress(ConnectionError):
                            verdict = await http2_verdict.ask(port, vector.send)
                            assert str(verdict) in ("goaway", "nothing")  # it may be one too many
                async with asyncio.timeout(30):
                    await _when_let_go(sidecar)
                    while not await _newcomer(port):
                        await asyncio.sleep(0.05)
                before = normal.served
                await until(lambda: normal.served > before or normal.task.done())
                assert not normal.task.done()
            finally:
                normal.task.cancel()
                for sock in held:
                    sock.close()
        assert sidecar.process.poll() is None
        with contextlib.suppress(asyncio.CancelledError):
            await normal.task
