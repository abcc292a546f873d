"""
A TCP socket as one side of a relay: what the client's and the endpoint's have in common.

What a trunk brings comes in frames of 16 KiB, a dozen with one read.  They are collected and leave
in one system call at the end of the turn (`writev`, which takes them where they are): joining them
two at a time, as `flow.py` does with the few words of a message, would copy most several times.

**Who dies has not ended.**  When a process is killed, the kernel closes its sockets, and by itself it would
say FIN: half a download would look like all of it.  So a socket is told in the beginning that to close
it means RST, and the opposite only when both directions have ended and all has left.

What a lane brings comes in views of the shared buffer, as much as one read has found.  It is written to
the socket while the call lasts: a transport writes later, and so would have to be given a copy.
"""

import asyncio
import os
from typing import Final

from meshproxy.flow import Connection
from meshproxy.message import Fields
from meshproxy.relay import Bytes
from meshproxy.tunnel import ENDS_IN_ORDER, ENDS_WITH_RESET, Tunnel, descriptor_of, set_options

DIRECT: Final = 64 * 1024
"""Bytes from which on the kernel is asked at once: then they need not be copied to be kept."""


class TcpSide(Tunnel):
    """See `relay.Side`."""

    __slots__ = ("_descriptor", "_direct", "_ends", "_parts", "_size")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(loop)
        self._parts: list[bytes] = []
        self._size = 0  # of these
        self._descriptor = -1  # of the socket
        self._direct = False  # what is written to the transport goes to the socket as it is
        self._ends = False  # and waits for its last bytes to leave

    def on_connected(self) -> None:
        transport = self.transport
        self._direct = transport is not None and transport.get_extra_info("ssl_object") is None
        self._descriptor = descriptor = descriptor_of(transport)
        set_options(descriptor, ENDS_WITH_RESET)

    def close(self) -> None:
        """Close, once everything written has left; until then to die is no end."""
        self.flush()
        transport = self.transport
        if transport is None or transport.is_closing():
            return
        if transport.get_write_buffer_size():
            self._ends = True
            transport.set_write_buffer_limits(0, 0)  # have us told when nothing is left
        else:
            set_options(self._descriptor, ENDS_IN_ORDER)
            transport.close()

    def resume_writing(self) -> None:
        super().resume_writing()
        if self._ends and not self.blocked:
            self.close()

    def send_data(self, data: Bytes, last: bool = False) -> None:
        if not self.said_end:
            if len(data) >= DIRECT:
                sent = self._send_now(data)  # (mypyc would call it twice inside the slice)
                data = data[sent:]
            if data:
                self._keep(bytes(data))
        if last:
            self.send_end()

    def _keep(self, data: bytes) -> None:
        """Send it at the end of this turn."""
        if not self._parts:
            turn = self.turn
            if not turn.waiting:
                turn.schedule()
            turn.waiting.append(self)
        self._parts.append(data)
        self._size += len(data)
        if self._size >= self.turn.high:  # a loop may read thirty times in one turn
            self.flush()

    def _send_now(self, data: Bytes) -> int:
        """Give the kernel as much as it takes now, behind what is kept; return how much of `data`."""
        transport = self.transport
        if transport is None or transport.is_closing() or transport.get_write_buffer_size():
            return 0
        if not self._direct:
            return 0
        try:
            sent = os.writev(self._descriptor, (*self._parts, data))
        except OSError:  # full, or gone: the transport will find out
            return 0
        kept = self._size
        if kept:
            rest = b"" if sent >= kept else b"".join(self._parts)[sent:]
            self._parts = [rest] if rest else []
            self._size = len(rest)
        return max(0, sent - kept)

    def flush(self) -> None:
        parts = self._parts
        if parts:
            self._parts = []
            self._size = 0
            if self.transport is not None:
                self.transport.writelines(parts)
                if self.turn.tight:
                    self.mark()

    def send_end(self, trailers: Fields | None = None) -> None:
        super().send_end(trailers)

    def reset(self) -> None:
        self.abort()

    def abort(self) -> None:
        """End it at once; that this is an RST has been said in the beginning."""
        self._parts.clear()
        self._size = 0
        Connection.abort(self)

    def pause(self) -> None:
        self.pause_reading()

    def resume(self) -> None:
        self.resume_reading()
