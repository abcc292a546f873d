"""
A connection that has just been accepted: who is it, and what does it speak?

Between sidecars the TLS handshake has said both.  In plaintext the first bytes say whether it is
HTTP/2 with prior knowledge (RFC 9113 section 3.3) or HTTP/1.1; then the connection that speaks it
takes over the transport, and nothing of the choice remains on the path of a request.
"""

import asyncio
from collections.abc import Callable
from functools import partial
from typing import Protocol

from meshproxy.flow import Connection
from meshproxy.identity.tls import ALPN_HTTP1, ALPN_HTTP2, ALPN_TCP, protocol

from .destination import Destination
from .http1 import FIRST_TIMEOUT, HEAD_TIMEOUT

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
"""RFC 9113 section 3.4."""


class Successor(Protocol):
    """`Http1Connection`, `Http2Connection`, `TrunkConnection` or `TcpConnection`."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None: ...
    def on_bytes(self, data: bytes) -> None: ...


class Owner(Protocol):
    """The listener that accepted the connection."""

    def arrived(self, arrival: "Arrival") -> None:
        """TLS is done, if there is any; to refuse it, abort it."""

    def closed(self, connection: "Arrival") -> None: ...

    def successor(self, arrival: "Arrival", *, http2: bool) -> Successor:
        """Return what goes on with the connection, if it speaks HTTP."""

    def trunk(self, arrival: "Arrival") -> Successor:
        """Return what goes on with a connection that carries a peer's opaque ones."""


class Arrival(Connection):
    """
    Attributes:
        destination: What it is meant for.
        tls: Whether the connection is encrypted.
        identity: The peer's, as the listener has found it proved.
        deadline: Of the loop's clock: when the listener's sweep ends the wait.
    """

    __slots__ = ("_early", "_owner", "deadline", "destination", "identity", "tls")

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        owner: Owner,
        destination: Destination,
        *,
        tls: bool = False,
        early: bytes = b"",
    ) -> None:
        super().__init__(loop)
        self._owner = owner
        self.destination = destination
        self._early = early
        self.tls = tls
        self.identity: str | None = None
        self.deadline = loop.time() + FIRST_TIMEOUT

    def on_connected(self) -> None:
        self._owner.arrived(self)
        agreed = protocol(self.transport) if self.tls else None
        if agreed == ALPN_TCP:
            self._hand_over(self._owner.trunk)
        elif agreed in (ALPN_HTTP1, ALPN_HTTP2):
            self._hand_over(partial(self._owner.successor, http2=agreed == ALPN_HTTP2))

    def take_over(self, connection: Connection) -> None:
        """Go on with the transport of a connection that starts over (CONNECT)."""
        self.transport, connection.transport = connection.transport, None
        if self.transport is not None:
            self.transport.set_protocol(self)
            # Not now: a client may ask to start over a thousand times in one read.
            self.loop.call_soon(self._on_early)

    def _on_early(self) -> None:
        if self._early and self.transport is not None:
            self.on_bytes(b"")

    def on_bytes(self, data: bytes) -> None:
        self._early += data
        if self._early.startswith(PREFACE[: len(self._early)]) and len(self._early) < len(PREFACE):
            self.deadline = min(self.deadline, self.loop.time() + HEAD_TIMEOUT)
            return
        http2 = self._early.startswith(PREFACE)
        self._hand_over(partial(self._owner.successor, http2=http2))

    def _hand_over(self, choose: Callable[["Arrival"], Successor]) -> None:
        transport = self.transport
        if transport is None or transport.is_closing():
            return
        self.transport = None
        successor = choose(self)
        transport.set_protocol(successor)  # type: ignore[arg-type]  # it is a BufferedProtocol
        successor.connection_made(transport)
        if self._early:
            successor.on_bytes(self._early)

    def drain(self) -> None:
        """It has not begun anything."""
        self.close()

    def expire(self) -> None:
        """The deadline has passed."""
        self.abort()

    def on_lost(self, error: Exception | None) -> None:  # noqa: ARG002  # the hook's shape
        self._owner.closed(self)
