"""
A tunnel: one transport whose bytes have left HTTP and belong to another protocol.

    before   Http1Connection ── head → data* → end ──▶ exchange
    switch   Tunnel takes the transport over, with all that has been read of it so far
    after    Tunnel ── data* → end ──▶ exchange, unread, for as long as it takes

Each direction ends by itself: the peer's FIN becomes `end`, an `end` becomes our FIN, and only when
both have ended is the connection closed.  What breaks off must not look like an end: a `reset` goes
out as RST, and an RST that comes in becomes one.  Over TLS there is no half of a connection that
could be closed: there the end of one direction is the end of both.

There is no idle timeout.  TCP keep-alive finds out that the other end has vanished.
"""

import asyncio
import socket
import struct

from meshproxy.flow import Connection, as_protocol
from meshproxy.message import Fields

_TCP = int(socket.IPPROTO_TCP)
KEEP_ALIVE = (
    (int(socket.SOL_SOCKET), int(socket.SO_KEEPALIVE), 1),
    (_TCP, int(socket.TCP_KEEPIDLE), 60),
    (_TCP, int(socket.TCP_KEEPINTVL), 15),
    (_TCP, int(socket.TCP_KEEPCNT), 4),
)
"""A peer is asked after a minute of silence and given up after another."""


def channel_of(transport: asyncio.Transport | None) -> socket.socket | None:
    """Return the socket under a transport, if there is one."""
    if transport is None:
        return None
    channel: socket.socket | None = transport.get_extra_info("socket")
    return channel


def keep_alive(transport: asyncio.Transport | None) -> None:
    """Let TCP find out whether the other end of a long-lived connection is still there."""
    channel = channel_of(transport)
    if channel is not None and channel.family in (socket.AF_INET, socket.AF_INET6):
        watch(channel)


def watch(channel: socket.socket) -> None:
    """The same for a socket; what a listening one accepts inherits it (Linux)."""
    for level, option, value in KEEP_ALIVE:
        channel.setsockopt(level, option, value)


def end_with_reset(transport: asyncio.Transport | None) -> None:
    """Make the coming `abort` an RST; by itself it would be a FIN, and look like an end."""
    channel = channel_of(transport)
    if channel is not None:
        channel.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


class Tunnel(Connection):
    """
    What both sides of a proxy have in common; subclasses say who hears of it.

    Attributes:
        said_end: Our direction has ended.
        heard_end: The peer's direction has ended.
    """

    __slots__ = ("heard_end", "said_end")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(loop)
        self.said_end = False
        self.heard_end = False

    def take_over(self, connection: Connection) -> None:
        """Go on with the transport of `connection`, which is left without one."""
        connection.flush()
        transport, connection.transport = connection.transport, None
        if transport is None:
            return
        self.transport = transport
        self.blocked = connection.blocked
        transport.set_protocol(as_protocol(self))
        keep_alive(transport)

    # What subclasses fill in ----------------------------------------------------------------------

    def on_end(self) -> None:
        """The peer's direction has ended."""

    def on_torn(self, error: Exception | None) -> None:
        """The connection has gone before both directions had ended."""

    def on_gone(self) -> None:
        """The connection has gone, in whatever way; the last word."""

    # Sending --------------------------------------------------------------------------------------

    def send_data(self, data: bytes, last: bool = False) -> None:
        if not self.said_end:
            self.write(data)
        if last:
            self.send_end(None)

    def send_end(self, trailers: Fields | None) -> None:  # noqa: ARG002  # the word's shape
        if self.said_end:
            return
        self.said_end = True
        self.flush()
        transport = self.transport
        if transport is None or transport.is_closing():
            return
        if self.heard_end:
            self.close()
        elif transport.can_write_eof():
            transport.write_eof()
        else:
            self.heard_end = True
            self.close()
            self.on_end()

    def abort(self) -> None:
        """End it at once, as what it is: broken off."""
        if self.transport is not None and not self.transport.is_closing():
            end_with_reset(self.transport)
        super().abort()

    # Receiving ------------------------------------------------------------------------------------

    def on_eof(self) -> bool:
        if self.heard_end:  # a transport that is resumed after its end says it again
            return not self.said_end
        self.heard_end = True
        self.on_end()
        transport = self.transport
        if transport is None or not transport.can_write_eof():
            return False
        if self.said_end:
            self.close()
        return True

    def resume_reading(self) -> None:
        if not self.heard_end:
            super().resume_reading()

    def on_lost(self, error: Exception | None) -> None:
        if not (self.said_end and self.heard_end):
            self.said_end = self.heard_end = True
            self.on_torn(error)
        self.on_gone()
