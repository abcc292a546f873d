"""A transport and a loop under a connection's feet that do nothing but write down."""

import asyncio
import os
import socket
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, cast

from meshproxy.flow import Connection


class FakeSocket:
    """
    The socket under a transport.

    Attributes:
        error: What SO_ERROR tells.
        descriptor: Of a real one below it, on which options are set.
        info: What TCP_INFO tells.
    """

    def __init__(self, family: int = socket.AF_INET) -> None:
        self.family = family
        self.error = 0
        self._own = self.descriptor = socket.socket(family).detach()
        self.info = b""

    def __del__(self) -> None:
        os.close(self._own)

    @property
    def lingers(self) -> bytes:
        """What SO_LINGER is set to."""
        return self._asked(socket.SOL_SOCKET, socket.SO_LINGER, 8)

    @property
    def options(self) -> dict[int, int]:
        """Those of keep-alive."""
        options = {socket.SO_KEEPALIVE: socket.SOL_SOCKET}
        if self.family != socket.AF_UNIX:
            tcp = (socket.TCP_KEEPIDLE, socket.TCP_KEEPINTVL, socket.TCP_KEEPCNT)
            options |= dict.fromkeys(tcp, socket.IPPROTO_TCP)
        return {
            option: int.from_bytes(self._asked(level, option, 4), sys.byteorder)
            for option, level in options.items()
        }

    def _asked(self, level: int, option: int, size: int) -> bytes:
        with socket.socket(fileno=os.dup(self._own)) as real:
            return real.getsockopt(level, option, size)

    def getsockopt(self, level: int, option: int, size: int = 0) -> int | bytes:
        if (level, option) == (socket.IPPROTO_TCP, socket.TCP_INFO):
            return self.info[:size]
        assert (level, option) == (socket.SOL_SOCKET, socket.SO_ERROR)
        return self.error

    def fileno(self) -> int:
        return self.descriptor


@contextmanager
def unanswered(
    *, waiting: bool = True, repeated: int = 9, probed: int = 0, since: int = 3_600_000
) -> Iterator[FakeSocket]:
    """
    Yield a socket of which TCP knows these facts.

    Args:
        waiting: Something is on its way.
        repeated, probed: How often, since the last answer.
        since: Milliseconds since the last answer.
    """
    ours, theirs = socket.socketpair()  # its queue can be looked at as one of TCP
    with ours, theirs:
        if waiting:
            ours.send(b"x")
        made = FakeSocket()
        made.descriptor = ours.fileno()
        made.info = bytes((1, 0, repeated, probed)) + bytes(52) + since.to_bytes(4, sys.byteorder)
        yield made


class FakeTransport:
    """
    Remembers what happened to it; the test says when a close has come through.

    Attributes:
        sent: All bytes that were written.
        waiting: How many of them it says it still has.
        state: `open`, `closing` (after close) or `aborted`.
        ended: The writing half was closed.
        limits: The high-water mark and the low one.
        socket: For who asks for it; None for nobody.
        protocol: Who has taken over.
    """

    def __init__(self, *, tls: bool = False) -> None:
        self.sent = b""
        self.waiting = 0
        self.writes = 0
        self.limits = (0, 0)
        self.state = "open"
        self._reading = True
        self.ended = False
        self.socket: FakeSocket | None = None
        self.protocol: object = None
        self._tls = tls

    def set_write_buffer_limits(self, high: int, low: int) -> None:
        self.limits = (high, low)

    def set_protocol(self, protocol: object) -> None:
        self.protocol = protocol

    def write(self, data: bytes) -> None:
        self.sent += data
        self.writes += 1

    def writelines(self, parts: Iterable[bytes]) -> None:
        self.write(b"".join(parts))

    def get_write_buffer_size(self) -> int:
        return self.waiting

    def write_eof(self) -> None:
        self.ended = True

    def can_write_eof(self) -> bool:
        return not self._tls

    def pause_reading(self) -> None:
        self._reading = False

    def resume_reading(self) -> None:
        self._reading = True

    def is_reading(self) -> bool:
        return self._reading

    def is_closing(self) -> bool:
        return self.state != "open"

    def close(self) -> None:
        if self.state == "open":
            self.state = "closing"

    def abort(self) -> None:
        self.state = "aborted"

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        if name == "ssl_object" and self._tls:
            return object()
        return self.socket if name == "socket" else default


class FakeTimer:
    """One that a `FakeLoop` was asked for."""

    def __init__(self, now: float, seconds: float, callback: Callable[[], None]) -> None:
        self.seconds = seconds
        self.when = now + seconds
        self.callback = callback
        self.cancelled = False

    def cancel(self) -> None:
        self.cancelled = True


class FakeLoop:
    """A clock that stands still, and turns that the test makes."""

    def __init__(self) -> None:
        self.now = 1000.0
        self._due: list[Callable[[], None]] = []
        self.timers: list[FakeTimer] = []

    @property
    def as_loop(self) -> asyncio.AbstractEventLoop:
        return cast("asyncio.AbstractEventLoop", self)

    def time(self) -> float:
        return self.now

    def call_soon(self, callback: Callable[..., None], *how: Any) -> None:
        self._due.append(partial(callback, *how))

    def call_later(self, seconds: float, callback: Callable[..., None], *how: Any) -> "FakeTimer":
        timer = FakeTimer(self.now, seconds, partial(callback, *how))
        self.timers.append(timer)
        return timer

    def sleep(self, seconds: float) -> None:
        """Let time pass, and timers with it."""
        self.now += seconds
        due = [timer for timer in self.timers if timer.when <= self.now]
        self.timers = [timer for timer in self.timers if timer.when > self.now]
        for timer in due:
            if not timer.cancelled:
                timer.callback()

    def turn(self) -> None:
        due, self._due = self._due, []
        for callback in due:
            callback()

    def two_turns(self) -> None:
        """What connections of many exchanges have put off by a turn is done by then."""
        self.turn()
        self.turn()


def connected(
    connection: Connection, *, tls: bool = False, socket: FakeSocket | None = None
) -> FakeTransport:
    """Give a connection a transport."""
    transport = FakeTransport(tls=tls)
    transport.socket = socket
    connection.connection_made(cast("asyncio.Transport", transport))
    return transport


def arrive(connection: Connection, data: bytes) -> None:
    """Let bytes arrive as a loop would: through the connection's buffer."""
    connection.get_buffer(-1)[: len(data)] = data
    connection.buffer_updated(len(data))
