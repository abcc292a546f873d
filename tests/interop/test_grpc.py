"""
gRPC's own library through two real sidecars; the basics are in `tests/integration/test_grpc.py`.
"""

import asyncio
import random
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import grpc
import grpc.aio
import pytest
import pytest_asyncio

from tests.helpers.services import Service, Services

pytestmark = [pytest.mark.integration, pytest.mark.asyncio(loop_scope="module")]

MIB = 1 << 20
BLOCK = random.Random(3).randbytes(MIB)
LARGE = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]
# Channels share connections unless they are told not to.
ALONE = [*LARGE, ("grpc.use_local_subchannel_pool", 1)]


class App(grpc.GenericRpcHandler):  # type: ignore[misc]  # no types
    """
    Messages are bytes.

    Attributes:
        calls: How many are open, by method.
        gone: A download is over.
        go: Those that hold back go on.
    """

    def __init__(self) -> None:
        self.calls: dict[str, int] = {}
        self.gone = asyncio.Event()
        self.go = asyncio.Event()
        self._methods = {
            "Metadata": grpc.unary_unary_rpc_method_handler(self._metadata),
            "Echo": grpc.unary_unary_rpc_method_handler(self._echo),
            "Details": grpc.unary_unary_rpc_method_handler(self._details),
            "Remaining": grpc.unary_unary_rpc_method_handler(self._remaining),
            "Bulk": grpc.unary_stream_rpc_method_handler(self._bulk),
            "Count": grpc.stream_unary_rpc_method_handler(self._count),
            "Deaf": grpc.stream_unary_rpc_method_handler(self._deaf),
            "Talk": grpc.stream_stream_rpc_method_handler(self._talk),
            "LastWord": grpc.stream_stream_rpc_method_handler(self._last_word),
        }

    def service(self, details: Any) -> Any:
        return self._methods.get(details.method.rpartition("/")[2])

    async def _metadata(self, request: bytes, context: Any) -> bytes:
        """Send everything back: in text before the answer, and whole behind it."""
        sent = [(n, v) for n, v in context.invocation_metadata() if n.startswith("x-")]
        await context.send_initial_metadata(sent)
        context.set_trailing_metadata(sent)
        return request

    async def _echo(self, request: bytes, context: Any) -> bytes:
        context.set_compression(grpc.Compression.Gzip)  # as far as the client takes it
        return request

    async def _details(self, request: bytes, context: Any) -> None:
        context.set_trailing_metadata((("grpc-status-details-bin", bytes(range(256))),))
        await context.abort(grpc.StatusCode.ABORTED, "100 % of “this”\nand that")

    async def _remaining(self, request: bytes, context: Any) -> bytes:
        return b"%f" % context.time_remaining()

    async def _bulk(self, request: bytes, context: Any) -> AsyncIterator[bytes]:
        self.calls["Bulk"] = self.calls.get("Bulk", 0) + 1
        context.add_done_callback(lambda _context: self.gone.set())
        for _ in range(int(request)):
            yield BLOCK

    async def _count(self, requests: AsyncIterator[bytes], context: Any) -> bytes:
        return b"%d" % sum([len(request) async for request in requests])

    async def _deaf(self, requests: AsyncIterator[bytes], context: Any) -> bytes:
        self.calls["Deaf"] = self.calls.get("Deaf", 0) + 1
        await self.go.wait()
        return b"%d" % sum([len(request) async for request in requests])

    async def _talk(self, requests: AsyncIterator[bytes], context: Any) -> AsyncIterator[bytes]:
        async for request in requests:
            yield request + b"!"

    async def _last_word(
        self, requests: AsyncIterator[bytes], context: Any
    ) -> AsyncIterator[bytes]:
        """The server's half ends first, without having heard the client's end."""
        yield b"that will do"


@dataclass
class Mesh:
    services: Services
    app: App

    def channel(self, *options: tuple[str, Any], compression: Any = None) -> Any:
        return grpc.aio.insecure_channel(
            f"127.0.0.1:{self.services.doors['app']}",
            options=[*ALONE, *options],
            compression=compression,
        )


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def mesh(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Mesh]:
    app = App()
    server = grpc.aio.server(options=LARGE)
    server.add_generic_rpc_handlers((app,))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    services = Services(tmp_path_factory.mktemp("grpc"), [Service("app", port, "http2")])
    await asyncio.to_thread(services.__enter__)
    yield Mesh(services, app)
    await asyncio.to_thread(services.__exit__)
    await server.stop(0)


async def test_metadata(mesh: Mesh) -> None:
    """Several values of one key, binary ones, white space inside, large ones: before and behind."""
    sent = [
        ("x-many", "one"),
        ("x-bytes-bin", bytes(range(256))),
        ("x-many", "two, three"),
        ("x-empty-bin", b""),
        ("x-spaced", "a  b"),
        ("x-large", "v" * 6000),
    ]
    async with mesh.channel() as channel:
        call = channel.unary_unary("/test/Metadata")(b"hello", metadata=sent)
        assert await call == b"hello"
        for metadata in (await call.initial_metadata(), await call.trailing_metadata()):
            got = [
                (n, v) for n, v in metadata if n.startswith("x-") and n != "x-forwarded-client-cert"
            ]
            assert sorted(got, key=str) == sorted(sent, key=str)
            assert [v for n, v in got if n == "x-many"] == ["one", "two, three"]


async def test_errors_with_details(mesh: Mesh) -> None:
    """The message, escaped on the wire, and the binary details behind it."""
    async with mesh.channel() as channel:
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await channel.unary_unary("/test/Details")(b"")
    error = raised.value
    assert error.code() is grpc.StatusCode.ABORTED
    assert error.details() == "100 % of “this”\nand that"
    assert ("grpc-status-details-bin", bytes(range(256))) in tuple(error.trailing_metadata() or ())


@pytest.mark.parametrize("compression", ["NoCompression", "Deflate", "Gzip"])
async def test_compression(mesh: Mesh, compression: str) -> None:
    """The codings that both ends agree on are their business."""
    async with mesh.channel(compression=grpc.Compression[compression]) as channel:
        text = b"the same again and again " * 40_000
        assert await channel.unary_unary("/test/Echo")(text) == text
        talk = channel.stream_stream("/test/Talk")()
        for _ in range(3):
            await talk.write(text)
            assert await talk.read() == text + b"!"
        await talk.done_writing()
        assert await talk.code() is grpc.StatusCode.OK


async def test_the_deadline_arrives(mesh: Mesh) -> None:
    """The server knows how much time the client has left; without a deadline, that there is none."""
    async with mesh.channel() as channel:
        left = float(await channel.unary_unary("/test/Remaining")(b"", timeout=50))
        assert 0 < left <= 50


async def test_large_messages(mesh: Mesh) -> None:
    """4 MiB in one message, in each direction of each kind."""
    message = BLOCK * 4
    async with mesh.channel() as channel:
        assert await channel.unary_unary("/test/Echo")(message) == message
        talk = channel.stream_stream("/test/Talk")()
        await talk.write(message)
        assert await talk.read() == message + b"!"
        await talk.done_writing()
        assert await talk.code() is grpc.StatusCode.OK
        sent = [message] * 3
        assert await channel.stream_unary("/test/Count")(iter(sent)) == b"%d" % (12 * MIB)


async def test_the_server_may_have_the_last_word(mesh: Mesh) -> None:
    """It ends the call with OK while the client could still speak."""
    async with mesh.channel() as channel:
        for _ in range(20):
            talk = channel.stream_stream("/test/LastWord")()
            await talk.write(b"well")
            assert await talk.read() == b"that will do"
            assert await talk.read() is grpc.aio.EOF
            assert await talk.code() is grpc.StatusCode.OK


async def test_a_thousand_calls_at_once(mesh: Mesh) -> None:
    """Streams of one channel, each with a conversation of its own."""
    async with mesh.channel() as channel:

        async def talk(number: int) -> bool:
            call = channel.stream_stream("/test/Talk")()
            for word in (b"a%d" % number, b"b%d" % number):
                await call.write(word)
                if await call.read() != word + b"!":
                    return False
            await call.done_writing()
            return await call.code() is grpc.StatusCode.OK

        assert all(await asyncio.gather(*[talk(number) for number in range(1000)]))


async def test_stalled_calls_do_not_delay_their_neighbours(mesh: Mesh) -> None:
    """
    Five downloads that nobody reads and five uploads that nobody takes, all on one channel: ninety
    others complete, and the ten go on when they may.
    """
    app = mesh.app
    app.go.clear()
    app.calls.clear()
    before = mesh.services.a.rss() + mesh.services.b.rss()
    async with mesh.channel() as channel:
        unread = [channel.unary_stream("/test/Bulk")(b"40") for _ in range(5)]
        for call in unread:
            assert await call.read() == BLOCK
        untaken = [channel.stream_unary("/test/Deaf")() for _ in range(5)]
        writers = [asyncio.create_task(_write(call, 40)) for call in untaken]
        async with asyncio.timeout(20):
            while app.calls != {"Bulk": 5, "Deaf": 5}:
                await asyncio.sleep(0.01)

        async def neighbour(number: int) -> bool:
            body = b"%d" % number * 10_000
            return bool(await channel.unary_unary("/test/Echo")(body, timeout=30) == body)

        assert all(await asyncio.gather(*[neighbour(number) for number in range(90)]))
        assert not any(writer.done() for writer in writers)
        # What waits is bounded by the windows of each stream, not by what there is to say.
        assert mesh.services.a.rss() + mesh.services.b.rss() - before < 90 * MIB

        app.go.set()
        await asyncio.gather(*writers)
        assert [await call for call in untaken] == [b"%d" % (40 * MIB)] * 5
        for call in unread:
            assert [len(await call.read()) for _ in range(39)] == [MIB] * 39
            assert await call.read() is grpc.aio.EOF


async def _write(call: Any, blocks: int) -> None:
    for _ in range(blocks):
        await call.write(BLOCK)
    await call.done_writing()


async def test_a_client_that_goes_away_stops_the_server(mesh: Mesh) -> None:
    """Cancelled in the middle of a download: the server is told."""
    async with mesh.channel() as channel:
        call = channel.unary_stream("/test/Bulk")(b"1000000")
        await call.read()
        mesh.app.gone.clear()
        call.cancel()
        async with asyncio.timeout(10):
            await mesh.app.gone.wait()
        assert await channel.unary_unary("/test/Echo")(b"still") == b"still"
