"""
The app behind the proxy: writes down each request that it understands, and every byte besides.

It reads by the letter of RFC 9112 and repairs nothing: what is not understood is not answered, and
counts as unfinished.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

from tests.helpers.listening import listening


@dataclass
class Request:
    """
    Attributes:
        complete: Head and body have come, to the end.
    """

    head: bytes
    body: bytes = b""
    trailers: bytes = b""
    complete: bool = False

    def __str__(self) -> str:
        parts = [b" ".join(self.head.split(b"\r\n")[0].split(b" ")[:2])]
        parts += [self.body] if self.body or self.trailers else []
        parts += [self.trailers.strip().replace(b"\r\n", b", ")] if self.trailers else []
        text = b" | ".join(parts).decode("latin-1")
        return text if self.complete else f"unfinished {text}"

    @property
    def lines(self) -> list[str]:
        return self.head.decode("latin-1").split("\r\n")[1:-2]

    def value(self, name: str) -> str | None:
        for line in self.lines:
            key, _, value = line.partition(":")
            if key.lower() == name:
                return value.strip()
        return None


@dataclass
class Backend:
    """
    Attributes:
        requests: All since somebody last cleared them.
        answer: Bytes to answer the next request with, instead of 200; when they say so, the
            connection is closed then.
    """

    port: int = 0
    requests: list[Request] = field(default_factory=list)
    answer: bytes | None = None

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError, ValueError):
            while True:
                await self._serve_one(reader, writer)
        writer.close()

    async def _serve_one(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = await reader.readuntil(b"\r\n\r\n")
        except asyncio.IncompleteReadError as error:
            if error.partial:
                self.requests.append(Request(error.partial))
            raise
        request = Request(head)
        self.requests.append(request)
        await _read_body(request, reader)
        request.complete = True
        target = head.split(b" ")[1]
        answer, self.answer = (None, self.answer) if b"probe" in target else (self.answer, None)
        if answer is not None:
            writer.write(answer)
            await writer.drain()
            if b"\r\nConnection: close" in answer:
                raise ConnectionError
            return
        body = b"" if head.startswith(b"HEAD ") else target
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body))
        await writer.drain()


async def _read_body(request: Request, reader: asyncio.StreamReader) -> None:
    length, coding = request.value("content-length"), request.value("transfer-encoding")
    if coding is not None:
        if coding != "chunked" or length is not None:
            raise ValueError(coding)
        while size := int((await reader.readuntil(b"\r\n"))[:-2], 16):
            request.body += await reader.readexactly(size)
            if await reader.readexactly(2) != b"\r\n":
                raise ValueError("chunk")
        while (line := await reader.readuntil(b"\r\n")) != b"\r\n":
            request.trailers += line
    elif length is not None:
        request.body = await reader.readexactly(int(length))


@contextlib.asynccontextmanager
async def recording(port: int = 0) -> AsyncIterator[Backend]:
    """Serve on a free port (or `port`) until the end of the block."""
    it = Backend()
    async with listening(it.serve, port, limit=1 << 21) as it.port:
        yield it
