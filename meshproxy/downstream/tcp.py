"""A client's TCP connection that nobody looks into: the downstream of a relay."""

import asyncio
from math import inf
from typing import Protocol

from meshproxy.flow import RECEIVED
from meshproxy.message import Fields
from meshproxy.relay import Bytes, Caller, Relay
from meshproxy.tunnel import Tunnel

from .speculation import Speculation


class Owner(Protocol):
    """The listener that accepted the connection."""

    def opened(self, connection: "TcpConnection") -> None: ...
    def closed(self, connection: "TcpConnection") -> None: ...


class TcpConnection(Tunnel):
    """
    Attributes:
        deadline: Never: an opaque connection may be silent for as long as it likes.
    """

    __slots__ = ("_owner", "_relay", "_server_name", "_speculation", "deadline")

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        owner: Owner,
        caller: Caller,
        server_name: str | None = None,
        speculation: Speculation | None = None,
    ) -> None:
        """
        Begin when the connection stands.

        Args:
            loop: The loop.
            owner: The listener.
            caller: Who makes the connection.
            server_name: From its ClientHello, where somebody has looked for it.
            speculation: What has begun already, because the client was silent.
        """
        super().__init__(loop)
        self._owner = owner
        self._speculation = speculation
        self._relay = Relay(self, caller) if speculation is None else speculation.relay
        self._server_name = server_name
        self.deadline = inf

    def __repr__(self) -> str:
        return f"<TcpConnection {'lost' if self.transport is None else 'open'}>"

    # Told by the socket ---------------------------------------------------------------------------

    def on_connected(self) -> None:
        self._owner.opened(self)
        speculation, self._speculation = self._speculation, None
        if speculation is None:
            self._relay.begin(self._server_name)
        else:
            speculation.adopt(self)

    def buffer_updated(self, nbytes: int) -> None:
        # Most of it goes into a tunnel, which copies: no need to do so before.
        self._relay.on_downstream_data(RECEIVED[:nbytes])

    def on_bytes(self, data: bytes) -> None:
        self._relay.on_downstream_data(data)

    def on_end(self) -> None:
        self._relay.on_downstream_end()

    def on_torn(self, error: Exception | None) -> None:  # noqa: ARG002  # the hook's shape
        self._relay.on_downstream_reset()

    def on_gone(self) -> None:
        self._owner.closed(self)

    def on_blocked(self) -> None:
        self._relay.on_downstream_blocked()

    def on_writable(self) -> None:
        self._relay.on_downstream_writable()

    # Told by the relay ----------------------------------------------------------------------------

    def established(self) -> None:
        """The client believes so since its SYN was answered."""

    def refuse(self, code: str) -> None:  # noqa: ARG002  # a socket cannot say why
        self.abort()

    def send_data(self, data: Bytes) -> None:
        super().send_data(bytes(data))

    def send_end(self, trailers: Fields | None = None) -> None:
        super().send_end(trailers)

    def reset(self) -> None:
        self.abort()

    def pause(self) -> None:
        self.pause_reading()

    def resume(self) -> None:
        self.resume_reading()

    # Told by the listener -------------------------------------------------------------------------

    def drain(self) -> None:
        """Nobody can tell what a good moment is; what is left after the drain time is reset."""

    def expire(self) -> None:
        """There is no deadline."""
