"""A client's TCP connection that nobody looks into: the downstream of a relay."""

import asyncio
from math import inf
from typing import Protocol

from meshproxy.flow import COUNTED, RECEIVED
from meshproxy.relay import Bytes, Caller, Relay
from meshproxy.tcp import TcpSide

from .destination import Destination
from .speculation import Speculation


class Carrier(Protocol):
    """What carries on what a client says: `meshproxy.relay`."""

    def begin(self, server_name: str | None = None) -> None: ...
    def withdraw(self) -> None: ...
    def on_downstream_data(self, data: Bytes) -> None: ...
    def on_downstream_end(self) -> None: ...
    def on_downstream_reset(self) -> None: ...
    def on_downstream_blocked(self) -> None: ...
    def on_downstream_writable(self) -> None: ...


class Owner(Protocol):
    """The listener that accepted the connection."""

    def opened(self, connection: "TcpConnection") -> None: ...
    def closed(self, connection: "TcpConnection") -> None: ...


class TcpConnection(TcpSide):
    """
    Attributes:
        destination: What it is meant for.
        exchange: The relay; None once the connection has gone.
        deadline: Never: an opaque connection may be silent for as long as it likes.
    """

    __slots__ = ("_owner", "_server_name", "_speculation", "deadline", "destination", "exchange")

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        owner: Owner,
        destination: Destination,
        caller: Caller,
        server_name: str | None = None,
        speculation: Speculation | None = None,
    ) -> None:
        """
        Begin when the connection stands.

        Args:
            loop: The loop.
            owner: The listener.
            destination: What it is meant for.
            caller: Who makes the connection.
            server_name: From its ClientHello, where somebody has looked for it.
            speculation: What has begun already, because the client was silent.
        """
        super().__init__(loop)
        self._owner = owner
        self.destination = destination
        self._speculation = speculation
        relay = Relay(self, caller) if speculation is None else speculation.relay
        self.exchange: Carrier | None = relay
        self._server_name = server_name
        self.deadline = inf

    def __repr__(self) -> str:
        return f"<TcpConnection {'lost' if self.transport is None else 'open'}>"

    # Told by the socket ---------------------------------------------------------------------------

    def on_connected(self) -> None:
        super().on_connected()
        self._owner.opened(self)
        speculation, self._speculation = self._speculation, None
        if speculation is None:
            if self.exchange is not None:
                self.exchange.begin(self._server_name)
        else:
            speculation.adopt(self)

    def buffer_updated(self, nbytes: int) -> None:
        if nbytes >= COUNTED:
            self.turn.came(nbytes)
        # Most of it goes into a tunnel, which copies: no need to do so before.
        if self.exchange is not None:
            self.exchange.on_downstream_data(RECEIVED[:nbytes])

    def on_bytes(self, data: bytes) -> None:
        if self.exchange is not None:
            self.exchange.on_downstream_data(data)

    def on_end(self) -> None:
        if self.exchange is not None:
            self.exchange.on_downstream_end()

    def on_torn(self, error: Exception | None) -> None:  # noqa: ARG002  # the hook's shape
        if self.exchange is not None:
            self.exchange.on_downstream_reset()

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
        """The client believes so since its SYN was answered."""

    def refuse(self, code: str) -> None:  # noqa: ARG002  # a socket cannot say why
        self.abort()

    # Told by the listener -------------------------------------------------------------------------

    def drain(self) -> None:
        """Nobody can tell what a good moment is; what is left after the drain time is reset."""

    def expire(self) -> None:
        """There is no deadline."""
