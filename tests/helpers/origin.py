"""An HTTP/1.1 server that does as it is told: the app behind a sidecar, well-behaved or not."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from tests.helpers.listening import listening

Answer = Callable[["Conversation"], Awaitable[None]]


@dataclass
class Conversation:
    """One request, as raw as it came, and the means to answer it rawly."""

    head: bytes
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    @property
    def request_line(self) -> bytes:
        return self.head.split(b"\r\n")[0]

    def header(self, name: str) -> str | None:
        for line in self.head.decode("latin-1").split("\r\n")[1:]:
            key, _, value = line.partition(":")
            if key.lower() == name.lower():
                return value.strip()
        return None

    async def body(self) -> bytes:
        """Read the body by Content-Length or chunks; trailers are kept with the last chunk."""
        length = self.header("content-length")
        if length is not None:
            return await self.reader.readexactly(int(length))
        if self.header("transfer-encoding") != "chunked":
            return b""
        parts = []
        while True:
            line = await self.reader.readuntil(b"\r\n")
            size = int(line.split(b";")[0], 16)
            if size == 0:
                break
            parts.append(await self.reader.readexactly(size))
            await self.reader.readexactly(2)
        self.trailers = b""
        while (line := await self.reader.readline()) != b"\r\n":
            self.trailers += line
        return b"".join(parts)

    trailers: bytes = b""

    async def send(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()


@dataclass
class Origin:
    """
    Attributes:
        requests: The head of each request, in order of arrival.
        connections: How many were accepted.
        writers: Of those that are open.
    """

    answer: Answer
    port: int = 0
    requests: list[bytes] = field(default_factory=list)
    connections: int = 0
    writers: set[asyncio.StreamWriter] = field(default_factory=set)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self.writers.add(writer)
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                self.requests.append(head)
                await self.answer(Conversation(head, reader, writer))
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            self.writers.discard(writer)
            writer.close()


@asynccontextmanager
async def origin(answer: Answer, port: int = 0) -> AsyncIterator[Origin]:
    """Serve on a free port (or `port`) until the end of the block."""
    it = Origin(answer)
    async with listening(it.serve, port, limit=1 << 20) as it.port:
        yield it


async def hello(conversation: Conversation) -> None:
    """Answer anything with 200 and the body's length."""
    body = await conversation.body()
    text = b"%b %d" % (conversation.request_line.split()[1], len(body))
    nobody = conversation.request_line.startswith(b"HEAD")
    await conversation.send(
        b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(text), b"" if nobody else text)
    )
