"""Steady load that never forgives: whatever goes wrong is written down."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any

import grpc
import grpc.aio
from websockets.asyncio.client import connect as connect_websocket
from websockets.exceptions import WebSocketException

from tests.helpers.client import Client, connect

TALK = 1.0
"""Seconds for which a stream is talked on; well within the drain time of the sidecars under test."""


@dataclass
class Steady:
    """
    Attributes:
        done: What succeeded, by kind.
        failures: What went wrong, in words.
        over: Set when nothing new is to be begun.
    """

    done: dict[str, int] = field(default_factory=dict)
    failures: list[str] = field(default_factory=list)
    over: asyncio.Event = field(default_factory=asyncio.Event)

    def succeeded(self, kind: str) -> None:
        self.done[kind] = self.done.get(kind, 0) + 1

    def failed(self, kind: str, error: object) -> None:
        self.failures.append(f"{kind}: {error!r}")

    async def further(self, **counts: int) -> None:
        """Wait until each kind has succeeded that many times more; or something has failed."""
        goal = {kind: self.done.get(kind, 0) + count for kind, count in counts.items()}
        async with asyncio.timeout(60):
            while not self.failures and any(
                self.done.get(kind, 0) < wanted for kind, wanted in goal.items()
            ):
                await asyncio.sleep(0.01)


Kind = Callable[[Steady], Coroutine[Any, Any, None]]


@contextlib.asynccontextmanager
async def steady(*kinds: Kind) -> AsyncIterator[Steady]:
    """Put on load for as long as the block lasts; what has been begun is brought to its end."""
    load = Steady()
    async with asyncio.TaskGroup() as tasks:
        for kind in kinds:
            tasks.create_task(kind(load))
        try:
            yield load
        finally:
            load.over.set()


# HTTP/1.1 -----------------------------------------------------------------------------------------

REQUEST = b"GET / HTTP/1.1\r\nHost: catalog\r\n\r\n"


def kept(port: int) -> Kind:
    """Requests on a connection that is kept for as long as the other side will have it."""

    async def run(load: Steady) -> None:
        while not load.over.is_set():
            try:
                async with connect(port) as client:
                    while not load.over.is_set() and await _ask(client, load, "kept"):
                        pass
            except OSError as error:
                load.failed("kept", error)

    return run


def fresh(port: int) -> Kind:
    """Requests on a connection of their own each."""

    async def run(load: Steady) -> None:
        while not load.over.is_set():
            try:
                async with connect(port) as client:
                    await _ask(client, load, "fresh")
            except OSError as error:
                load.failed("fresh", error)

    return run


async def _ask(client: Client, load: Steady, kind: str) -> bool:
    """Ask once; say whether the connection may be used again."""
    try:
        await client.send(REQUEST)
        response = await client.response()
    except (OSError, asyncio.IncompleteReadError, TimeoutError) as error:
        load.failed(kind, error)
        return False
    if response.status != 200:
        load.failed(kind, response)
        return False
    load.succeeded(kind)
    await asyncio.sleep(0.01)
    return response.header("connection") != "close"


# gRPC ---------------------------------------------------------------------------------------------


def talk(channel: Any, method: str = "/test/Talk") -> Kind:
    """A stream in both directions, talked on for a while and ended in order; then another."""

    async def run(load: Steady) -> None:
        loop = asyncio.get_running_loop()
        while not load.over.is_set():
            try:
                call, until = channel.stream_stream(method)(), loop.time() + TALK
                while loop.time() < until and not load.over.is_set():
                    await call.write(b"a")
                    if await call.read() != b"a!":
                        load.failed("stream", f"{await call.code()}: {await call.details()}")
                        return
                    await asyncio.sleep(0.1)
                await call.done_writing()
                if (
                    await call.read() is not grpc.aio.EOF
                    or await call.code() is not grpc.StatusCode.OK
                ):
                    load.failed("stream", f"{await call.code()}: {await call.details()}")
                load.succeeded("stream")
            except grpc.aio.AioRpcError as error:
                load.failed("stream", error)

    return run


# WebSocket ----------------------------------------------------------------------------------------


def chat(port: int) -> Kind:
    """A WebSocket, used for a while and closed in order; then another."""

    async def run(load: Steady) -> None:
        loop = asyncio.get_running_loop()
        while not load.over.is_set():
            until = loop.time() + TALK
            try:
                async with connect_websocket(f"ws://127.0.0.1:{port}/", proxy=None) as websocket:
                    while loop.time() < until and not load.over.is_set():
                        await websocket.send("a")
                        if await websocket.recv() != "a":
                            load.failed("websocket", "another answer")
                        await asyncio.sleep(0.1)
                if websocket.close_code != 1000:
                    load.failed("websocket", websocket.close_code)
                load.succeeded("websocket")
            except (OSError, WebSocketException, TimeoutError) as error:
                load.failed("websocket", error)

    return run


# Opaque TCP ---------------------------------------------------------------------------------------


def line(port: int) -> Kind:
    """A TCP connection to an echo, used for a while and ended by its FIN; then another."""

    async def run(load: Steady) -> None:
        loop = asyncio.get_running_loop()
        while not load.over.is_set():
            until = loop.time() + TALK
            try:
                async with connect(port) as client:
                    while loop.time() < until and not load.over.is_set():
                        await client.send(b"a")
                        if await client.reader.readexactly(1) != b"a":
                            load.failed("tcp", "another answer")
                        await asyncio.sleep(0.1)
                    client.writer.write_eof()
                    if rest := await client.rest():
                        load.failed("tcp", rest)
                load.succeeded("tcp")
            except (OSError, asyncio.IncompleteReadError, TimeoutError) as error:
                load.failed("tcp", error)

    return run
