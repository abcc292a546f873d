"""
gRPC's eight negative HTTP/2 cases: servers that do unusual things, and gRPC's own client.

The cases are those of grpc/doc/negative-http2-test-descriptions.md, written anew with hyperframe;
between the server and the client are two real sidecars.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import grpc
import grpc.aio
import pytest
import pytest_asyncio
from hyperframe.frame import DataFrame

from tests.helpers.http2 import Headers
from tests.helpers.http2_peers import App, End, Stream, http2_app
from tests.helpers.services import Service, Services

pytestmark = [pytest.mark.integration, pytest.mark.asyncio(loop_scope="module")]

SIZE = 314_159  # of large answers in gRPC's interoperability tests
HEAD: Headers = [(":status", "200"), ("content-type", "application/grpc")]
OK: Headers = [("grpc-status", "0")]


def message(body: bytes) -> bytes:
    """Frame a message that is not compressed."""
    return b"\0" + len(body).to_bytes(4, "big") + body


ANSWER = message(b"z" * SIZE)


async def answer(stream: Stream) -> None:
    """As any server would."""
    stream.head(HEAD)
    await stream.body(ANSWER, end=False)
    stream.head(OK, end=True)


class Scenario:
    """
    Attributes:
        serve: What the server does with the next requests.
        app: The server's connections.
    """

    def __init__(self) -> None:
        self.serve: Callable[[Stream, End], Awaitable[None]]
        self.app: App
        self.services: Services

    async def on_stream(self, stream: Stream) -> None:
        request = await stream.message()
        if request.reset is None:
            await self.serve(stream, stream._end)

    @asynccontextmanager
    async def client(
        self, serve: Callable[[Stream, End], Awaitable[None]]
    ) -> AsyncIterator[Callable[[], Any]]:
        """Yield a function that makes a unary call; the server has no connection yet."""
        self.serve = serve
        for end in self.app.ends:
            end.writer.close()
        self.app.ends.clear()
        async with grpc.aio.insecure_channel(
            f"127.0.0.1:{self.services.doors['app']}",
            options=[("grpc.use_local_subchannel_pool", 1)],
        ) as channel:
            yield lambda: channel.unary_unary("/test/Unary")(b"hello", timeout=20)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def scenario(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Scenario]:
    it = Scenario()
    async with http2_app(it.on_stream) as app:
        it.app = app
        services = Services(tmp_path_factory.mktemp("grpc"), [Service("app", app.port, "http2")])
        it.services = services
        await asyncio.to_thread(services.__enter__)
        yield it
        await asyncio.to_thread(services.__exit__)


async def test_goaway(scenario: Scenario) -> None:
    """The server goes away after its first answer: the second call uses another connection."""

    async def serve(stream: Stream, end: End) -> None:
        await answer(stream)
        end.write(end.wire.goaway(stream.number))

    async with scenario.client(serve) as call:
        for number in (1, 2):
            assert len(await call()) == SIZE
            assert len(scenario.app.ends) == number


@pytest.mark.parametrize(
    "part", [b"", ANSWER[: SIZE // 2], ANSWER], ids=["header", "during", "data"]
)
@pytest.mark.parametrize("code", [0, 2, 8])
async def test_rst_after_header_and_during_and_after_data(
    scenario: Scenario, part: bytes, code: int
) -> None:
    """An error, at once, never an answer without its status; and the next call is served."""

    async def serve(stream: Stream, end: End) -> None:
        stream.head(HEAD)
        await stream.body(part, end=False)
        stream.reset(code)

    async with scenario.client(serve) as call:
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await call()
        assert raised.value.code() not in (
            grpc.StatusCode.OK,
            grpc.StatusCode.DEADLINE_EXCEEDED,
        )
        scenario.serve = lambda stream, _end: answer(stream)
        assert len(await call()) == SIZE


async def test_ping(scenario: Scenario) -> None:
    """The server pings before and after each frame: all are answered, and so is the call."""
    pongs = 0

    async def serve(stream: Stream, end: End) -> None:
        nonlocal pongs
        on_frame = end._on_frame

        def count(heard: Any) -> None:
            nonlocal pongs
            pongs += heard.kind == "Ping" and "ACK" in heard.frame.flags
            on_frame(heard)

        end._on_frame = count  # type: ignore[method-assign]
        wire, number = end.wire, stream.number
        for frame in (
            wire.headers(number, HEAD, end=False),
            wire.data(number, message(b"z" * 1000)),
            wire.headers(number, OK),
        ):
            end.write(wire.ping(b"before..") + frame + wire.ping(b"after..."))

    async with scenario.client(serve) as call:
        assert len(await call()) == 1000
        async with asyncio.timeout(10):
            while pongs < 6:
                await asyncio.sleep(0.01)


async def test_max_streams(scenario: Scenario) -> None:
    """The server admits one stream at a time; fifteen calls at once are all served."""
    most: dict[End, int] = {}
    open_now: dict[End, int] = {}

    async def serve(stream: Stream, end: End) -> None:
        if end not in open_now:
            end.write(end.wire.settings(s3=1))
        open_now[end] = open_now.get(end, 0) + 1
        most[end] = max(most.get(end, 0), open_now[end])
        await asyncio.sleep(0.01)
        open_now[end] -= 1
        await answer(stream)

    async with scenario.client(serve) as call:
        assert len(await call()) == SIZE
        most.clear()
        assert [len(a) for a in await asyncio.gather(*[call() for _ in range(15)])] == [SIZE] * 15
        # A connection that the sidecar has dialled since may hear of the limit late.
        first = scenario.app.ends[0]
        assert most.get(first, 1) == 1


@pytest.mark.parametrize("padding", [255, 0], ids=["data_frame_padding", "no_df_padding_sanity"])
async def test_data_frame_padding(scenario: Scenario, padding: int) -> None:
    """
    Frames of five bytes and 255 of padding, which count against the windows: more padding than
    a connection's window is given back.
    """

    async def serve(stream: Stream, end: End) -> None:
        stream.head(HEAD)
        body = message(b"z" * 2_500)
        for start in range(0, len(body), 5):
            frame = DataFrame(stream.number, body[start : start + 5], pad_length=padding)
            if padding:
                frame.flags.add("PADDED")
            size = frame.body_len or len(frame.serialize()) - 9
            while min(stream.window, end.window) < size:
                end.moved.clear()
                await end.moved.wait()
            stream.window -= size
            end.window -= size
            end.write(frame.serialize())
        stream.head(OK, end=True)

    async with scenario.client(serve) as call:
        for _ in range(10):
            assert len(await call()) == 2_500
