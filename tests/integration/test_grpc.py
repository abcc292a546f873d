"""gRPC, as its own library speaks it, through two real sidecars."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest

from tests.helpers.pair import Pair

pytestmark = pytest.mark.integration

UNLIMITED = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]


class Service(grpc.GenericRpcHandler):  # type: ignore[misc]  # no types
    """
    Methods of all four kinds; messages are bytes.

    Attributes:
        cancelled: A call to `Wait` was given up.
    """

    def __init__(self) -> None:
        self.cancelled = asyncio.Event()
        self._methods = {
            "Echo": grpc.unary_unary_rpc_method_handler(self._echo),
            "Fail": grpc.unary_unary_rpc_method_handler(self._fail),
            "Wait": grpc.unary_unary_rpc_method_handler(self._wait),
            "Count": grpc.unary_stream_rpc_method_handler(self._count),
            "Sum": grpc.stream_unary_rpc_method_handler(self._sum),
            "Talk": grpc.stream_stream_rpc_method_handler(self._talk),
        }

    def service(self, details: Any) -> Any:
        return self._methods.get(details.method.rpartition("/")[2])

    async def _echo(self, request: bytes, context: Any) -> bytes:
        sent = dict(context.invocation_metadata())
        await context.send_initial_metadata((("x-seen", sent.get("x-sent", "")),))
        context.set_trailing_metadata((("x-size", str(len(request))),))
        return request

    async def _fail(self, request: bytes, context: Any) -> None:
        await context.abort(grpc.StatusCode.FAILED_PRECONDITION, "not today: €")

    async def _wait(self, request: bytes, context: Any) -> bytes:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            self.cancelled.set()
            raise
        return b""

    async def _count(self, request: bytes, context: Any) -> AsyncIterator[bytes]:
        for number in range(int(request)):
            yield b"%d" % number

    async def _sum(self, requests: AsyncIterator[bytes], context: Any) -> bytes:
        return b"%d" % sum([int(request) async for request in requests])

    async def _talk(self, requests: AsyncIterator[bytes], context: Any) -> AsyncIterator[bytes]:
        async for request in requests:
            yield request + b"!"


@asynccontextmanager
async def called(directory: Path) -> AsyncIterator[tuple[Any, Service, Pair, Any]]:
    """Yield a channel that leads through both sidecars, the service, the sidecars, the server."""
    service = Service()
    server = grpc.aio.server(options=UNLIMITED)
    server.add_generic_rpc_handlers((service,))
    pair = Pair(directory, server.add_insecure_port("127.0.0.1:0"), app_protocol="http2")
    await server.start()
    await asyncio.to_thread(pair.__enter__)
    try:
        async with grpc.aio.insecure_channel(
            f"127.0.0.1:{pair.door}", options=UNLIMITED
        ) as channel:
            yield channel, service, pair, server
    finally:
        await server.stop(0)
        await asyncio.to_thread(pair.__exit__)


async def test_unary(tmp_path: Path) -> None:
    """Message, metadata before and after, status; also 4 MiB both ways."""
    async with called(tmp_path) as (channel, _, _, _):
        call = channel.unary_unary("/test/Echo")(b"hello", metadata=(("x-sent", "once"),))
        assert await call == b"hello"
        assert ("x-seen", "once") in tuple(await call.initial_metadata())
        assert ("x-size", "5") in tuple(await call.trailing_metadata())
        large = b"z" * (4 << 20)
        assert await channel.unary_unary("/test/Echo")(large) == large


async def test_streams(tmp_path: Path) -> None:
    """From the server, from the client, and both at once with neither waiting for the end."""
    async with called(tmp_path) as (channel, _, _, _):
        counted = [part async for part in channel.unary_stream("/test/Count")(b"3000")]
        assert counted == [b"%d" % number for number in range(3000)]

        async def numbers() -> AsyncIterator[bytes]:
            for number in range(1000):
                yield b"%d" % number

        assert await channel.stream_unary("/test/Sum")(numbers()) == b"%d" % sum(range(1000))
        talk = channel.stream_stream("/test/Talk")()
        for number in range(5):
            await talk.write(b"%d" % number)
            assert await talk.read() == b"%d!" % number
        await talk.done_writing()
        assert await talk.read() is grpc.aio.EOF
        assert await talk.code() is grpc.StatusCode.OK


async def test_status_comes_through(tmp_path: Path) -> None:
    """An error of the service, an unknown method, and what the proxy itself has to say."""
    async with called(tmp_path) as (channel, _, _, server):
        for method, code in (
            ("Fail", grpc.StatusCode.FAILED_PRECONDITION),
            ("Unknown", grpc.StatusCode.UNIMPLEMENTED),
        ):
            with pytest.raises(grpc.aio.AioRpcError) as raised:
                await channel.unary_unary(f"/test/{method}")(b"")
            assert raised.value.code() is code
            if method == "Fail":
                assert raised.value.details() == "not today: €"
        await server.stop(0)
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await channel.unary_unary("/test/Echo")(b"", timeout=10)
        assert raised.value.code() is grpc.StatusCode.UNAVAILABLE
        assert "connect-failed" in str(raised.value.details())


async def test_cancellation_and_deadlines(tmp_path: Path) -> None:
    """Who gives up stops the work at the other end; the connection serves on."""
    async with called(tmp_path) as (channel, service, pair, _):
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await channel.unary_unary("/test/Wait")(b"", timeout=0.3)
        assert raised.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        async with asyncio.timeout(5):
            await service.cancelled.wait()
        assert await channel.unary_unary("/test/Echo")(b"still") == b"still"
        [cluster] = await asyncio.to_thread(pair.a.get, "/clusters")
        assert cluster["endpoints"][0]["connections"] == 1


async def test_a_thousand_streams(tmp_path: Path) -> None:
    """At once, all alive, and all cancelled at once: no flood, and the next call works."""
    async with called(tmp_path) as (channel, _, _, _):
        talks = [channel.stream_stream("/test/Talk")() for _ in range(1000)]
        for talk in talks:
            await talk.write(b"a")
        for talk in talks:
            assert await talk.read() == b"a!"
        for talk in talks:
            talk.cancel()
        assert await channel.unary_unary("/test/Echo")(b"still", timeout=10) == b"still"
