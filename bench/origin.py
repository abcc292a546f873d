"""
The app behind bulk transfers and TCP: takes and gives bytes, as cheaply as it can.

HTTP/1.1: `GET …/<size>` is answered with so many bytes, `POST` with 204 once its body has arrived.
TCP: the first byte of a connection says what is to be done with the rest.

    python -m bench.origin HTTP_PORT TCP_PORT
"""

import asyncio
import re
import sys
from typing import Final, cast

import uvloop

from .site import ADDRESSES
from .upstream import response

ECHO: Final = b"E"
"""Say everything again."""
SINK: Final = b"U"
"""Take everything; at its end, say in eight bytes how much that was, and end too."""
SOURCE: Final = b"D"
"""Send without end."""

_CHUNK: Final = b"x" * (256 * 1024)
_BUFFER: Final = memoryview(bytearray(256 * 1024))  # one at a time is read, so one for all
_GET: Final = re.compile(rb"GET \S*/(\d+) ")
_LENGTH: Final = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
_TAKEN: Final = b"HTTP/1.1 204 No Content\r\n\r\n"


class _Connection:
    """A BufferedProtocol; by duck type, because uvloop reads differently from what inherits."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # Not isinstance: uvloop's transports do not derive from asyncio's.
        self.transport = cast("asyncio.Transport", transport)

    def get_buffer(self, _size: int) -> memoryview:
        return _BUFFER

    def buffer_updated(self, size: int) -> None:
        self.received(_BUFFER[:size])

    def received(self, data: memoryview) -> None:
        raise NotImplementedError

    def eof_received(self) -> bool | None:
        return None

    def connection_lost(self, error: Exception | None) -> None: ...

    def pause_writing(self) -> None: ...

    def resume_writing(self) -> None: ...


class Http(_Connection):
    def __init__(self) -> None:
        self.head = b""
        self.body = 0  # bytes of the body that are still to come

    def received(self, data: memoryview) -> None:
        if self.body:
            taken = min(self.body, len(data))
            self.body -= taken
            if self.body:
                return
            self.transport.write(_TAKEN)
            data = data[taken:]
        self.head += data
        while (end := self.head.find(b"\r\n\r\n")) >= 0:
            head, self.head = self.head[:end], self.head[end + 4 :]
            if get := _GET.match(head):
                self.transport.write(response(int(get[1])))
                continue
            length = _LENGTH.search(head)
            self.body = max(0, (int(length[1]) if length else 0) - len(self.head))
            if self.body:
                self.head = b""
            else:
                self.head = self.head[int(length[1]) if length else 0 :]
                self.transport.write(_TAKEN)


class Tcp(_Connection):
    def __init__(self) -> None:
        self.verb = b""
        self.count = 0
        self.paused = False

    def received(self, data: memoryview) -> None:
        if not self.verb:
            self.verb, data = bytes(data[:1]), data[1:]
            if self.verb == SOURCE:
                self.transport.set_write_buffer_limits(high=1024 * 1024)
                self.give()
        if self.verb == ECHO:
            self.transport.write(bytes(data))
        self.count += len(data)

    def give(self) -> None:
        if not self.paused and not self.transport.is_closing():
            self.transport.write(_CHUNK)
            # Not by resume_writing alone: what the kernel takes whole never pauses.
            asyncio.get_running_loop().call_soon(self.give)

    def eof_received(self) -> bool | None:
        if self.verb == SINK:
            self.transport.write(self.count.to_bytes(8, "big"))
        return None

    def pause_writing(self) -> None:
        self.paused = True

    def resume_writing(self) -> None:
        self.paused = False
        self.give()


async def serve(http_port: int, tcp_port: int) -> None:
    loop = asyncio.get_running_loop()
    for address in ADDRESSES:
        for protocol, port in ((Http, http_port), (Tcp, tcp_port)):
            await loop.create_server(protocol, address, port, backlog=1024)  # type: ignore[arg-type]
    await asyncio.Event().wait()


def main() -> None:
    uvloop.run(serve(*map(int, sys.argv[1:3])))


if __name__ == "__main__":
    main()
