"""
Full mutual TLS handshakes, so many at a time, each followed by the first words of HTTP/2.

With TLS 1.3 a client believes itself done before the server has looked at its certificate; that
the server's SETTINGS arrive proves that it has, and has accepted it.

    python -m bench.clients.handshakes PORT CERTIFICATE KEY ROOTS ALPN CONNECTIONS SECONDS
"""

import asyncio
import ssl
import sys
import time
from typing import cast

import uvloop

from . import report

_HELLO = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\0\0\0\x04\0\0\0\0\0"
_PATIENCE = 10.0


class Greeting(asyncio.Protocol):
    def __init__(self, heard: "asyncio.Future[bytes]") -> None:
        self.heard = heard

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        cast("asyncio.Transport", transport).write(_HELLO)

    def data_received(self, data: bytes) -> None:
        if not self.heard.done():
            self.heard.set_result(data)

    def connection_lost(self, error: Exception | None) -> None:
        if not self.heard.done():
            self.heard.set_exception(error or ConnectionError("closed without a word"))


async def greet(port: int, context: ssl.SSLContext) -> None:
    loop = asyncio.get_running_loop()
    heard: asyncio.Future[bytes] = loop.create_future()
    async with asyncio.timeout(_PATIENCE):
        transport, _ = await loop.create_connection(
            lambda: Greeting(heard), "127.0.0.1", port, ssl=context
        )
        await heard
    transport.abort()


async def shake(port: int, context: ssl.SSLContext, connections: int, seconds: float) -> None:
    began = time.perf_counter()
    done = 0

    async def turns() -> None:
        nonlocal done
        while time.perf_counter() < began + seconds:
            await greet(port, context)
            done += 1

    await asyncio.gather(*(turns() for _ in range(connections)))
    report(handshakes=done, seconds=time.perf_counter() - began)


def main() -> None:
    port, certificate, key, roots, alpn, connections, seconds = sys.argv[1:]
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.check_hostname = False
    context.load_verify_locations(roots)
    context.load_cert_chain(certificate, key)
    context.set_alpn_protocols([alpn])
    uvloop.run(shake(int(port), context, int(connections), float(seconds)))


if __name__ == "__main__":
    main()
