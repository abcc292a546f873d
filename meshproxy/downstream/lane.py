"""
A lane of another sidecar (`meshproxy/lane.py`): the downstream of a relay to the app.

What holds for the streams of a trunk holds here, in the same words (`trunk.py`): this is no open
proxy, the authority must be the place that the connection was made to; and where nobody has said that
a port is opaque, what some server would read as a request does not pass.
"""

import asyncio
from collections.abc import Callable
from math import inf
from typing import Protocol

from meshproxy.codec.sniff import Protocol as Wire
from meshproxy.codec.sniff import sniff
from meshproxy.lane import ACCEPTED, Lane
from meshproxy.relay import Bytes

from .http1 import FIRST_TIMEOUT, LINGER_TIMEOUT
from .tcp import Carrier


class Owner(Protocol):
    """The listener that accepted the connection."""

    def closed(self, connection: "LaneConnection") -> None: ...
    def malformed(self, code: str) -> None: ...


class LaneConnection(Lane):
    """
    Attributes:
        exchange: The relay; None before it is known where to, and when it has taken its leave.
        deadline: Of the loop's clock: when the listener's sweep ends the wait.
    """

    __slots__ = ("_begin", "_owner", "_port", "_unread", "deadline", "exchange")

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        owner: Owner,
        begin: "Callable[[LaneConnection], Carrier]",
        port: int,
        *,
        guesses: bool,
    ) -> None:
        """
        Wait for its first word.

        Args:
            loop: The loop.
            owner: The listener.
            begin: Makes the relay that carries what it says.
            port: What it must ask for.
            guesses: Nobody has said what that port speaks.
        """
        super().__init__(loop)
        self._owner = owner
        self._begin = begin
        self._port = port
        self._unread: bytes | None = b"" if guesses else None  # None: looked at, and passed
        self.exchange: Carrier | None = None
        self.deadline = loop.time() + FIRST_TIMEOUT

    # Told by the peer -----------------------------------------------------------------------------

    def on_word(self, word: bytes) -> None:
        self.deadline = inf
        if not word.endswith(b":%d" % self._port):
            self._owner.malformed("misdirected")
            self.refuse("misdirected")
            return
        self.exchange = relay = self._begin(self)
        relay.begin()

    def on_data(self, data: memoryview) -> None:
        if self._unread is not None:
            self._look(data)
        elif self.exchange is not None:
            self.exchange.on_downstream_data(data)

    def _look(self, data: memoryview) -> None:
        """Pass on what begins no request; what may still become one waits for its next byte."""
        self._unread = unread = (self._unread or b"") + bytes(data)
        wire = sniff(unread)
        if wire is Wire.HTTP1 or wire is Wire.HTTP2:
            self._break_off("misdirected")
        elif wire is not None:
            self._pass_on()

    def _pass_on(self) -> None:
        unread, self._unread = self._unread, None
        if unread and self.exchange is not None:
            self.exchange.on_downstream_data(unread)

    def on_other_end(self) -> None:
        self._pass_on()  # the beginning of a request, and no more, is none
        if self.exchange is not None:
            self.exchange.on_downstream_end()

    def on_withdrawn(self) -> None:
        relay, self.exchange = self.exchange, None
        if relay is not None:
            relay.withdraw()
        self.said_end = self.heard_end = True
        self.close()

    def on_malformed(self) -> None:
        self._break_off("malformed-request")

    def _break_off(self, code: str) -> None:
        self._owner.malformed(code)
        self.abort()
        self._lose()

    def on_torn(self, error: Exception | None) -> None:  # noqa: ARG002  # the hook's shape
        self._lose()

    def _lose(self) -> None:
        relay, self.exchange = self.exchange, None
        if relay is not None:
            relay.on_downstream_reset()

    def on_gone(self) -> None:
        self.exchange = None  # which knows us: together they would wait for the cycle collector
        self._owner.closed(self)

    def on_blocked(self) -> None:
        if self.exchange is not None:
            self.exchange.on_downstream_blocked()

    def on_writable(self) -> None:
        if self.exchange is not None:
            self.exchange.on_downstream_writable()

    # Told by the relay ----------------------------------------------------------------------------

    def established(self) -> None:
        self.send_word(ACCEPTED)

    def refuse(self, code: str) -> None:
        """Say why, and read on until the peer has heard it: a reset could overtake the word."""
        self.exchange = None
        self._reader.closed = True
        self.deadline = self.loop.time() + LINGER_TIMEOUT
        self.send_word(code.encode())

    def send_data(self, data: Bytes) -> None:
        if self._unread is not None:
            self._pass_on()  # the server has spoken first: none of HTTP, which waits to be asked
        super().send_data(data)

    def reset(self) -> None:
        self.exchange = None
        super().reset()

    # Told by the listener -------------------------------------------------------------------------

    def drain(self) -> None:
        """Nobody can tell what a good moment is; what is left after the drain time is reset."""

    def expire(self) -> None:
        """It has not said where to, or does not hear that it was refused."""
        self.abort()
