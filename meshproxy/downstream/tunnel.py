"""
A client's connection after it has left HTTP/1.1: the downstream of one exchange, to its end.

Draining leaves it alone: only the two ends know when a tunnel is done.  Who drains waits for it as
for every exchange, and cuts it when the time is up.
"""

import asyncio
import socket
from math import inf
from typing import Protocol

from meshproxy.flow import Connection
from meshproxy.message import Fields
from meshproxy.tunnel import Tunnel, channel_of

CLOSE_TIMEOUT = 60.0
"""Seconds for the last bytes to leave before a connection that has ended both ways is cut."""

HALF_CLOSED_LOOK = 30.0
"""Seconds between two looks at whether a client that says no more is still there."""


class Exchange(Protocol):
    """What takes the client's bytes and returns others: `meshproxy.exchange`."""

    def on_request_data(self, data: bytes, last: bool = False) -> None: ...
    def on_request_end(self, trailers: Fields | None) -> None: ...
    def on_request_reset(self) -> None: ...
    def on_downstream_blocked(self) -> None: ...
    def on_downstream_writable(self) -> None: ...


class Owner(Protocol):
    """The listener that accepted the connection."""

    def switched(self, connection: Connection, tunnel: "ClientTunnel") -> None:
        """The tunnel has taken the connection's place."""

    def closed(self, connection: "ClientTunnel") -> None: ...


class ClientTunnel(Tunnel):
    """
    The client's end of a tunnel.

    Attributes:
        deadline: Of the loop's clock: when the listener's sweep ends the wait.
        exchange: None when it has taken its leave.
    """

    __slots__ = ("_owner", "deadline", "exchange")

    def __init__(self, loop: asyncio.AbstractEventLoop, owner: Owner, exchange: Exchange) -> None:
        super().__init__(loop)
        self._owner = owner
        self.exchange: Exchange | None = exchange
        self.deadline = inf

    def __repr__(self) -> str:
        state = "lost" if self.transport is None else "open"
        return f"<ClientTunnel {state}, said end {self.said_end}, heard end {self.heard_end}>"

    # The exchange says ----------------------------------------------------------------------------

    def reset(self) -> None:
        self.exchange = None
        self.abort()

    def pause_request(self) -> None:
        self.pause_reading()

    def resume_request(self) -> None:
        self.resume_reading()

    # The client says ------------------------------------------------------------------------------

    def on_bytes(self, data: bytes) -> None:
        if self.exchange is not None:
            self.exchange.on_request_data(data)

    def on_end(self) -> None:
        self.look_after()
        if self.exchange is not None:
            self.exchange.on_request_end(None)

    def on_torn(self, error: Exception | None) -> None:  # noqa: ARG002  # the hook's shape
        exchange, self.exchange = self.exchange, None
        if exchange is not None:
            exchange.on_request_reset()

    def on_gone(self) -> None:
        self.exchange = None  # which knows us: together they would wait for the cycle collector
        self._owner.closed(self)

    # One side is slower than the other ------------------------------------------------------------

    def on_blocked(self) -> None:
        if self.exchange is not None:
            self.exchange.on_downstream_blocked()

    def on_writable(self) -> None:
        if self.exchange is not None:
            self.exchange.on_downstream_writable()

    # The end --------------------------------------------------------------------------------------

    def drain(self) -> None:
        """It ends when its two ends have done."""

    def look_after(self) -> None:
        """After the client's end: nobody reads from the socket, so nobody would hear of its death."""
        self.deadline = self.loop.time() + HALF_CLOSED_LOOK

    def close(self) -> None:
        """Close once everything written has left, but do not wait for a client that never reads."""
        self.deadline = self.loop.time() + CLOSE_TIMEOUT
        super().close()

    def expire(self) -> None:
        """The deadline has passed."""
        self.deadline = inf
        transport, channel = self.transport, channel_of(self.transport)
        if transport is None or transport.is_closing() or channel is None:
            super().abort()
        elif channel.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
            self.abort()
        else:
            self.look_after()
