"""
A connection that has just been accepted: who is it, and what does it speak?

Between sidecars the TLS handshake has said both.  In plaintext the first bytes decide, for any way
in which they are cut: HTTP/2 with prior knowledge (RFC 9113 section 3.3), HTTP/1.1, the app's own
TLS, or anything else, which is relayed unread.  Then the connection that speaks it takes over the
transport and reads those bytes as if nobody had; nothing of the choice remains on its path.

Where nothing but HTTP is known, or nothing but bytes, there is less to find out: the first is taken
for HTTP whatever it is (its codec will say what is wrong), the second never comes here unless its
route asks for the name in a ClientHello.
"""

import asyncio
from collections.abc import Callable
from functools import partial
from math import inf
from typing import Protocol

from meshproxy.codec.client_hello import read_client_hello
from meshproxy.codec.sniff import Protocol as Wire
from meshproxy.codec.sniff import may_become_http, sniff
from meshproxy.flow import Connection, as_protocol
from meshproxy.identity.tls import ALPN_HTTP1, ALPN_HTTP2, ALPN_LANE, ALPN_TCP, protocol

from .destination import Destination
from .http1 import FIRST_TIMEOUT, HEAD_TIMEOUT
from .speculation import Speculation

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
"""RFC 9113 section 3.4."""


class Successor(Protocol):
    """`Http1Connection`, `Http2Connection`, `TrunkConnection`, `LaneConnection` or `TcpConnection`."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None: ...
    def on_bytes(self, data: bytes) -> None: ...
    def on_eof(self) -> bool: ...


class Owner(Protocol):
    """The listener that accepted the connection."""

    def arrived(self, arrival: "Arrival") -> None:
        """TLS is done, if there is any; to refuse it, abort it."""

    def closed(self, connection: "Arrival") -> None: ...

    def successor(self, arrival: "Arrival", *, http2: bool) -> Successor:
        """Return what goes on with the connection, if it speaks HTTP."""

    def trunk(self, arrival: "Arrival") -> Successor:
        """Return what goes on with a connection that carries a peer's opaque ones."""

    def lane(self, arrival: "Arrival") -> Successor:
        """Return what goes on with a connection that carries one of a peer's opaque ones."""

    def opaque(
        self, arrival: "Arrival", server_name: str | None, speculation: Speculation | None
    ) -> Successor:
        """Return what goes on with an opaque connection, by the name it asks for."""


class Arrival(Connection):
    """
    Attributes:
        destination: What it is meant for.
        tls: Whether the connection is encrypted.
        identity: The peer's, as the listener has found it proved.
        deadline: Of the loop's clock: when the listener's sweep ends the wait.
    """

    __slots__ = (
        "_early", "_owner", "_patience", "_speculation", "deadline", "destination", "identity",
        "tls",
    )  # fmt: skip

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
        self._patience: asyncio.TimerHandle | None = None
        self._speculation: Speculation | None = None
        self.tls = tls
        self.identity: str | None = None
        self.deadline = loop.time() + FIRST_TIMEOUT

    # It stands: is there anything to find out? ----------------------------------------------------

    def on_connected(self) -> None:
        self._owner.arrived(self)
        agreed = protocol(self.transport) if self.tls else None
        if agreed == ALPN_TCP:
            self._hand_over(self._owner.trunk)
        elif agreed == ALPN_LANE:
            self._hand_over(self._owner.lane)
        elif agreed is not None:
            if agreed in (ALPN_HTTP1, ALPN_HTTP2):
                self._hand_over(partial(self._owner.successor, http2=agreed == ALPN_HTTP2))
        else:
            self._meet()

    def _meet(self) -> None:
        """A client of plaintext: wait for it to speak, if that decides anything."""
        if self.destination.opaque:
            self._go_on_opaque(None)
        elif self._guesses:
            patience = self.destination.first_speaker.patience(self.loop.time())
            if patience <= 0:
                self._speculate()
            elif patience < inf:
                self._patience = self.loop.call_later(patience, self._speculate)

    @property
    def _guesses(self) -> bool:
        return self.destination.guesses and not self.tls

    # Nobody speaks: the server may be the one who does --------------------------------------------

    def _speculate(self) -> None:
        """Dial ahead of the client's first byte (see `policies/first_speaker.py`)."""
        self._patience = None
        destination, transport = self.destination, self.transport
        if transport is None or transport.is_closing() or self._early:
            return
        route = destination.tcp_route
        if route is None or route.find(None) is None:  # without a name it leads nowhere
            return
        self._speculation = speculation = Speculation(
            destination.caller(self.identity),
            destination.first_speaker,
            self.loop.time,
            self._on_server_first,
            self.address,
        )
        speculation.relay.begin()

    def _on_server_first(self) -> None:
        self._go_on_opaque(None)

    # The client speaks ----------------------------------------------------------------------------

    def take_over(self, connection: Connection) -> None:
        """Go on with the transport of a connection that starts over (CONNECT)."""
        self.transport, connection.transport = connection.transport, None
        if self.transport is not None:
            self.transport.set_protocol(as_protocol(self))
            self.blocked = connection.blocked
            if self.blocked:
                self.on_blocked()
            # Not now: a client may ask to start over a thousand times in one read.
            self.loop.call_soon(self._on_early)

    def on_blocked(self) -> None:
        """
        The client does not read what it was told before it started over.

        Whoever goes on with the connection would not be told of it again, and write without end.
        """
        self.pause_reading()

    def on_writable(self) -> None:
        """The client has read what it was told before it started over."""
        self.resume_reading()
        self._on_early()

    def _on_early(self) -> None:
        if self.transport is None or self.blocked:
            return
        if self._early:
            self.on_bytes(b"")
        else:
            self._meet()

    def on_bytes(self, data: bytes) -> None:
        self._early += data
        if self.blocked:
            return
        if self._guesses:
            self._guess()
        elif self.destination.opaque:
            self._go_on_opaque(None)
        elif self._early.startswith(PREFACE[: len(self._early)]) and len(self._early) < len(
            PREFACE
        ):
            self._wait()
        else:
            self._go_on_http(http2=self._early.startswith(PREFACE))

    def _guess(self) -> None:
        destination, early = self.destination, self._early
        wire = sniff(early)
        if wire is None:
            self._wait()
        elif destination.protocol == "detect" and wire in (Wire.HTTP1, Wire.HTTP2):
            silence = 0.0 if self._speculation is None else self._speculation.silence()
            destination.first_speaker.client_spoke_http(self.loop.time(), silence)
            self._go_on_http(http2=wire is Wire.HTTP2)
        elif (
            wire is Wire.TLS and destination.tcp_route is not None and destination.tcp_route.by_name
        ):
            hello = read_client_hello(early)
            if hello is None:
                self._wait()
            else:
                self._go_on_opaque(hello.server_name)
        else:
            self._go_on_opaque(None)

    def _wait(self) -> None:
        """For the rest of what has begun."""
        self.deadline = min(self.deadline, self.loop.time() + HEAD_TIMEOUT)

    def on_eof(self) -> bool:
        """
        The client says no more.

        That may be all that it has to say, to a server that speaks by itself; on a port of HTTP it
        is a client that has changed its mind, or a health check.
        """
        if self._guesses and (
            self._early or not self.destination.first_speaker.speaks_http(self.loop.time())
        ):
            successor = self._go_on_opaque(None)
            if successor is not None:
                return successor.on_eof()
        return False

    # It is known: who goes on? --------------------------------------------------------------------

    def _go_on_http(self, *, http2: bool) -> None:
        self._withdraw()
        self._hand_over(partial(self._owner.successor, http2=http2))

    def _go_on_opaque(self, server_name: str | None) -> Successor | None:
        speculation = self._speculation
        route = self.destination.tcp_route
        if speculation is not None and (
            speculation.over
            or route is None
            or route.find(server_name) is not speculation.relay.rule
        ):
            self._withdraw()
            speculation = None
        self._speculation = None
        return self._hand_over(
            lambda arrival: self._owner.opaque(arrival, server_name, speculation)
        )

    def _hand_over(self, choose: Callable[["Arrival"], Successor]) -> Successor | None:
        transport = self.transport
        if transport is None or transport.is_closing():
            self._withdraw()
            return None
        self._forget_patience()
        self.transport = None
        successor = choose(self)
        transport.set_protocol(successor)  # type: ignore[arg-type]  # it is a BufferedProtocol
        successor.connection_made(transport)
        early, self._early = self._early, b""  # else both would keep it for as long as they live
        if early:
            successor.on_bytes(early)
        return successor

    def _withdraw(self) -> None:
        """Forget about the server's speaking first."""
        self._forget_patience()
        speculation, self._speculation = self._speculation, None
        if speculation is not None:
            speculation.withdraw()

    def _forget_patience(self) -> None:
        if self._patience is not None:
            self._patience.cancel()
            self._patience = None

    # The end --------------------------------------------------------------------------------------

    def drain(self) -> None:
        """It has not begun anything."""
        self.close()

    def expire(self) -> None:
        """The deadline has passed."""
        if self._guesses and self._early:  # the beginning of something that we know, but no more
            place = self.destination
            waits = place.first_speaker.patience(self.loop.time()) > 0
            if place.protocol == "detect" and waits and may_become_http(self._early):
                # As bytes, its rest would pass all policies by: who wants that need only wait.
                # (A server that speaks first, as this one has not lately, is none of HTTP.)
                self._go_on_http(http2=False)
            else:
                self._go_on_opaque(None)
        elif self._speculation is not None and not self._speculation.over:
            self.deadline = inf  # both are silent, as two ends of an opaque connection may be
        else:
            self.abort()

    def on_lost(self, error: Exception | None) -> None:  # noqa: ARG002  # the hook's shape
        self._withdraw()
        self._owner.closed(self)
