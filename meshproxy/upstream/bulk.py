"""
Large bodies between sidecars: a connection of HTTP/1.1 for each, beside the shared one.

On the shared connection of HTTP/2 a body is cut into frames of 16 KiB, each of which is written into a
buffer, read out of one, credited and dispatched.  With HTTP/1.1 it is bytes that go through, which
takes a quarter less CPU for the pair (`docs/performance.md`), and what it needs of the connection no
other request waits for.  A request costs a little more this way; so only those go it whose body is
large, as its length announces or as the last answers of their route make likely
(`Exchange.begin_attempt`).

**Nobody waits for it.**  Such a connection takes a handshake.  Where none is idle, the body goes over
the shared connection as everything does, and one is made for the next.  A flow of large bodies soon
has as many as it has bodies at once; of a single one nobody notices that.

**That its other end has vanished** no pings tell, so TCP has to (`tunnel.vanished`), within the same time.

**Nothing is lost by it.**  A connection that rests may be closed by its other end just when a request
is on its way, and a large body cannot be sent a second time.  So they rest for `REST`, which is short
of any other limit, and are not used after it.
"""

import asyncio
from typing import Any, Final

from meshproxy.identity.tls import ALPN_BULK, ALPN_HTTP1, protocol
from meshproxy.tunnel import SIDECARS, keep_alive, vanished

from .http1 import Http1Connection
from .pool import DIALS_AT_ONCE, Pool

REST: Final = 5.0
"""Seconds for which a connection may be idle."""


class BulkPool(Pool):
    """The connections to one sidecar that carry one large body at a time."""

    __slots__ = ()

    def lend(self, exchange: Any) -> bool:
        """Give the exchange a connection that is idle; return False, and have one made, if none is."""
        limit = self._environment.now() - REST
        while self._idle:
            connection = self._idle.pop()
            transport = connection.transport
            if transport is None or transport.is_closing():
                continue
            if connection.idle_since < limit:
                connection.close()
                continue
            connection.lend(exchange)
            return True
        self._prepare()
        return False

    def _prepare(self) -> None:
        full = any(limits.connections.full for limits in self.limits)
        if len(self._dials) < DIALS_AT_ONCE and not full:
            self._dial_one()

    @property
    def _needed(self) -> bool:
        return not self.retired

    @property
    def _offered(self) -> list[str]:
        return ALPN_BULK

    def objection(self, transport: asyncio.Transport) -> str | None:
        objection = super().objection(transport)
        if objection is None and protocol(transport) != ALPN_HTTP1:
            self._warn("the sidecar there speaks no HTTP/1.1")
            objection = "handshake-failed"
        return objection

    def sweep(self, now: float) -> None:
        limit = now - REST
        while self._idle and self._idle[0].idle_since < limit:
            self._idle.pop(0).close()

    def look(self) -> None:
        for connection in list(self._connections):
            if vanished(connection.transport, SIDECARS):
                connection.abort()

    def successor(self, transport: asyncio.Transport) -> Http1Connection:
        keep_alive(transport, SIDECARS)
        return Http1Connection(self._environment.loop, self)
