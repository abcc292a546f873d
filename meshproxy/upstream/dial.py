"""
How connections are dialled: by the loop, except where the socket has to be told something before.

Congestion control counts from the handshake on: a connection that stands and is told to use another one
goes on to be paced (`congestion.py`).  So such a socket is ours until it is connected.  Over the
loopback that is at once, and nothing is waited for; the loop does the rest as if it had dialled.
"""

import asyncio
import socket
import ssl
from collections.abc import Callable, Coroutine
from typing import Any

from meshproxy.congestion import options_at
from meshproxy.tunnel import Options, set_options


def dial(
    loop: asyncio.AbstractEventLoop,
    protocol: Callable[[], asyncio.BaseProtocol],
    address: str,
    port: int,
    source: tuple[str, int] | None = None,
    tls: ssl.SSLContext | None = None,
) -> Coroutine[Any, Any, object]:
    """
    Return what connects, and has the protocol told of the transport; with `tls` after the handshake.

    It raises OSError (`ssl.SSLError` is one) or ValueError where that does not work.

    Args:
        loop: The loop.
        protocol: Makes it.
        address: Of the endpoint; or a name.
        port: The endpoint's.
        source: Where to dial from; None for what the kernel chooses.
        tls: Is asked to wrap, and no more: it sees to names and proofs itself.
    """
    options = options_at(source[0] if source else address)
    if options:
        return _dial(loop, protocol, (address, port), source, tls, options)
    return loop.create_connection(
        protocol,
        address,
        port,
        local_addr=source,
        ssl=tls,
        server_hostname=None if tls is None else "",
        ssl_shutdown_timeout=None if tls is None else 1.0,
    )


async def _dial(
    loop: asyncio.AbstractEventLoop,
    protocol: Callable[[], asyncio.BaseProtocol],
    place: tuple[str, int],
    source: tuple[str, int] | None,
    tls: ssl.SSLContext | None,
    options: Options,
) -> None:
    sock = socket.socket(socket.AF_INET6 if ":" in place[0] else socket.AF_INET, socket.SOCK_STREAM)
    try:
        sock.setblocking(False)
        set_options(sock.fileno(), options)
        if source is not None:
            sock.bind(source)
        sock.connect_ex(place)  # says that it is in progress, also where it is done
        try:
            sock.getpeername()
        except OSError:  # not yet, or refused
            await loop.sock_connect(sock, place)
        await loop.create_connection(
            protocol,
            sock=sock,
            ssl=tls,
            server_hostname=None if tls is None else "",
            ssl_shutdown_timeout=None if tls is None else 1.0,
        )
    except BaseException:
        sock.close()
        raise
