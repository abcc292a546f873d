"""A client that says exactly these bytes and shows exactly what came back."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

PATIENCE = 60.0


@dataclass
class Response:
    head: bytes
    body: bytes
    trailers: bytes = b""

    @property
    def status(self) -> int:
        return int(self.head.split(b" ")[1])

    def header(self, name: str) -> str | None:
        for line in self.head.decode("latin-1").split("\r\n")[1:]:
            key, _, value = line.partition(":")
            if key.lower() == name.lower():
                return value.strip()
        return None


def denial_in(response: Response) -> str:
    """Return the id that a denied caller is told."""
    return response.body.split(b"denial ")[1].split(b",")[0].decode()


class Client:
    """One connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    async def send(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    async def head(self) -> Response:
        async with asyncio.timeout(PATIENCE):
            return Response(await self.reader.readuntil(b"\r\n\r\n"), b"")

    async def response(self, *, method: str = "GET") -> Response:
        """Read one response whole."""
        async with asyncio.timeout(PATIENCE):
            response = await self.head()
            length = response.header("content-length")
            if method == "HEAD" or response.status in (204, 304):
                pass
            elif length is not None:
                response.body = await self.reader.readexactly(int(length))
            elif response.header("transfer-encoding") == "chunked":
                while size := int(await self.reader.readline(), 16):
                    response.body += await self.reader.readexactly(size)
                    await self.reader.readexactly(2)
                while (line := await self.reader.readline()) != b"\r\n":
                    response.trailers += line
            else:
                response.body = await self.reader.read()
            return response

    async def rest(self) -> bytes:
        """Read until the other side closes."""
        async with asyncio.timeout(PATIENCE):
            return await self.reader.read()


@asynccontextmanager
async def connect(port: int, **options: object) -> AsyncIterator[Client]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=1 << 22, **options)  # type: ignore[arg-type]
    try:
        yield Client(reader, writer)
    finally:
        writer.transport.abort()


async def get(port: int, target: str = "/", host: str = "catalog", extra: str = "") -> Response:
    """Ask once on a connection of its own."""
    async with connect(port) as client:
        await client.send(f"GET {target} HTTP/1.1\r\nHost: {host}\r\n{extra}\r\n".encode())
        return await client.response()
