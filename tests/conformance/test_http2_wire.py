"""
The rules of RFC 9113 and RFC 7541 on the wire of a real sidecar: its clients', then its servers'.

The cases, their order and their numbers are those of h2spec (sections of RFC 7540, whose rules
those of RFC 9113 are), as far as `test_http2_server.py` does not have them: what must be answered
how is checked there case by case, here that a whole process does it, and goes on with others.
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import hpack
import pytest
import pytest_asyncio
from hyperframe.frame import (
    ContinuationFrame,
    DataFrame,
    GoAwayFrame,
    HeadersFrame,
    PingFrame,
    PriorityFrame,
    SettingsFrame,
    WindowUpdateFrame,
)

from tests.conformance.test_http2_server import (
    COMPRESSION_ERROR,
    CONNECTION_ERRORS,
    FLOW_CONTROL_ERROR,
    FRAME_SIZE_ERROR,
    MALFORMED,
    PROTOCOL_ERROR,
    SERVED,
    STREAM_CLOSED,
    STREAM_ERRORS,
    Say,
    raw,
)
from tests.helpers.client import get
from tests.helpers.http2 import GET, POST, PREFACE, Headers, Heard, Wire, of
from tests.helpers.origin import Conversation, origin
from tests.helpers.services import Service, Services

pytestmark = [pytest.mark.integration, pytest.mark.asyncio(loop_scope="module")]

PATIENCE = 10.0
HEAD: Headers = ((":method", "HEAD"), *GET[1:])


# The sidecar as a server --------------------------------------------------------------------------


async def app(conversation: Conversation) -> None:
    """Say how long the body was; on /slow, not before more of it than a window has gone."""
    body = await conversation.body()
    text = b"%d bytes of a body" % len(body)
    head = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(text)
    await conversation.send(head + (b"" if conversation.head.startswith(b"HEAD") else text))


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def door(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[int]:
    async with origin(app) as it:
        services = Services(tmp_path_factory.mktemp("server"), [Service("app", it.port)])
        await asyncio.to_thread(services.__enter__)
        yield services.doors["app"]
        await asyncio.to_thread(services.__exit__)


class Talk:
    """A connection to the sidecar on which anything may be said."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.wire = Wire()
        self.heard: list[Heard] = []
        self.closed = False
        self._reader = reader
        self._writer = writer

    def say(self, data: bytes) -> None:
        self._writer.write(data)

    async def hear(self, enough: Callable[[], object]) -> None:
        """Read until it is enough or the sidecar has closed."""
        async with asyncio.timeout(PATIENCE):
            while not enough() and not self.closed:
                try:
                    data = await self._reader.read(65536)
                except ConnectionError:
                    data = b""
                self.closed = not data
                self.heard += self.wire.hear(data)

    async def settle(self) -> None:
        """Read what there is to hear: a PING that comes back was behind everything said before."""
        self.say(PingFrame(0, b"settled?").serialize())
        await self.hear(
            lambda: [h for h in of(self.heard, "Ping") if h.frame.opaque_data == b"settled?"]
        )

    def status(self, stream: int) -> str | None:
        for heard in of(self.heard, "Headers", stream):
            return dict(heard.headers or []).get(":status")
        return None

    def ended(self, stream: int) -> bool:
        return any(h.stream == stream and (h.ended or h.kind == "RstStream") for h in self.heard)

    @property
    def errors(self) -> set[int]:
        return {h.frame.error_code for h in self.heard if h.kind in ("GoAway", "RstStream")}


@asynccontextmanager
async def talk(port: int, hello: bytes | None = None) -> AsyncIterator[Talk]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    it = Talk(reader, writer)
    it.say(it.wire.hello() + it.wire.settings_ack() if hello is None else hello)
    try:
        yield it
    finally:
        writer.transport.abort()


def block(headers: Headers = GET) -> bytes:
    """Return a header block that refers to nothing said before."""
    return bytes(hpack.Encoder().encode(headers))


def head(stream: int, data: bytes, *flags: str) -> bytes:
    frame = HeadersFrame(stream, data)
    frame.flags |= {"END_HEADERS", "END_STREAM"} if not flags else set(flags) - {"-"}
    return bytes(frame.serialize())


def more(stream: int, data: bytes, *, end: bool = False) -> bytes:
    return bytes(ContinuationFrame(stream, data, flags=["END_HEADERS"] if end else []).serialize())


def priority(
    stream: int, depends_on: int = 0, weight: int = 15, *, exclusive: bool = False
) -> bytes:
    return bytes(
        PriorityFrame(
            stream, depends_on=depends_on, stream_weight=weight, exclusive=exclusive
        ).serialize()
    )


def after_get(rest: bytes) -> Say:
    """Say `rest` on a stream 1 that the client has ended."""
    return lambda wire: wire.headers(1, GET) + rest


def after_reset(rest: bytes) -> Say:
    return lambda wire: wire.headers(1, POST, end=False) + wire.reset(1) + rest


def prefixed(data: bytes) -> bytes:
    """Return :method, :scheme, :path and :authority, as indexed fields, and `data` behind them."""
    return b"\x82\x86\x84\x41\x07catalog" + data


BLOCK = block()
HALF = len(BLOCK) // 2

ANSWERED: dict[str, Say] = {
    "generic 2.1 PRIORITY on an idle stream": lambda w: priority(1) + w.headers(1, GET),
    "generic 2.2 WINDOW_UPDATE on a half-closed stream": after_get(
        WindowUpdateFrame(1, 100).serialize()
    ),
    "generic 2.3 PRIORITY on a half-closed stream": after_get(priority(1)),
    "generic 3.1.2 several DATA frames": lambda w: (
        w.headers(1, POST, end=False) + w.data(1, b"a") + w.data(1, b"b", end=True)
    ),
    "generic 3.1.3 DATA with padding": lambda w: (
        w.headers(1, POST, end=False)
        + DataFrame(1, b"abc", pad_length=8, flags=["PADDED", "END_STREAM"]).serialize()
    ),
    "generic 3.3.1 PRIORITY 1": lambda w: priority(1, weight=0) + w.headers(1, GET),
    "generic 3.3.2 PRIORITY 256": lambda w: priority(1, weight=255) + w.headers(1, GET),
    "generic 3.3.3 PRIORITY that depends": lambda w: priority(1, 3) + w.headers(1, GET),
    "generic 3.3.4 PRIORITY that excludes": lambda w: (
        priority(1, 3, exclusive=True) + w.headers(1, GET)
    ),
    "generic 3.3.5 PRIORITY of a later stream first": lambda w: priority(5) + w.headers(1, GET),
    "generic 3.9.1 WINDOW_UPDATE of the connection": lambda w: w.window(0, 1) + w.headers(1, GET),
    "generic 3.9.2 WINDOW_UPDATE of the stream": lambda w: w.headers(1, GET) + w.window(1, 1),
    "generic 3.10.1 one CONTINUATION": lambda w: (
        head(1, BLOCK[:1], "END_STREAM") + more(1, BLOCK[1:], end=True)
    ),
    "generic 3.10.2 several CONTINUATIONs": lambda w: (
        head(1, BLOCK[:1], "END_STREAM")
        + more(1, BLOCK[1:HALF])
        + more(1, b"")
        + more(1, BLOCK[HALF:], end=True)
    ),
    "generic 4.2 HEAD": lambda w: w.headers(1, HEAD),
    "generic 4.4 POST with trailers": lambda w: (
        w.headers(1, POST, end=False) + w.data(1, b"abc") + w.headers(1, [("x-sum", "1")])
    ),
    "generic 5.2 literal, indexed name, remembered": lambda w: head(1, prefixed(b"\x53\x03*/*")),
    "generic 5.3 literal, new name, remembered": lambda w: head(1, prefixed(b"\x40\x01x\x01y")),
    "generic 5.4 literal, indexed name": lambda w: head(1, prefixed(b"\x0f\x04\x03*/*")),
    "generic 5.5 literal, new name": lambda w: head(1, prefixed(b"\x00\x01x\x01y")),
    "generic 5.6 literal, indexed name, never to be remembered": lambda w: head(
        1, prefixed(b"\x1f\x04\x03*/*")
    ),
    "generic 5.7 literal, new name, never to be remembered": lambda w: head(
        1, prefixed(b"\x10\x01x\x01y")
    ),
    "generic 5.8 a change of the table's size": lambda w: head(1, b"\x20" + prefixed(b"")),
    "generic 5.9 two changes of the table's size": lambda w: head(
        1, b"\x20\x3f\xe1\x1f" + prefixed(b"")
    ),
    "generic 5.10 a string in Huffman's code": lambda w: head(
        1, prefixed(b"\x40\x01x\x83\x49\x50\x9f")
    ),
    "http2 4.1.3 the reserved bit": lambda w: raw(1, 1 | 1 << 31, 5, BLOCK),
    "http2 4.2.1 DATA of the largest size": lambda w: (
        w.headers(1, POST, end=False) + w.data(1, b"x" * 16384, end=True)
    ),
    "http2 5.1 PRIORITY on a closed stream": lambda w: (
        w.headers(1, POST, end=False) + w.reset(1) + priority(1) + w.headers(3, GET)
    ),
    "http2 5.5.1 an unknown frame on a stream": lambda w: (
        w.headers(1, POST, end=False) + raw(0xF0, 1, 0xFF, b"x") + w.data(1, b"", end=True)
    ),
    "http2 6.5.3.1 the last value of a setting counts": lambda w: (
        raw(4, 0, 0, b"\0\4\0\0\0\0\0\4\0\0\xff\xff") + w.headers(1, GET)
    ),
    "http2 6.7.2 a PING's answer that was not asked for": lambda w: (
        w.ping(b"unasked.", ack=True) + w.headers(1, GET)
    ),
    "http2 7.2 RST_STREAM with an unknown code": lambda w: (
        w.headers(1, POST, end=False) + w.reset(1, 0xFF) + w.headers(3, GET)
    ),
}

CONNECTION: dict[str, tuple[Say, set[int]]] = {
    "hpack 2.3.3.1 an index beyond the tables": (
        lambda w: head(1, prefixed(b"\xff\x80\x01")), {COMPRESSION_ERROR},
    ),
    "hpack 2.3.3.2 a name's index beyond the tables": (
        lambda w: head(1, prefixed(b"\x7f\x80\x01\x01x")), {COMPRESSION_ERROR},
    ),
    "hpack 4.2.1 a change of the table's size behind a field": (
        lambda w: head(1, prefixed(b"\x20")), {COMPRESSION_ERROR},
    ),
    "hpack 5.2.1 Huffman padding longer than 7 bits": (
        lambda w: head(1, prefixed(b"\x40\x01x\x82\x1f\xff")), {COMPRESSION_ERROR},
    ),
    "hpack 5.2.2 Huffman padding with zeros": (
        lambda w: head(1, prefixed(b"\x40\x01x\x81\x18")), {COMPRESSION_ERROR},
    ),
    "hpack 5.2.3 Huffman's end of string": (
        lambda w: head(1, prefixed(b"\x40\x01x\x84\xff\xff\xff\xff")), {COMPRESSION_ERROR},
    ),
    "hpack 6.1.1 index 0": (lambda w: head(1, prefixed(b"\x80")), {COMPRESSION_ERROR}),
    "hpack 6.3.1 a table larger than announced": (
        lambda w: head(1, b"\x3f\xe1\xff\x03" + prefixed(b"")), {COMPRESSION_ERROR},
    ),
    "http2 4.2.3 HEADERS larger than the maximum": (
        lambda w: raw(1, 1, 5, prefixed(b"\x00\x01x\x7f\x81\x7f" + b"y" * 16384)[:16385]),
        {FRAME_SIZE_ERROR},
    ),
    "http2 5.1.7 CONTINUATION on a half-closed stream": (
        after_get(raw(9, 1, 4)), {STREAM_CLOSED, PROTOCOL_ERROR},
    ),
    "http2 5.1.10 CONTINUATION on a stream that was reset": (
        after_reset(raw(9, 1, 4)), {STREAM_CLOSED, PROTOCOL_ERROR},
    ),
    "http2 5.5.2 an unknown frame inside a header block": (
        lambda w: head(1, BLOCK[:HALF], "END_STREAM") + raw(0xF0, 1) + more(1, BLOCK[HALF:]),
        {PROTOCOL_ERROR},
    ),
    "http2 6.9.2.3 a window larger than there is, later": (
        lambda w: w.headers(1, GET) + w.settings(s4=2**31), {FLOW_CONTROL_ERROR},
    ),
    "http2 6.10.2 CONTINUATION and then another frame": (
        lambda w: head(1, BLOCK[:1], "END_STREAM") + more(1, BLOCK[1:HALF]) + w.data(1, b"x"),
        {PROTOCOL_ERROR},
    ),
    "http2 6.10.5 CONTINUATION after the last": (
        lambda w: head(1, BLOCK[:1], "-") + more(1, BLOCK[1:], end=True) + more(1, b"", end=True),
        {PROTOCOL_ERROR},
    ),
}  # fmt: skip

STREAM: dict[str, tuple[Say, set[int]]] = {
    "http2 5.1.8 DATA on a stream that was reset": (
        after_reset(DataFrame(1, b"x").serialize()), {STREAM_CLOSED, PROTOCOL_ERROR},
    ),
    "http2 5.1.9 HEADERS on a stream that was reset": (
        after_reset(head(1, b"\x82")), {STREAM_CLOSED, PROTOCOL_ERROR},
    ),
    "http2 5.3.1.1 HEADERS that depend on themselves": (
        lambda w: HeadersFrame(
            1, BLOCK, depends_on=1, flags=["END_HEADERS", "END_STREAM", "PRIORITY"]
        ).serialize(),
        {PROTOCOL_ERROR},
    ),
    "http2 6.3.2 PRIORITY of a wrong size": (
        lambda w: w.headers(1, POST, end=False) + raw(2, 1, 0, b"\0" * 4), {FRAME_SIZE_ERROR},
    ),
    "http2 8.1.2.6.2 several DATA frames of another length than announced": (
        lambda w: w.headers(1, [*POST, ("content-length", "1")], end=False)
        + w.data(1, b"a") + w.data(1, b"b", end=True),
        {PROTOCOL_ERROR},
    ),
    "http2 8.1.2.3 :scheme twice": (lambda w: w.headers(1, [*GET, GET[1]]), {PROTOCOL_ERROR}),
}  # fmt: skip


@pytest.mark.parametrize("case", [*SERVED, *ANSWERED])
async def test_what_is_allowed_is_answered(door: int, case: str) -> None:
    """The last stream that was opened gets its 200, and the connection stays."""
    async with talk(door) as it:
        said = (SERVED | ANSWERED)[case](it.wire)
        it.say(said)
        await it.hear(lambda: any(it.ended(stream) and it.status(stream) for stream in (1, 3, 101)))
        assert [it.status(stream) for stream in (1, 3, 101) if it.status(stream)] == ["200"]
        await it.settle()
        assert (it.errors, it.closed) == (set(), False)


@pytest.mark.parametrize("case", [*CONNECTION_ERRORS, *CONNECTION])
async def test_connection_errors(door: int, case: str) -> None:
    """GOAWAY with the right code, then a close; another client does not notice."""
    say, codes = (CONNECTION_ERRORS | CONNECTION)[case]
    async with talk(door) as it:
        it.say(say(it.wire))
        await it.hear(lambda: it.closed)
        assert {h.frame.error_code for h in of(it.heard, "GoAway")} <= codes
        assert of(it.heard, "GoAway")
        assert it.status(1) in (None, "200")
    assert (await get(door)).status == 200


@pytest.mark.parametrize("case", [*STREAM_ERRORS, *STREAM])
async def test_stream_errors(door: int, case: str) -> None:
    """RST_STREAM or GOAWAY with the right code; or nothing, for what a reset had overtaken."""
    say, codes = (STREAM_ERRORS | STREAM)[case]
    async with talk(door) as it:
        it.say(say(it.wire))
        await it.settle()
        assert it.errors <= codes | ({0, 8} if "that was reset" in case else set())
        # A stream that both sides have ended is forgotten: what comes late is ignored or an error.
        assert it.errors or it.status(1) == "200" or "that was reset" in case
        if not it.closed:
            it.say(it.wire.headers(9, GET))
            await it.hear(lambda: it.ended(9))
            assert it.status(9) == "200"


@pytest.mark.parametrize("case", MALFORMED)
async def test_malformed_requests(door: int, case: str) -> None:
    """RST_STREAM or 400 on this stream only."""
    async with talk(door) as it:
        it.say(it.wire.headers(1, MALFORMED[case]) + it.wire.headers(3, GET))
        await it.hear(lambda: it.ended(1) and it.ended(3))
        assert it.status(1) == "400" or it.errors == {PROTOCOL_ERROR}
        assert it.status(3) == "200"


@pytest.mark.parametrize(
    "say",
    [
        lambda w: w.headers(5, GET) + w.headers(3, GET),  # 5.1.1.2: a number smaller than the last
        lambda w: w.headers(5, GET) + raw(2, 0, 0, b"\0" * 5),  # 6.3.1: PRIORITY on stream 0
    ],
)
async def test_what_nghttp2_lets_pass(door: int, say: Say) -> None:
    """
    Two connection errors of RFC 9113 that are ignored instead: HEADERS on a stream that counts as
    closed, which might be trailers that a reset has crossed, and PRIORITY, which is not even read.
    Nothing is served because of them.
    """
    async with talk(door) as it:
        it.say(say(it.wire))
        await it.hear(lambda: it.ended(5))
        await it.settle()
        assert (it.status(5), it.status(3), it.errors) == ("200", None, set())


async def test_3_5_the_preface(door: int) -> None:
    """The server's SETTINGS come first, the client's are acknowledged; no preface, no HTTP/2."""
    async with talk(door) as it:
        await it.hear(lambda: len(of(it.heard, "Settings")) == 2)
        assert it.heard[0].kind == "Settings"
        assert "ACK" in of(it.heard, "Settings")[1].frame.flags
    async with talk(door, b"INVALID CONNECTION PREFACE\r\n\r\n") as it:
        reply = b""
        async with asyncio.timeout(PATIENCE):
            while data := await it._reader.read(65536):
                reply += data
        assert reply.startswith(b"HTTP/1.1 400 ")
    async with talk(door, PREFACE + PingFrame(0, b"12345678").serialize()) as it:
        await it.hear(lambda: it.closed)
        assert it.closed


async def test_generic_3_8_goaway_of_a_client(door: int) -> None:
    """What it had asked for is answered; with a code that nobody knows, too (7.1)."""
    for code in (0, 0xFF):
        async with talk(door) as it:
            it.say(it.wire.headers(1, GET) + GoAwayFrame(0, 0, code).serialize())
            await it.hear(lambda: it.ended(1))
            assert it.status(1) == "200"


async def test_6_5_3_2_settings_are_acknowledged_in_order(door: int) -> None:
    """Each, and what they change holds for what is sent behind the acknowledgement."""
    async with talk(door) as it:
        await it.settle()
        it.heard.clear()
        it.say(b"".join(SettingsFrame(0, {4: size}).serialize() for size in (1, 2, 3)))
        it.say(it.wire.headers(1, GET))
        await it.hear(lambda: of(it.heard, "Data", 1))
        kinds = [h.kind for h in it.heard]
        assert kinds[:3] == ["Settings"] * 3
        assert [len(h.frame.data) for h in of(it.heard, "Data", 1)] == [3]


async def test_6_9_1_and_6_9_2_windows(door: int) -> None:
    """One byte at a time; a window that grows by SETTINGS, or that those make negative."""
    async with talk(door) as it:
        it.say(it.wire.settings(s4=1) + it.wire.headers(1, GET))
        await it.hear(lambda: of(it.heard, "Data", 1))
        assert [h.frame.data for h in of(it.heard, "Data", 1)] == [b"0"]
        it.say(it.wire.settings(s4=5))  # 6.9.2.1: four more
        await it.hear(lambda: len(of(it.heard, "Data", 1)) == 2)
        assert of(it.heard, "Data", 1)[1].frame.data == b" byt"
        it.say(it.wire.settings(s4=2) + it.wire.window(1, 3))  # 6.9.2.2: -3, then 0
        await it.settle()
        assert len(of(it.heard, "Data", 1)) == 2
        it.say(it.wire.window(1, 100))
        await it.hear(lambda: it.ended(1))
        assert b"".join(h.frame.data for h in of(it.heard, "Data", 1)) == b"0 bytes of a body"


# The sidecar as a client --------------------------------------------------------------------------


@dataclass
class Server:
    """
    An HTTP/2 server that says what the test wants when it is asked for /case.

    Attributes:
        say: What it answers there; stream numbers are those of the first request of a connection.
        errors: The codes of the sidecar's GOAWAY and RST_STREAM, and of which connection.
    """

    port: int = 0
    say: Say = lambda _wire: b""
    heard: list[Heard] = field(default_factory=list)

    async def accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        wire = Wire()
        writer.write(wire.settings(s3=100))
        try:
            while data := await reader.read(65536):
                for heard in wire.hear(data):
                    self.heard.append(heard)
                    if heard.kind == "Settings" and "ACK" not in heard.frame.flags:
                        writer.write(wire.settings_ack())
                    elif heard.kind == "Ping" and "ACK" not in heard.frame.flags:
                        writer.write(wire.ping(heard.frame.opaque_data, ack=True))
                    elif heard.headers is not None and heard.ended:
                        path = dict(heard.headers)[":path"]
                        writer.write(self.answer(wire, heard.stream, path))
        except ConnectionError:
            pass
        writer.close()

    def answer(self, wire: Wire, stream: int, path: str) -> bytes:
        if path == "/case":
            return self.say(wire)
        if path == "/leave":
            return wire.headers(stream, OK) + wire.goaway(stream)
        return wire.headers(stream, OK)

    def errors(self) -> set[int]:
        return {h.frame.error_code for h in self.heard if h.kind in ("GoAway", "RstStream")}


OK: Headers = [(":status", "200")]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def behind(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[tuple[Server, int]]:
    server = Server()
    listener = await asyncio.start_server(server.accept, "127.0.0.1", 0)
    server.port = listener.sockets[0].getsockname()[1]
    services = Services(
        tmp_path_factory.mktemp("client"), [Service("app", server.port, "http2", plaintext=True)]
    )
    await asyncio.to_thread(services.__enter__)
    yield server, services.doors["app"]
    await asyncio.to_thread(services.__exit__)
    listener.close()


async def ask(behind: tuple[Server, int], say: Say) -> Talk:
    """Ask for /case on a fresh connection of the sidecar's; return what its client has heard."""
    server, port = behind
    assert (await get(port, "/leave")).status == 200
    server.say = say
    server.heard.clear()
    async with talk(port) as it:
        it.say(it.wire.headers(1, [*GET[:3], (":path", "/case")]))
        await it.hear(lambda: it.ended(1))
        # Whatever it was, the next request is served, on this client's connection.
        it.say(it.wire.headers(3, GET))
        await it.hear(lambda: it.ended(3))
        assert it.status(3) == "200"
    return it


def answered(wire: Wire, headers: Headers = OK) -> bytes:
    return wire.headers(1, headers, end=False)


# Of the other end's cases, those that a client must answer in the same way.
SAME = {
    name: case
    for name, case in CONNECTION_ERRORS.items()
    if name.split()[0] in ("4.2", "4.3", "6.5", "6.5.2", "6.7", "6.8", "6.9", "6.9.1")
    and "opened" not in name and "ENABLE_PUSH" not in name
}  # fmt: skip
FROM_SERVERS: dict[str, tuple[Say, set[int]]] = {
    "5.1 DATA on an idle stream": (lambda w: w.data(9, b"x"), {PROTOCOL_ERROR, STREAM_CLOSED}),
    "5.1 RST_STREAM on an idle stream": (lambda w: w.reset(9), {PROTOCOL_ERROR}),
    "5.1 WINDOW_UPDATE on an idle stream": (lambda w: w.window(9, 5), {PROTOCOL_ERROR}),
    "5.1.1 HEADERS on stream 0": (lambda w: raw(1, 0, 5, b"\x88"), {PROTOCOL_ERROR}),
    "5.1.1 HEADERS on a stream of the server's": (lambda w: w.headers(2, OK), {PROTOCOL_ERROR}),
    "6.1 DATA on stream 0": (lambda w: raw(0, 0, 0, b"x"), {PROTOCOL_ERROR}),
    "6.1 padding longer than DATA": (
        lambda w: answered(w) + raw(0, 1, 8, b"\x09abc"), {PROTOCOL_ERROR},
    ),
    "6.4 RST_STREAM of a wrong size": (lambda w: raw(3, 1, 0, b"\0\0\0"), {FRAME_SIZE_ERROR}),
    "6.5.2 ENABLE_PUSH from a server": (lambda w: w.settings(s2=1), {PROTOCOL_ERROR}),
    "6.6 PUSH_PROMISE, which was forbidden": (
        lambda w: raw(5, 1, 4, b"\0\0\0\2" + BLOCK), {PROTOCOL_ERROR},
    ),
    "6.10 CONTINUATION after END_HEADERS": (
        lambda w: answered(w) + raw(9, 1, 4), {PROTOCOL_ERROR},
    ),
    "hpack 6.1.1 index 0": (lambda w: head(1, b"\x88\x80"), {COMPRESSION_ERROR}),
    "hpack 5.2.3 Huffman's end of string": (
        lambda w: head(1, b"\x88\x40\x01x\x84\xff\xff\xff\xff"), {COMPRESSION_ERROR},
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", [*SAME, *FROM_SERVERS])
async def test_servers_that_break_the_connection(behind: tuple[Server, int], case: str) -> None:
    """The server gets GOAWAY with the right code, our client an answer of ours or a reset."""
    say, codes = (SAME | FROM_SERVERS)[case]
    it = await ask(behind, say)
    assert {h.frame.error_code for h in of(behind[0].heard, "GoAway")} & codes
    assert it.status(1) in ("502", "503") or {2, 8} & it.errors


BROKEN: dict[str, Say] = {
    "8.1 DATA before HEADERS": lambda w: w.data(1, b"x", end=True),
    "8.1 trailers without END_STREAM": lambda w: (
        answered(w) + w.headers(1, [("x", "y")], end=False)
    ),
    "8.1.1 a body longer than Content-Length": lambda w: (
        answered(w, [*OK, ("content-length", "1")]) + w.data(1, b"ab", end=True)
    ),
    "8.1.1 a body shorter than Content-Length": lambda w: (
        answered(w, [*OK, ("content-length", "3")]) + w.data(1, b"ab", end=True)
    ),
    "8.2.1 a name in upper case": lambda w: w.headers(1, [*OK, ("Upper", "x")]),
    "8.2.1 a value with CR LF": lambda w: w.headers(1, [*OK, ("a", "x\r\nset-cookie: evil")]),
    "8.2.1 a value with NUL": lambda w: w.headers(1, [*OK, ("a", "x\0")]),
    "8.2.2 Connection": lambda w: w.headers(1, [*OK, ("connection", "keep-alive")]),
    "8.2.2 Transfer-Encoding": lambda w: w.headers(1, [*OK, ("transfer-encoding", "chunked")]),
    "8.3 a pseudo-header field of requests": lambda w: w.headers(1, [*OK, (":path", "/")]),
    "8.3 an unknown pseudo-header field": lambda w: w.headers(1, [*OK, (":test", "x")]),
    "8.3 a pseudo-header field after a field": lambda w: w.headers(1, [("a", "b"), *OK]),
    "8.3 pseudo-header fields in trailers": lambda w: answered(w) + w.headers(1, OK),
    "8.3.2 no :status": lambda w: w.headers(1, [("a", "b")]),
    "8.3.2 :status twice": lambda w: w.headers(1, [*OK, *OK]),
    "8.3.2 a :status that is none": lambda w: w.headers(1, [(":status", "2OO")]),
    "8.3.2 a :status of two digits": lambda w: w.headers(1, [(":status", "20")]),
    "8.6 101 Switching Protocols": lambda w: w.headers(1, [(":status", "101")]),
    "8.1 an informational answer and the end": lambda w: w.headers(1, [(":status", "103")]),
    "9110 Content-Length twice": lambda w: w.headers(
        1, [*OK, ("content-length", "0"), ("content-length", "1")]
    ),
    "6.4 a reset": lambda w: w.reset(1, 2),
    "6.4 a reset inside the body": lambda w: answered(w) + w.data(1, b"x") + w.reset(1, 2),
    "6.4 a reset without an error inside the body": lambda w: (
        answered(w) + w.data(1, b"x") + w.reset(1, 0)
    ),
}


@pytest.mark.parametrize("case", BROKEN)
async def test_servers_whose_answer_is_none(behind: tuple[Server, int], case: str) -> None:
    """502 or 503 where nothing was passed on yet, else a reset: never a clean end."""
    it = await ask(behind, BROKEN[case])
    if it.status(1) not in ("502", "503"):
        assert of(it.heard, "RstStream", 1)
    assert not any(name == "set-cookie" for h in it.heard for name, _ in h.headers or [])


FINE: dict[str, Say] = {
    "4.1 frames of unknown types": lambda w: (
        raw(0xF0, 0) + answered(w) + raw(0xF0, 1, 0xFF, b"x") + w.data(1, b"", end=True)
    ),
    "5.1 PRIORITY": lambda w: priority(1) + priority(7) + w.headers(1, OK),
    "6.1 padded DATA": lambda w: answered(w) + raw(0, 1, 9, b"\x02abc\0\0"),
    "6.1 DATA with nothing but padding": lambda w: (
        answered(w) + raw(0, 1, 8, b"\x02\0\0") + w.data(1, b"", end=True)
    ),
    "6.5.3 unknown settings": lambda w: w.settings(s4660=1) + w.headers(1, OK),
    "6.9 WINDOW_UPDATE behind the end": lambda w: w.headers(1, OK) + w.window(1, 5),
    "6.10 the head in pieces": lambda w: (
        head(1, b"\x88", "END_STREAM") + more(1, b"") + more(1, b"\x00\x01x\x01y", end=True)
    ),
    "7838 ALTSVC and 8336 ORIGIN": lambda w: (
        raw(0xA, 0, 0, b"\0\0h2=\":1\"") + raw(0xC, 0) + w.headers(1, OK)
    ),
    "8.1 informational answers": lambda w: (
        w.headers(1, [(":status", "103"), ("link", "</a>")], end=False)
        + w.headers(1, [(":status", "103")], end=False)
        + w.headers(1, OK)
    ),
    "8.1 trailers": lambda w: answered(w) + w.headers(1, [("x-sum", "1")]),
    "8.1 a reset behind the end": lambda w: w.headers(1, OK) + w.reset(1, 0),
}  # fmt: skip


@pytest.mark.parametrize("case", FINE)
async def test_servers_may_do_that(behind: tuple[Server, int], case: str) -> None:
    """The answer comes through, and the connection is used again."""
    it = await ask(behind, FINE[case])
    assert "200" in [dict(h.headers or []).get(":status") for h in of(it.heard, "Headers", 1)]
    assert not of(it.heard, "RstStream")
    assert not of(behind[0].heard, "GoAway")
    assert {h.stream for h in of(behind[0].heard, "Headers")} == {1, 3}
