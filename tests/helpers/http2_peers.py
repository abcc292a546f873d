"""HTTP/2 clients and apps over real sockets, made of other libraries than ours (see `http2.py`)."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from hyperframe.frame import RstStreamFrame

from tests.helpers.http2 import Headers, Heard, Wire
from tests.helpers.listening import listening

PATIENCE = 60.0
WINDOW = 1 << 20
FRAME = 16384


@dataclass
class Message:
    """
    Everything that came on a stream, up to its end.

    Attributes:
        reset: The error code, where it was torn.
    """

    informational: list[list[tuple[str, str]]] = field(default_factory=list)
    headers: list[tuple[str, str]] = field(default_factory=list)
    body: bytes = b""
    trailers: list[tuple[str, str]] = field(default_factory=list)
    reset: int | None = None

    def header(self, name: str) -> str | None:
        return dict(self.headers).get(name)

    @property
    def status(self) -> str | None:
        return self.header(":status")


class Stream:
    """One stream; the side that reads decides how fast."""

    def __init__(self, end: "End", number: int) -> None:
        self.number = number
        self.heard: asyncio.Queue[Heard] = asyncio.Queue()
        self.window = end.initial_window
        self._end = end

    # Saying ---------------------------------------------------------------------------------------

    def head(self, headers: Headers, *, end: bool = False) -> None:
        self._end.write(self._end.wire.headers(self.number, headers, end=end))

    async def body(self, data: bytes, *, end: bool = True) -> None:
        """Send within the windows that the other side grants."""
        connection = self._end
        start = 0
        while start < len(data):
            room = min(self.window, connection.window, FRAME)
            if room <= 0:
                connection.moved.clear()
                await connection.moved.wait()
                continue
            part = data[start : start + room]
            start += len(part)
            self.window -= len(part)
            connection.window -= len(part)
            last = end and start == len(data)
            connection.write(connection.wire.data(self.number, part, end=last))
            await connection.writer.drain()

    def end(self) -> None:
        self._end.write(self._end.wire.data(self.number, b"", end=True))

    def reset(self, code: int = 8) -> None:
        self._end.write(self._end.wire.reset(self.number, code))

    # Hearing --------------------------------------------------------------------------------------

    async def next(self) -> Heard:
        """Return the next frame, and grant as much again as it took."""
        async with asyncio.timeout(PATIENCE):
            heard = await self.heard.get()
        if heard.kind == "Data" and heard.frame.data:
            wire = self._end.wire
            size = heard.frame.flow_controlled_length
            credit = wire.window(0, size)
            if not heard.ended:
                credit += wire.window(self.number, size)
            self._end.write(credit)
        return heard

    async def message(self) -> Message:
        """Read to the end."""
        message = Message()
        parts = []
        while True:
            heard = await self.next()
            if heard.kind == "RstStream":
                message.reset = heard.frame.error_code
            elif heard.kind == "Data":
                parts.append(heard.frame.data)
            elif heard.headers is not None:
                if dict(heard.headers).get(":status", "").startswith("1"):
                    message.informational.append(heard.headers)
                elif message.headers:
                    message.trailers = heard.headers
                else:
                    message.headers = heard.headers
            if heard.ended or message.reset is not None:
                message.body = b"".join(parts)
                return message


class End:
    """
    One end of a connection.

    Attributes:
        goaways: (last stream, code) of each GOAWAY that came.
    """

    def __init__(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        serve: Callable[[Stream], Awaitable[None]] | None = None,
        **settings: int,
    ) -> None:
        self.wire = Wire()
        self.writer = writer
        self.streams: dict[int, Stream] = {}
        self.initial_window = self.window = 65535
        self.moved = asyncio.Event()
        self.goaways: list[tuple[int, int]] = []
        self._reader = reader
        self._serve = serve
        self._next = 1
        self._tasks: set[asyncio.Task[None]] = set()
        say = self.wire.settings if serve else self.wire.hello
        hello = say(**{"s4": WINDOW, **({"s3": 1000} if serve else {}), **settings})
        self.write(hello + self.wire.window(0, 64 * WINDOW))

    def write(self, data: bytes) -> None:
        self.writer.write(data)

    def open(self) -> Stream:
        stream = self.streams[self._next] = Stream(self, self._next)
        self._next += 2
        return stream

    def ask(self, headers: Headers, *, end: bool = True) -> Stream:
        stream = self.open()
        stream.head(headers, end=end)
        return stream

    async def run(self) -> None:
        """Read until the other side closes."""
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            while data := await self._reader.read(1 << 16):
                for heard in self.wire.hear(data):
                    self._on_frame(heard)
        for stream in self.streams.values():
            stream.heard.put_nowait(_LOST)
        for task in self._tasks:
            task.cancel()
        self.writer.close()

    def _on_frame(self, heard: Heard) -> None:
        if heard.kind == "Settings" and "ACK" not in heard.frame.flags:
            self.wire.remember(heard.frame.settings.get(1, 4096))
            before = self.initial_window
            self.initial_window = heard.frame.settings.get(4, before)
            for stream in self.streams.values():
                stream.window += self.initial_window - before
            self.write(self.wire.settings_ack())
            self.moved.set()
        elif heard.kind == "WindowUpdate":
            if heard.stream == 0:
                self.window += heard.frame.window_increment
            elif heard.stream in self.streams:
                self.streams[heard.stream].window += heard.frame.window_increment
            self.moved.set()
        elif heard.kind == "Ping" and "ACK" not in heard.frame.flags:
            self.write(self.wire.ping(heard.frame.opaque_data, ack=True))
        elif heard.kind == "GoAway":
            self.goaways.append((heard.frame.last_stream_id, heard.frame.error_code))
        elif heard.kind in ("Headers", "Data", "RstStream"):
            if heard.stream not in self.streams:
                assert self._serve is not None
                stream = self.streams[heard.stream] = Stream(self, heard.stream)
                task = asyncio.ensure_future(self._serve(stream))
                self._tasks.add(task)
            self.streams[heard.stream].heard.put_nowait(heard)


class _Lost(Heard):
    """The connection ended; every stream hears of it."""

    def __init__(self) -> None:
        super().__init__(RstStreamFrame(1, 2**32 - 1), None)


_LOST = _Lost()


@dataclass
class App:
    """
    Attributes:
        ends: Its connections.
    """

    port: int = 0
    ends: list[End] = field(default_factory=list)


@asynccontextmanager
async def http2_app(
    serve: Callable[[Stream], Awaitable[None]], port: int = 0, **settings: int
) -> AsyncIterator[App]:
    """Serve with prior knowledge on a free port (or `port`) until the end of the block."""
    app = App()

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        end = End(reader, writer, serve, **settings)
        app.ends.append(end)
        await end.run()

    async with listening(accept, port) as app.port:
        yield app


@asynccontextmanager
async def http2_client(port: int) -> AsyncIterator[End]:
    """Connect with prior knowledge."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    end = End(reader, writer)
    task = asyncio.create_task(end.run())
    try:
        yield end
    finally:
        writer.transport.abort()
        await task
