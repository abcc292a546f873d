"""Endpoints, clients and tunnels that stall, at a real sidecar that limits each of them differently."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from meshproxy.contract.policies import RetrySpec
from meshproxy.contract.resources import (
    BackendSpec,
    ClusterSpec,
    EndpointSpec,
    EndpointsSpec,
    ListenerSpec,
    RouteSpec,
    Snapshot,
    VirtualHostSpec,
)
from tests.helpers.client import connect
from tests.helpers.http2 import Headers
from tests.helpers.http2_peers import Stream, http2_app, http2_client
from tests.helpers.origin import Conversation, origin
from tests.helpers.pair import Sidecar
from tests.helpers.ports import free_port

pytestmark = pytest.mark.integration

SHORT = 400
"""Milliseconds: every limit here."""

LIMITS: dict[str, dict[str, Any]] = {
    "none": {"stream_idle_timeout": 0},
    "request": {"request_timeout": SHORT},
    "attempt": {"backend_request_timeout": SHORT},
    "answer": {"retry": RetrySpec(per_try_timeout=SHORT)},
    "idle": {"stream_idle_timeout": SHORT},
    "tunnel": {"tunnel_idle_timeout": SHORT},
    "duration": {"max_stream_duration": SHORT},
}
PROTOCOLS = ("http1", "http2")


class Limited:
    """
    A sidecar that knows a service for each limit and protocol, all of them of the same two apps.

    Attributes:
        door: An HTTP proxy for all of them: ``idle-http1.test``.
        ports: Of the apps, by protocol.
    """

    def __init__(self, directory: Path) -> None:
        self.door = free_port()
        self.ports = {protocol: free_port() for protocol in PROTOCOLS}
        services = [(f"{limit}-{protocol}", limit, protocol) for limit in LIMITS for protocol in PROTOCOLS]  # fmt: skip
        snapshot = Snapshot(
            clusters=tuple(
                ClusterSpec(name=name, protocol=protocol, **LIMITS[limit])  # type: ignore[arg-type]
                for name, limit, protocol in services
            ),
            endpoints=tuple(
                EndpointsSpec(
                    cluster=name,
                    endpoints=(EndpointSpec(address="127.0.0.1", port=self.ports[protocol]),),
                )
                for name, _, protocol in services
            ),
            virtual_hosts=tuple(
                VirtualHostSpec(
                    name=name,
                    domains=(f"{name}.test:80",),
                    routes=(RouteSpec(name=name, backends=(BackendSpec(cluster=name),)),),
                )
                for name, _, _ in services
            ),
            listeners=(
                ListenerSpec(
                    name="door", direction="outbound", address="127.0.0.1", port=self.door
                ),
            ),
        )
        self.sidecar = Sidecar(directory, "storefront", snapshot, None)


@pytest.fixture(scope="module")
def limited(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Limited]:
    it = Limited(tmp_path_factory.mktemp("limited"))
    with it.sidecar:
        yield it


# Apps ---------------------------------------------------------------------------------------------


class Stalling:
    """
    An app over both protocols: `/never` is not answered, `/half` is answered with half a body,
    `/slow` bit by bit, and `/deaf` does not read what it is sent.

    Attributes:
        left: It has lost the conversation that it stalled.
    """

    def __init__(self) -> None:
        self.left = asyncio.Event()

    async def http1(self, conversation: Conversation) -> None:
        path = conversation.request_line.split()[1]
        if path == b"/deaf":
            await asyncio.Event().wait()
        if path == b"/never":
            await self._until_left(conversation)
        await conversation.send(b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\n")
        if path == b"/half":
            await conversation.send(b"abc")
            await self._until_left(conversation)
        for _ in range(6):
            await asyncio.sleep(SHORT / 2000)
            await conversation.send(b"x")

    async def _until_left(self, conversation: Conversation) -> None:
        while await conversation.reader.read(1 << 16):
            pass
        self.left.set()
        raise ConnectionError

    async def http2(self, stream: Stream) -> None:
        head = await stream.next()
        path = dict(head.headers or ())[":path"]
        if path == "/deaf":
            await asyncio.Event().wait()
        if path == "/never":
            await self._until_reset(stream)
        stream.head([(":status", "200"), ("content-length", "6")])
        if path == "/half":
            await stream.body(b"abc", end=False)
            await self._until_reset(stream)
        for number in range(6):
            await asyncio.sleep(SHORT / 2000)
            await stream.body(b"x", end=number == 5)

    async def _until_reset(self, stream: Stream) -> None:
        while True:
            heard = await stream.next()
            if heard.kind == "RstStream":
                self.left.set()


@asynccontextmanager
async def stalling(limited: Limited) -> AsyncIterator[Stalling]:
    app = Stalling()
    async with (
        origin(app.http1, limited.ports["http1"]),
        http2_app(app.http2, limited.ports["http2"]),
    ):
        yield app


# Clients ------------------------------------------------------------------------------------------


class Seen:
    """
    What a client has seen of its answer.

    Attributes:
        whole: Its end was one.
    """

    def __init__(self, status: int, code: str | None, body: bytes, *, whole: bool) -> None:
        self.status = status
        self.code = code
        self.body = body
        self.whole = whole


async def ask_http1(port: int, authority: str, path: str) -> Seen:
    async with connect(port) as client:
        await client.send(f"GET {path} HTTP/1.1\r\nHost: {authority}\r\n\r\n".encode())
        answer = await client.head()
        length = int(answer.header("content-length") or 0)
        try:
            async with asyncio.timeout(10):
                body, whole = await client.reader.readexactly(length), True
        except (asyncio.IncompleteReadError, ConnectionError) as error:
            body, whole = getattr(error, "partial", b""), False
        return Seen(answer.status, answer.header("x-mesh-refusal"), body, whole=whole)


def head_of(authority: str, path: str, method: str = "GET") -> Headers:
    return (
        (":method", method), (":scheme", "http"), (":path", path), (":authority", authority),
    )  # fmt: skip


async def ask_http2(port: int, authority: str, path: str) -> Seen:
    async with http2_client(port) as client:
        answer = await client.ask(head_of(authority, path)).message()
        code = answer.header("x-mesh-refusal")
        return Seen(int(answer.status or 0), code, answer.body, whole=answer.reset is None)


ASK = {"http1": ask_http1, "http2": ask_http2}
SILENT = [
    ("request", "deadline-exceeded"),
    ("attempt", "attempt-timeout"),
    ("answer", "attempt-timeout"),
    ("idle", "stream-idle"),
    ("duration", "duration-exceeded"),
]


# Endpoints that stall -----------------------------------------------------------------------------


@pytest.mark.parametrize("protocol", PROTOCOLS)
async def test_an_endpoint_that_never_answers(limited: Limited, protocol: str) -> None:
    """Whichever limit is the first: 504 with its name, and the endpoint is told to stop."""
    async with stalling(limited) as app:
        for limit, code in SILENT:
            app.left.clear()
            seen = await ASK[protocol](limited.door, f"{limit}-{protocol}.test", "/never")
            assert (limit, seen.status, seen.code) == (limit, 504, code)
            async with asyncio.timeout(10):
                await app.left.wait()


@pytest.mark.parametrize("protocol", PROTOCOLS)
async def test_an_endpoint_that_stalls_amid_its_answer(limited: Limited, protocol: str) -> None:
    """The answer is torn, and visibly so; a limit of the head alone has been kept."""
    async with stalling(limited) as app:
        for limit in ("request", "attempt", "idle", "duration"):
            app.left.clear()
            seen = await ASK[protocol](limited.door, f"{limit}-{protocol}.test", "/half")
            assert (limit, seen.status, seen.whole) == (limit, 200, False)
            async with asyncio.timeout(10):
                await app.left.wait()


@pytest.mark.parametrize("protocol", PROTOCOLS)
async def test_an_answer_that_comes_slowly_is_not_idle(limited: Limited, protocol: str) -> None:
    """It takes longer than the limit in all, and never stands still for so long."""
    async with stalling(limited):
        for limit in ("idle", "answer", "none"):
            seen = await ASK[protocol](limited.door, f"{limit}-{protocol}.test", "/slow")
            assert (limit, seen.status, seen.body, seen.whole) == (limit, 200, b"xxxxxx", True)


@pytest.mark.parametrize("protocol", PROTOCOLS)
async def test_an_endpoint_that_does_not_read(limited: Limited, protocol: str) -> None:
    """A body that stands still because nobody takes it is idle like any other."""
    async with stalling(limited), http2_client(limited.door) as client:
        stream = client.ask(head_of(f"idle-{protocol}.test", "/deaf", "PUT"), end=False)
        upload = asyncio.create_task(stream.body(b"z" * (64 << 20)))
        answer = await stream.message()
        upload.cancel()
        assert (answer.status, answer.header("x-mesh-refusal")) == ("504", "stream-idle")


# Clients that stall -------------------------------------------------------------------------------


async def test_a_client_that_stalls_its_body(limited: Limited) -> None:
    """Over both protocols; the endpoint's half of it ends, too, and does not look whole."""
    async with stalling(limited) as app:
        async with connect(limited.door) as client:
            await client.send(
                b"PUT /never HTTP/1.1\r\nHost: idle-http1.test\r\nContent-Length: 9\r\n\r\nabc"
            )
            answer = await client.response()
            assert (answer.status, answer.header("x-mesh-refusal")) == (504, "stream-idle")
            async with asyncio.timeout(10):
                await app.left.wait()
        app.left.clear()
        async with http2_client(limited.door) as client:
            stream = client.ask(head_of("idle-http1.test", "/never", "PUT"), end=False)
            await stream.body(b"abc", end=False)
            heard = await stream.message()
            assert (heard.status, heard.header("x-mesh-refusal")) == ("504", "stream-idle")
            async with asyncio.timeout(10):
                await app.left.wait()


async def test_a_client_that_does_not_read(limited: Limited) -> None:
    """Its answer waits in full buffers, and so does the endpoint: not for ever."""
    left = asyncio.Event()

    async def pour(conversation: Conversation) -> None:
        await conversation.send(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000000\r\n\r\n")
        try:
            while True:
                await conversation.send(b"z" * 65536)
        except ConnectionError:
            left.set()
            raise

    async with origin(pour, limited.ports["http1"]), connect(limited.door) as client:
        client.writer.transport.pause_reading()  # type: ignore[attr-defined]
        await client.send(b"GET / HTTP/1.1\r\nHost: idle-http1.test\r\n\r\n")
        async with asyncio.timeout(10):
            await left.wait()


# Tunnels ------------------------------------------------------------------------------------------

UPGRADE = "GET /{} HTTP/1.1\r\nHost: {}.test\r\nConnection: Upgrade\r\nUpgrade: own/1\r\n\r\n"


async def echo(conversation: Conversation) -> None:
    """Switch to a protocol that says everything back; `/never` does not switch."""
    if conversation.request_line.split()[1] == b"/never":
        await conversation.reader.read()
        return
    await conversation.send(
        b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: own/1\r\n\r\n"
    )
    while data := await conversation.reader.read(65536):
        await conversation.send(data)
    raise ConnectionError


@pytest.mark.parametrize(("limit", "code"), SILENT)
async def test_a_tunnel_that_never_opens(limited: Limited, limit: str, code: str) -> None:
    """Waiting for 101 is waiting for an answer."""
    async with origin(echo, limited.ports["http1"]), connect(limited.door) as client:
        await client.send(UPGRADE.format("never", f"{limit}-http1").encode())
        answer = await client.response()
        assert (answer.status, answer.header("x-mesh-refusal")) == (504, code)


@pytest.mark.parametrize("limit", ["request", "attempt", "answer", "idle"])
async def test_a_tunnel_outlives_the_limits_of_its_request(limited: Limited, limit: str) -> None:
    """Another request runs into the limit that the open tunnel, in silence, does not have."""
    async with origin(echo, limited.ports["http1"]), connect(limited.door) as client:
        await client.send(UPGRADE.format("", f"{limit}-http1").encode())
        assert (await client.head()).status == 101
        seen = await ask_http1(limited.door, f"{limit}-http1.test", "/never")
        assert seen.status == 504
        await client.send(b"still there?")
        async with asyncio.timeout(10):
            assert await client.reader.readexactly(12) == b"still there?"


@pytest.mark.parametrize("limit", ["tunnel", "duration"])
async def test_a_tunnel_has_the_limits_that_are_its_own(limited: Limited, limit: str) -> None:
    """It is torn, as RST: that is no end."""
    async with origin(echo, limited.ports["http1"]), connect(limited.door) as client:
        await client.send(UPGRADE.format("", f"{limit}-http1").encode())
        assert (await client.head()).status == 101
        with pytest.raises(ConnectionResetError):
            await client.rest()
