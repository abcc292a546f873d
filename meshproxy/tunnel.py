"""
A tunnel: one transport whose bytes have left HTTP and belong to another protocol.

    before   Http1Connection ── head → data* → end ──▶ exchange
    switch   Tunnel takes the transport over, with all that has been read of it so far
    after    Tunnel ── data* → end ──▶ exchange, unread, for as long as it takes

Each direction ends by itself: the peer's FIN becomes `end`, an `end` becomes our FIN, and only when
both have ended is the connection closed.  What breaks off must not look like an end: a `reset` goes
out as RST, and an RST that comes in becomes one.  Over TLS there is no half of a connection that
could be closed: there the end of one direction is the end of both.

There is no idle timeout.  That the other end has vanished, TCP finds out: by keep-alive where nothing
is on its way.  Where something is, it would repeat that for a quarter of an hour before it gives up, and
TCP_USER_TIMEOUT, which is there to shorten that, also ends connections whose other end is well and does
not read (Linux since 5.11).  So `vanished` looks at what the kernel knows: who does not read still
answers.
"""

import asyncio
import socket
import struct
import sys
from fcntl import ioctl
from termios import TIOCOUTQ
from typing import NamedTuple

from meshproxy.flow import Connection, as_protocol
from meshproxy.message import Fields

# Plain numbers: an enum's are converted each time.
_INET, _STREAM = int(socket.AF_INET), int(socket.SOCK_STREAM)
_TCP = int(socket.IPPROTO_TCP)


Options = tuple[tuple[int, int, int | bytes], ...]
"""Of a socket: level, option, value."""

_SOCKET = int(socket.SOL_SOCKET)


class Vigilance(NamedTuple):
    """
    When the other end of a connection counts as vanished.

    Attributes:
        idle: Seconds of silence after which it is asked.
        interval: Seconds between two questions.
        questions: How many may be left unanswered.
    """

    idle: int
    interval: int
    questions: int

    @property
    def seconds(self) -> int:
        """Until it is given up."""
        return self.idle + self.interval * self.questions

    @property
    def options(self) -> Options:
        """What says so to the kernel."""
        return (
            (_TCP, int(socket.TCP_KEEPIDLE), self.idle),
            (_TCP, int(socket.TCP_KEEPINTVL), self.interval),
            (_TCP, int(socket.TCP_KEEPCNT), self.questions),
            (_SOCKET, int(socket.SO_KEEPALIVE), 1),
        )


ANYBODY = Vigilance(60, 15, 4)
"""Who speaks plain TCP is given two minutes."""

SIDECARS = Vigilance(5, 5, 3)
"""A sidecar has 20 seconds, as for the pings on connections of HTTP/2 (`upstream/http2.py`)."""

_UNANSWERED = 3
"""Repetitions, or probes of a window that is full, after which silence means something: one answer may get lost."""

_INFO = 60
"""Of `struct tcp_info`: up to `tcpi_last_ack_recv`."""


def channel_of(transport: asyncio.Transport | None) -> socket.socket | None:
    """Return the socket under a transport, if there is one."""
    if transport is None:
        return None
    channel: socket.socket | None = transport.get_extra_info("socket")
    return channel


def descriptor_of(transport: asyncio.Transport | None) -> int:
    """Return the number of the socket under a transport; -1 where there is none any more."""
    channel = channel_of(transport)
    return -1 if channel is None else channel.fileno()


def set_options(descriptor: int, options: Options) -> None:
    """
    Set options of a socket by its number, where it knows them.

    Not by what a transport gives out as its socket: uvloop's duplicates the descriptor for each
    option, and closes it.
    """
    if descriptor < 0:
        return
    try:
        # Of whatever family it is: no option depends on what Python takes it for.
        borrowed = socket.SocketType(_INET, _STREAM, 0, descriptor)
    except OSError:  # it is closed
        return
    try:
        for level, option, value in options:
            borrowed.setsockopt(level, option, value)
    except OSError:  # no TCP
        return
    finally:
        borrowed.detach()


def keep_alive(transport: asyncio.Transport | None, vigilance: Vigilance = ANYBODY) -> None:
    """Let TCP find out whether the other end of a long-lived connection is still there."""
    set_options(descriptor_of(transport), vigilance.options)


def watch(channel: socket.socket, vigilance: Vigilance = ANYBODY) -> None:
    """The same for a socket; what a listening one accepts inherits it (Linux)."""
    for level, option, value in vigilance.options:
        channel.setsockopt(level, option, value)


def vanished(transport: asyncio.Transport | None, vigilance: Vigilance) -> bool:
    """
    Say whether the other end has left what was sent to it unanswered for too long.

    What keep-alive does not see: it asks only while nothing is on its way.  It must be on: after a
    silence, TCP's last answer would be as old as that.
    """
    channel = channel_of(transport)
    if channel is None:
        return False
    try:
        if not any(ioctl(channel.fileno(), TIOCOUTQ, bytes(4))):
            return False  # nothing is on its way; that is quickly asked
        info = channel.getsockopt(_TCP, int(socket.TCP_INFO), _INFO)
    except (OSError, ValueError):  # no TCP; or closed (ValueError: and without a number)
        return False
    repeated, probed = info[2], info[3]  # tcpi_retransmits, tcpi_probes: since the last answer
    if max(repeated, probed) < _UNANSWERED:
        return False
    return int.from_bytes(info[_INFO - 4 :], sys.byteorder) >= vigilance.seconds * 1000


ENDS_WITH_RESET: Options = ((_SOCKET, int(socket.SO_LINGER), struct.pack("ii", 1, 0)),)
ENDS_IN_ORDER: Options = ((_SOCKET, int(socket.SO_LINGER), struct.pack("ii", 0, 0)),)


def end_with_reset(transport: asyncio.Transport | None) -> None:
    """Make the coming `abort` an RST; by itself it would be a FIN, and look like an end."""
    set_options(descriptor_of(transport), ENDS_WITH_RESET)


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
