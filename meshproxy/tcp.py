"""
A TCP socket as one side of a relay: what the client's and the endpoint's have in common.

What a trunk brings comes in frames of 16 KiB, a dozen with one read.  They are collected and leave
in one system call at the end of the turn (`writev`, which takes them where they are): joining them
two at a time, as `flow.py` does with the few words of a message, would copy most several times.
"""

import asyncio

from meshproxy.message import Fields
from meshproxy.relay import Bytes
from meshproxy.tunnel import Tunnel


class TcpSide(Tunnel):
    """See `relay.Side`."""

    __slots__ = ("_parts",)

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(loop)
        self._parts: list[bytes] = []

    def send_data(self, data: Bytes, last: bool = False) -> None:
        if not self.said_end:
            if not self._parts:
                turn = self.turn
                if not turn.waiting:
                    turn.schedule()
                turn.waiting.append(self)
            self._parts.append(bytes(data))
        if last:
            self.send_end()

    def flush(self) -> None:
        parts = self._parts
        if parts:
            self._parts = []
            if self.transport is not None:
                self.transport.writelines(parts)

    def send_end(self, trailers: Fields | None = None) -> None:
        super().send_end(trailers)

    def reset(self) -> None:
        self.abort()

    def abort(self) -> None:
        self._parts.clear()
        super().abort()

    def pause(self) -> None:
        self.pause_reading()

    def resume(self) -> None:
        self.resume_reading()
