"""A sidecar whose clients have it take every descriptor there is: probes are answered, and it recovers."""

import asyncio
import contextlib
import re
from pathlib import Path

import psutil
import pytest

from meshproxy.descriptors import RESERVED
from tests.conformance.sidecar import sidecar_before
from tests.helpers.client import connect, get
from tests.helpers.http2 import GET, Wire
from tests.helpers.pair import get as ask_admin

pytestmark = pytest.mark.integration

DESCRIPTORS = 256


class App(asyncio.Protocol):
    """Answers only who asks for `/`."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        if data.startswith(b"GET / "):
            assert isinstance(self.transport, asyncio.Transport)
            self.transport.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")


async def test_without_a_descriptor_left_probes_are_answered(tmp_path: Path) -> None:
    """One client asks a thousand things at once, each of which needs a connection to the app."""
    loop = asyncio.get_running_loop()
    server = await loop.create_server(App, "127.0.0.1", 0, backlog=1000)
    sidecar, port = sidecar_before(tmp_path, server.sockets[0].getsockname()[1])
    sidecar.process = sidecar.launch(before=("prlimit", f"--nofile={DESCRIPTORS}:{DESCRIPTORS}"))
    try:
        async with asyncio.timeout(20):
            while not await _is_ready(sidecar.admin):
                await asyncio.sleep(0.02)
        await asyncio.to_thread(sidecar.metrics)
        process = psutil.Process(sidecar.process.pid)
        async with connect(port) as greedy:
            wire = Wire()
            await greedy.send(wire.hello())
            for number in range(1000):
                path = [*GET[:3], (":path", "/held")]
                await greedy.send(wire.headers(2 * number + 1, path))
            async with asyncio.timeout(20):
                while process.num_fds() < DESCRIPTORS - RESERVED:
                    await asyncio.sleep(0.02)
            for _ in range(20):
                assert await _is_ready(sidecar.admin)
                status, page = await asyncio.to_thread(ask_admin, sidecar.admin, "/metrics")
                assert status == 200
            assert re.search(rb'mesh_refusals_total\{code="connect-failed".*\} [1-9]', page)
            assert process.num_fds() <= DESCRIPTORS - RESERVED + 2
        async with asyncio.timeout(20):
            while True:
                with contextlib.suppress(OSError, asyncio.IncompleteReadError):
                    if (await get(port)).status == 200:
                        break
                await asyncio.sleep(0.02)
        assert process.is_running()
    finally:
        await asyncio.to_thread(sidecar.__exit__)
        server.close()


async def _is_ready(admin: int) -> bool:
    with contextlib.suppress(OSError):
        return (await asyncio.to_thread(ask_admin, admin, "/healthz/ready"))[0] == 200
    return False
