"""
A TCP socket as a stream of bytes with two halves, for opaque connections of either side.

An end (FIN) closes one direction and leaves the other open; a reset (RST) closes both and tells the
peer that something is missing.  The two must never be mixed up, and the libraries below do: uvloop's
`abort` sends FIN, so a reset is made by hand (`SO_LINGER` with a time of zero).
"""

import asyncio
import contextlib
import socket
import struct

from meshproxy.flow import Connection

IDLE, INTERVAL, PROBES = 60, 10, 6
"""
Seconds of silence before the kernel asks whether a peer is still there, seconds between questions,
and how many may stay unanswered.  An opaque connection has no idle timeout, so this alone finds
out that a host has vanished: after two minutes.
"""

_LINGER_NOT = struct.pack("ii", 1, 0)


def keep_alive(sock: socket.socket) -> None:
    """Let the kernel notice a vanished peer; what a listening socket accepts inherits it."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, IDLE)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, INTERVAL)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, PROBES)


class TcpSocket(Connection):
    """One side of an opaque connection (see `relay.Side`)."""

    __slots__ = ("_heard_all", "_said_all")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(loop)
        self._heard_all = False
        self._said_all = False

    @property
    def complete(self) -> bool:
        """Both halves came to their end."""
        return self._heard_all and self._said_all

    # What a side may say --------------------------------------------------------------------------

    def send_data(self, data: bytes | memoryview) -> None:
        if not self._said_all:
            self.write(bytes(data))

    def send_end(self) -> None:
        transport = self.transport
        if self._said_all or transport is None:
            return
        self.flush()
        self._said_all = True
        if self._heard_all:
            transport.close()
        elif not transport.is_closing():
            transport.write_eof()

    def reset(self) -> None:
        """Close at once, with RST."""
        transport = self.transport
        if transport is not None:
            self._said_all = True
            channel: socket.socket = transport.get_extra_info("socket")
            with contextlib.suppress(OSError):  # it has gone already
                channel.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER_NOT)
            super().abort()

    def abort(self) -> None:
        self.reset()

    def pause(self) -> None:
        self.pause_reading()

    def resume(self) -> None:
        if not self._heard_all:  # reading on would find the same end again
            self.resume_reading()

    # What it hears --------------------------------------------------------------------------------

    def on_eof(self) -> bool:
        self._heard_all = True
        self.on_end()
        return not self._said_all

    def on_end(self) -> None:
        """The peer has said all."""
