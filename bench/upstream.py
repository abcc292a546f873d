"""
The origin behind the proxies: an HTTP/1.1 server that does almost nothing, fast.

It answers `GET …/<size>` with so many bytes, on a port of its own on each of three loopback
addresses (three endpoints for the load balancer).  It is no server for anything else: requests
have no body, and a request line that is cut in two packets counts by its blank line only.

    python -m bench.upstream PORT
"""

import asyncio
import re
import sys
from functools import lru_cache
from typing import cast

import uvloop

ADDRESSES = ("127.0.0.1", "127.0.0.2", "127.0.0.3")
_SIZE = re.compile(rb"^GET \S*/(\d+) ")


@lru_cache(maxsize=64)
def response(size: int) -> bytes:
    """Return a whole response with a body of `size` bytes."""
    head = f"HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ncontent-length: {size}\r\n\r\n"
    return head.encode() + b"x" * size


class Origin(asyncio.Protocol):
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # Not isinstance: uvloop's transports do not derive from asyncio's.
        self.transport = cast("asyncio.Transport", transport)
        self.received = b""

    def data_received(self, data: bytes) -> None:
        *requests, self.received = (self.received + data).split(b"\r\n\r\n")
        answers = []
        for request in requests:
            size = _SIZE.match(request)
            answers.append(response(int(size[1]) if size else 0))
        if answers:
            self.transport.write(b"".join(answers))


async def serve(port: int) -> None:
    loop = asyncio.get_running_loop()
    for address in ADDRESSES:
        await loop.create_server(Origin, address, port)
    await asyncio.Event().wait()


def main() -> None:
    uvloop.run(serve(int(sys.argv[1])))


if __name__ == "__main__":
    main()
