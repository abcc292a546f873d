"""gRPC, as its own library speaks it, through two real sidecars."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest
from prometheus_client.parser import text_string_to_metric_families

from meshproxy.codec.grpc import timeout_of
from meshproxy.codec.http2 import CANCEL
from meshproxy.message import field
from tests.helpers.client import connect
from tests.helpers.http2 import Headers
from tests.helpers.http2_peers import Stream, http2_app, http2_client
from tests.helpers.origin import Conversation, origin
from tests.helpers.pair import Pair, Sidecar

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
            await channel.unary_unary("/test/Wait")(b"", timeout=1.0)
        assert raised.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        async with asyncio.timeout(10):
            await service.cancelled.wait()
        assert await channel.unary_unary("/test/Echo")(b"still") == b"still"
        [cluster] = await asyncio.to_thread(pair.a.get, "/clusters")
        assert cluster["endpoints"][0]["connections"] == 1


def metric(sidecar: Sidecar, name: str, **labels: str) -> float:
    """Return the sum of a metric's samples that have these labels."""
    return sum(
        sample.value
        for family in text_string_to_metric_families(sidecar.metrics())
        for sample in family.samples
        if sample.name == name and labels.items() <= sample.labels.items()
    )


async def test_calls_are_counted_by_status(tmp_path: Path) -> None:
    """Both sidecars see the status that only the trailers have, and that it is gRPC."""
    async with called(tmp_path) as (channel, _, pair, _):
        await channel.unary_unary("/test/Echo")(b"hello")
        counted = [part async for part in channel.unary_stream("/test/Count")(b"3")]
        assert len(counted) == 3
        for method in ("Fail", "Unknown"):
            with pytest.raises(grpc.aio.AioRpcError):
                await channel.unary_unary(f"/test/{method}")(b"")
        for sidecar, direction in ((pair.a, "outbound"), (pair.b, "inbound")):
            for status, count in (("0", 2), ("9", 1), ("12", 1)):
                found = await asyncio.to_thread(
                    metric,
                    sidecar,
                    "mesh_grpc_responses_total",
                    direction=direction,
                    grpc_status=status,
                )
                assert found == count, (direction, status)
            requests = await asyncio.to_thread(
                metric, sidecar, "mesh_requests_total", protocol="grpc", code="200", flag="-"
            )
            assert requests == 4


CALL: Headers = (
    (":method", "POST"),
    (":scheme", "http"),
    (":authority", "catalog"),
    (":path", "/test/Stuck"),
    ("content-type", "application/grpc"),
    ("te", "trailers"),
    ("grpc-timeout", "300m"),
)
MESSAGE = b"\0\0\0\0\5hello"


@pytest.mark.parametrize("begun", [False, True])
async def test_a_stuck_server_is_told_to_stop(tmp_path: Path, begun: bool) -> None:
    """
    Neither client nor server minds the deadline here: the sidecars do.

    Before the head of the answer and after it, the client gets a proper DEADLINE_EXCEEDED and the
    server a cancellation.
    """
    stopped: asyncio.Future[int] = asyncio.get_running_loop().create_future()
    timeouts: list[str] = []

    async def serve(stream: Stream) -> None:
        heard = await stream.next()
        timeouts.append(dict(heard.headers or ())["grpc-timeout"])
        if begun:
            stream.head([(":status", "200"), ("content-type", "application/grpc")])
            await stream.body(MESSAGE, end=False)
        while heard.kind != "RstStream":
            heard = await stream.next()
        stopped.set_result(heard.frame.error_code)

    async with http2_app(serve) as app:
        with Pair(tmp_path, app.port, app_protocol="http2") as pair:
            async with http2_client(pair.door) as client:
                call = client.ask(CALL, end=False)
                await call.body(MESSAGE)
                answer = await call.message()
            assert (answer.status, answer.reset) == ("200", None)
            last = dict(answer.trailers if begun else answer.headers)
            assert last["grpc-status"] == "4"
            assert last["grpc-message"].startswith("deadline-exceeded")
            assert answer.body == (MESSAGE if begun else b"")
            async with asyncio.timeout(10):
                assert await stopped == CANCEL
            assert timeout_of([field(b"grpc-timeout", timeouts[0].encode())]) <= 0.3  # type: ignore[operator]
            # Whichever of the two was first: the other has seen what it said.
            late = await asyncio.to_thread(
                metric, pair.a, "mesh_grpc_responses_total", grpc_status="4"
            )
            assert late == 1


async def test_grpc_web_passes_through(tmp_path: Path) -> None:
    """Over HTTP/1.1, with its status inside a body that nobody looks into."""
    frames = b"\0\0\0\0\2ok\x80\0\0\0\x10grpc-status: 0\r\n"

    async def answer(conversation: Conversation) -> None:
        assert conversation.header("content-type") == "application/grpc-web+proto"
        assert await conversation.body() == MESSAGE
        await conversation.send(
            b"HTTP/1.1 200 OK\r\nContent-Type: application/grpc-web+proto\r\n"
            b"Content-Length: %d\r\n\r\n%s" % (len(frames), frames)
        )

    async with origin(answer) as app:
        with Pair(tmp_path, app.port) as pair:
            async with connect(pair.door) as client:
                await client.send(
                    b"POST /test/Echo HTTP/1.1\r\nHost: catalog\r\n"
                    b"Content-Type: application/grpc-web+proto\r\nContent-Length: %d\r\n\r\n%s"
                    % (len(MESSAGE), MESSAGE)
                )
                response = await client.response()
    assert (response.status, response.body) == (200, frames)


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
