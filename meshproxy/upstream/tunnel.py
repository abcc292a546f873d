"""
A connection to an endpoint after it has left HTTP/1.1: the upstream of one exchange, to its end.

It counts as one of the pool's connections for as long as it lives, and never goes back.
"""

import asyncio
from typing import Any, Protocol

from meshproxy.flow import Connection
from meshproxy.tunnel import Tunnel


class Owner(Protocol):
    """The pool that dialled the connection."""

    def switched(self, connection: Connection, tunnel: "EndpointTunnel") -> None:
        """The tunnel has taken the connection's place."""

    def lost(self, connection: "EndpointTunnel") -> None: ...


class EndpointTunnel(Tunnel):
    """The endpoint's end of a tunnel."""

    __slots__ = ("_exchange", "_owner")

    def __init__(self, loop: asyncio.AbstractEventLoop, owner: Owner, exchange: Any) -> None:
        super().__init__(loop)
        self._owner = owner
        self._exchange: Any = exchange  # `http1.Exchange`, which imports this file; or None

    def __repr__(self) -> str:
        state = "lost" if self.transport is None else "open"
        return f"<EndpointTunnel {state}, said end {self.said_end}, heard end {self.heard_end}>"

    # The exchange says ----------------------------------------------------------------------------

    def reset(self) -> None:
        self._exchange = None
        self.abort()

    def pause_response(self) -> None:
        self.pause_reading()

    def resume_response(self) -> None:
        self.resume_reading()

    # The endpoint says ----------------------------------------------------------------------------

    def on_bytes(self, data: bytes) -> None:
        if self._exchange is not None:
            self._exchange.on_response_data(data)

    def on_end(self) -> None:
        if self._exchange is not None:
            self._exchange.on_response_end(None)

    def on_torn(self, error: Exception | None) -> None:
        exchange, self._exchange = self._exchange, None
        if exchange is not None:
            code = "upstream-closed" if error is None else "upstream-reset"
            exchange.on_response_reset(code, reused=False)

    def on_gone(self) -> None:
        self._owner.lost(self)

    # One side is slower than the other ------------------------------------------------------------

    def on_blocked(self) -> None:
        if self._exchange is not None:
            self._exchange.on_upstream_blocked()

    def on_writable(self) -> None:
        if self._exchange is not None:
            self._exchange.on_upstream_writable()
