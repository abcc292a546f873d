"""A policy that comes ends the streams that it forbids, which have no next request to be asked about."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest
from websockets.asyncio.client import connect as ws_connect
from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosedError, InvalidStatus

from tests.helpers.enrolled_mesh import EnrolledMesh
from tests.helpers.plane import until

pytestmark = pytest.mark.integration

DENY = """---
apiVersion: meshproxy.io/v1alpha1
kind: AuthorizationPolicy
metadata: {name: no-talk}
spec:
  selector: {matchLabels: {app: app}}
  action: DENY
  rules:
    - to: [{operation: {paths: [/talk, /t.Books/*]}}]
"""


async def _echo(connection: ServerConnection) -> None:
    async for message in connection:
        await connection.send(message)


class Books(grpc.GenericRpcHandler):  # type: ignore[misc]  # no types
    """`/t.Books/Talk` echoes, `/t.Books/Get` answers when it may."""

    def __init__(self) -> None:
        self.asked = asyncio.Event()
        self.go = asyncio.Event()

    def service(self, details: Any) -> Any:
        if details.method == "/t.Books/Talk":
            return grpc.stream_stream_rpc_method_handler(self._talk)
        return grpc.unary_unary_rpc_method_handler(self._get)

    async def _talk(self, requests: AsyncIterator[bytes], _context: Any) -> AsyncIterator[bytes]:
        async for request in requests:
            yield request

    async def _get(self, request: bytes, _context: Any) -> bytes:
        self.asked.set()
        await self.go.wait()
        return request


@contextlib.asynccontextmanager
async def running(directory: Path, books: Books) -> AsyncIterator[EnrolledMesh]:
    server = grpc.aio.server()
    server.add_generic_rpc_handlers((books,))
    calls = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        async with serve(_echo, "127.0.0.1", 0) as talk:
            apps = {8080: next(iter(talk.sockets)).getsockname()[1], 9000: calls, 7000: 1}
            async with EnrolledMesh(directory, 3600, apps).running() as mesh:
                yield mesh
    finally:
        await server.stop(0)


async def test_streams_that_a_new_policy_forbids_end(tmp_path: Path) -> None:
    """WebSocket and stream of gRPC at once, told no more than others; what is allowed, and what is one request, goes on."""
    books = Books()
    async with running(tmp_path, books) as mesh, contextlib.AsyncExitStack() as stack:

        def dial(path: str) -> ws_connect:
            return ws_connect(
                f"ws://web{path}", host="127.0.0.1", port=mesh.doors["web"], proxy=None
            )

        talk = await stack.enter_async_context(dial("/talk"))
        other = await stack.enter_async_context(dial("/other"))
        address = f"127.0.0.1:{mesh.doors['calls']}"
        channel = await stack.enter_async_context(grpc.aio.insecure_channel(address))
        call = channel.stream_stream("/t.Books/Talk")()
        await call.write(b"1")
        assert await call.read() == b"1"
        single = channel.unary_unary("/t.Books/Get")(b"2")
        await books.asked.wait()

        with (mesh.directory / "mesh.yaml").open("a") as file:
            file.write(DENY)
        async with asyncio.timeout(20):
            with pytest.raises(ConnectionClosedError) as torn:
                await talk.recv()
            assert torn.value.rcvd is None  # no close frame: nobody takes it for an end
            with pytest.raises(grpc.aio.AioRpcError) as denied:
                await call.read()
        assert denied.value.code() is grpc.StatusCode.PERMISSION_DENIED
        with pytest.raises(InvalidStatus) as refused:
            await stack.enter_async_context(dial("/talk"))
        assert refused.value.response.status_code == 403
        books.go.set()
        assert await single == b"2"
        await until(mesh.synced)
        await other.send("still here")
        assert await other.recv() == "still here"

        denials = json.loads(await asyncio.to_thread(mesh.page, "app", "/denials"))
        assert {one["path"] for one in denials} == {"/talk", "/t.Books/Talk"}
        assert {one["policy"] for one in denials} == {"default/no-talk"}
        said = denied.value.details() or ""
        assert any(one["id"] in said for one in denials)
        assert "no-talk" not in said
        assert "default" not in said
