"""
Hot restart of real sidecars under load: not one request may fail.

`HOT_RESTARTS=10` in the environment restarts each sidecar that often under all loads at once; twice
otherwise.
"""

import asyncio
import os
import signal
import subprocess
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest
from websockets.asyncio.server import ServerConnection, serve

from tests.helpers.client import connect, get
from tests.helpers.origin import Conversation, hello, origin
from tests.helpers.pair import Pair, Sidecar
from tests.helpers.services import Service as App
from tests.helpers.services import Services
from tests.helpers.steady import Steady, chat, fresh, kept, line, steady, talk
from tests.integration.test_grpc import UNLIMITED, Service
from tests.integration.test_tcp import echo, served

RESTARTS = int(os.environ.get("HOT_RESTARTS", "2"))

PATIENCE = 30
"""Seconds in which streams that are talked on for one end even on a machine with much else to do."""

pytestmark = [pytest.mark.integration, pytest.mark.timeout(60 + 60 * RESTARTS)]


@asynccontextmanager
async def mesh(directory: Path, **options: Any) -> AsyncIterator[Pair]:
    async with origin(hello) as app:
        pair = Pair(directory, app.port, **options)
        await asyncio.to_thread(pair.__enter__)
        try:
            yield pair
        finally:
            await asyncio.to_thread(pair.__exit__)


async def restart_all(mesh: Services, load: Steady, **further: int) -> None:
    """Restart both sidecars in turn, with successes of each kind before and in between."""
    await load.further(**further)
    for _ in range(RESTARTS):
        for sidecar in (mesh.a, mesh.b):
            await asyncio.to_thread(sidecar.restart)
            await load.further(**further)
            assert load.failures == [], sidecar.log()


async def ended(process: "subprocess.Popen[bytes]") -> int:
    return await asyncio.to_thread(process.wait, 30)


async def test_no_load_notices(tmp_path: Path) -> None:
    """
    All of these at once through the same two sidecars: requests of HTTP/1.1 on kept connections and on
    new ones, a hundred gRPC streams, twenty WebSockets, twenty TCP connections.  What is open ends in
    order where it began, within the drain time; and the old processes end by themselves.
    """

    async def answer(websocket: ServerConnection) -> None:
        async for message in websocket:
            await websocket.send(message)

    async with AsyncExitStack() as stack:
        web = await stack.enter_async_context(origin(hello))
        chats = await stack.enter_async_context(serve(answer, "127.0.0.1", 0))
        lines = await stack.enter_async_context(served(echo))
        server = grpc.aio.server(options=UNLIMITED)
        server.add_generic_rpc_handlers((Service(),))
        calls = server.add_insecure_port("127.0.0.1:0")
        await server.start()
        stack.push_async_callback(server.stop, 0)
        mesh = Services(
            tmp_path,
            [
                App("web", web.port),
                App("calls", calls, "http2"),
                App("chats", next(iter(chats.sockets)).getsockname()[1]),
                App("lines", lines, "tcp"),
            ],
        )
        for sidecar in (mesh.a, mesh.b):
            sidecar.settings["drain_seconds"] = PATIENCE  # what is cut has failed
        await asyncio.to_thread(mesh.__enter__)
        stack.push_async_callback(asyncio.to_thread, mesh.__exit__)
        channel = await stack.enter_async_context(
            grpc.aio.insecure_channel(f"127.0.0.1:{mesh.doors['calls']}", options=UNLIMITED)
        )
        door = mesh.doors
        clients = [kept(door["web"])] * 6 + [fresh(door["web"])] * 2 + [talk(channel)] * 100
        clients += [chat(door["chats"])] * 20 + [line(door["lines"])] * 20
        async with steady(*clients) as load:
            await restart_all(mesh, load, kept=10, fresh=10, stream=100, websocket=20, tcp=20)
        assert load.failures == []
        for sidecar in (mesh.a, mesh.b):
            for old in sidecar.relieved:
                assert await ended(old) == 0
            assert "cut" not in sidecar.log()


# What may go wrong --------------------------------------------------------------------------------


def waits_for_its_plane(pair: Pair) -> None:
    """Let the next process of `a` be one that cannot get ready: nobody tells it what to do."""
    (pair.a.directory / "roots.pem").write_text(pair.authority.pem)
    del pair.a.settings["static"]
    pair.a.settings["control_plane"] = {
        "address": "127.0.0.1",
        "port": 9,
        "identity": "spiffe://test.mesh/ns/mesh-system/sa/control-plane",
        "roots": str(pair.a.directory / "roots.pem"),
    }


async def logged(sidecar: Sidecar, text: str) -> None:
    async with asyncio.timeout(20):
        while text not in sidecar.log():
            await asyncio.sleep(0.02)


async def test_a_successor_that_cannot_start_changes_nothing(tmp_path: Path) -> None:
    """Not the bootstrap, not the configuration: it says why and ends; the old one goes on."""
    async with mesh(tmp_path) as pair, steady(kept(pair.door), fresh(pair.door)) as load:
        good = dict(pair.a.settings)
        pair.a.settings["drain_seconds"] = -1
        assert await ended(pair.a.launch()) == 2
        pair.a.settings = {**good, "static": {**good["static"], "snapshot": "nothing.json"}}
        assert await ended(pair.a.launch()) == 1
        await logged(pair.a, "has not taken over")
        pair.a.settings = good
        await asyncio.to_thread(pair.a.restart)
        await load.further(kept=3, fresh=3)
        assert load.failures == []


async def test_a_successor_that_is_killed_changes_nothing(tmp_path: Path) -> None:
    """In the middle of the hand-over, with our sockets in its hands; the next one succeeds."""
    async with mesh(tmp_path) as pair, steady(kept(pair.door), fresh(pair.door)) as load:
        good = dict(pair.a.settings)
        waits_for_its_plane(pair)
        successor = pair.a.launch()
        await logged(pair.a, f"process {successor.pid} is taking over")
        await load.further(kept=3, fresh=3)

        second = pair.a.launch()
        assert await ended(second) == 1
        assert f"process {successor.pid} is taking over already" in pair.a.log()

        successor.kill()
        assert await ended(successor) == -signal.SIGKILL
        await logged(pair.a, f"process {successor.pid} has not taken over")
        pair.a.settings = good
        await asyncio.to_thread(pair.a.restart)
        await load.further(kept=3, fresh=3)
        assert load.failures == []


async def test_a_successor_gives_up_when_it_is_told_to(tmp_path: Path) -> None:
    """SIGTERM while it still waits ends it with nothing changed."""
    async with mesh(tmp_path) as pair:
        waits_for_its_plane(pair)
        successor = pair.a.launch()
        await logged(pair.a, f"process {successor.pid} is taking over")
        successor.terminate()
        assert await ended(successor) == 0
        await logged(pair.a, f"process {successor.pid} has not taken over")
        assert (await get(pair.door)).status == 200


async def test_the_old_process_dies_right_after(tmp_path: Path) -> None:
    """Only what it still had under way is lost: the new one has the ports, and keeps them."""
    async with mesh(tmp_path) as pair:
        await asyncio.to_thread(pair.a.restart)
        [old] = pair.a.relieved
        old.kill()
        await ended(old)
        for _ in range(20):
            assert (await get(pair.door)).status == 200
        await asyncio.to_thread(pair.a.restart)
        assert (await get(pair.door)).status == 200


async def test_a_long_request_ends_where_it_began(tmp_path: Path) -> None:
    """The old process answers it, although a new one has long taken its place."""
    go = asyncio.Event()

    async def slow(conversation: Conversation) -> None:
        if b"/slow" in conversation.head:
            await go.wait()
        await hello(conversation)

    async with origin(slow) as app:
        pair = Pair(tmp_path, app.port)
        await asyncio.to_thread(pair.__enter__)
        try:
            async with connect(pair.door) as client:
                await client.send(b"GET /slow HTTP/1.1\r\nHost: catalog\r\n\r\n")
                async with asyncio.timeout(10):
                    while not app.requests:
                        await asyncio.sleep(0.01)
                for sidecar in (pair.a, pair.b):
                    await asyncio.to_thread(sidecar.restart)
                assert (await get(pair.door)).status == 200
                go.set()
                response = await client.response()
                assert (response.status, response.header("connection")) == (200, "close")
            assert await ended(pair.a.relieved[0]) == 0
        finally:
            await asyncio.to_thread(pair.__exit__)


async def test_whether_to_take_over_can_be_said(tmp_path: Path) -> None:
    """`require` fails where nobody serves; `never` fails where somebody has the port."""
    async with mesh(tmp_path) as pair:
        assert await ended(pair.a.launch("--takeover", "never")) == 1
        assert "Address already in use" in pair.a.log()
        assert (await get(pair.door)).status == 200
        pair.a.settings["state"] = str(tmp_path / "another")
        assert await ended(pair.a.launch("--takeover", "require")) == 1
        assert "nobody serves with" in pair.a.log()
