"""
The connections to one endpoint: borrowed, given back, dialled when none is free.

**HTTP/2** connections are shared: one carries as many exchanges as the peer admits, and a second
is dialled only when it admits no more.  Requests that come before the first one stands wait for
it.  Between sidecars the TLS handshake settles the protocol (ALPN); a plain app that speaks HTTP/2
is known from the configuration.

**HTTP/1.1** connections carry one exchange at a time.  The one used last is lent first, so that the ones too many grow old and are closed.  A request
that finds none waits in line; a few connections are dialled at a time, and whichever comes first,
a new connection or one given back, serves the head of the line.  A burst of 200 requests then
does not become 200 TLS handshakes.

**Limits** (`policies/limits.py`) are those of the endpoint and those of its whole cluster.  Above the
number of connections, requests wait; above the number that may wait, they are refused.  But one
connection every endpoint may have: it would never serve anybody, if those of others filled the limit.

**Old** connections take no more requests, where a maximum age is configured: it makes clients of a
server behind an address that means many (a virtual IP, a load balancer) choose anew now and then.
What runs on them goes on to its end.
"""

import asyncio
import logging
import ssl
from collections import deque
from collections.abc import Callable
from typing import Any, Protocol, cast

from meshproxy.contract.resources import ClusterSpec, EndpointSpec
from meshproxy.flow import Connection, as_protocol
from meshproxy.identity.tls import ALPN, ALPN_HTTP2, Offer, peer_identity, protocol
from meshproxy.policies.limits import Limits
from meshproxy.telemetry.metrics import ConnectionSeries, Metrics
from meshproxy.tunnel import ANYBODY, vanished

from .http1 import Http1Connection
from .http2 import Http2Connection
from .lane import LaneConnection
from .tcp import reason
from .tunnel import EndpointTunnel

log = logging.getLogger("meshproxy.upstream")

DIALS_AT_ONCE = 8

AGE_JITTER = 0.1
"""Part of the maximum age by which connections differ, both ways (gRPC's choice, too)."""


class Environment(Protocol):
    """
    What a pool needs of the process.

    Attributes:
        revoked: Identities that are denied, whatever certificate they show.
        pools: All that have connections, also of endpoints that have left but still serve.
        listening: Addresses and ports of our own.
    """

    loop: asyncio.AbstractEventLoop
    metrics: Metrics
    now: Callable[[], float]
    random: Callable[[], float]
    trust_domain: str
    revoked: frozenset[str]
    pools: "set[Pool]"
    listening: frozenset[tuple[str, int]]

    @property
    def client_context(self) -> ssl.SSLContext | None: ...
    def connections_to(self, direction: str) -> ConnectionSeries: ...
    def handshake_failed(self, reason: str) -> None: ...


Dialled = Http1Connection | Http2Connection | LaneConnection
"""What a pool makes; `lanes.py` says what the last is."""


class DialError(Exception):
    """No connection could be made; `args[0]` is a code of `refusal.py`."""


class Pool:
    """All connections to one endpoint."""

    __slots__ = (
        "_ages",
        "_connections",
        "_counts",
        "_dials",
        "_environment",
        "_failing",
        "_idle",
        "_limits",
        "_shared",
        "_shared_limits",
        "_sharing",
        "cluster",
        "endpoint",
        "retired",
        "waiting",
    )

    def __init__(
        self,
        cluster: ClusterSpec,
        endpoint: EndpointSpec,
        environment: Environment,
        limits: Limits,
        shared_limits: Limits,
    ) -> None:
        """`limits` are those of the endpoint, `shared_limits` those of its cluster."""
        self.cluster = cluster
        self.endpoint = endpoint
        self.retired = False
        self._limits = limits
        self._shared_limits = shared_limits
        self._environment = environment
        self._failing = ""  # why the last dial failed, as it was logged
        self._idle: list[Http1Connection] = []
        self._shared: list[Http2Connection] = []
        # What we expect to be negotiated, so that a burst of requests dials once and not eight
        # times; what was negotiated last knows better.
        self._sharing = cluster.mtls or cluster.protocol == "http2"
        self._connections: set[Dialled | EndpointTunnel] = set()
        self._ages: dict[Dialled, asyncio.TimerHandle] = {}
        self.waiting: deque[Any] = deque()
        self._dials: set[asyncio.Task[None]] = set()
        self._counts = environment.connections_to("outbound" if cluster.mtls else "inbound")

    def __repr__(self) -> str:
        return (
            f"<Pool {self.endpoint.address}:{self.endpoint.port} "
            f"connections {len(self._connections)}, idle {len(self._idle)}, "
            f"dialling {len(self._dials)}, waiting {len(self.waiting)}>"
        )

    @property
    def limits(self) -> tuple[Limits, Limits]:
        """Those of the endpoint, and of its cluster."""
        return self._limits, self._shared_limits

    def statistics(self) -> dict[str, int]:
        """Return how many there are of each, for `/clusters`."""
        return {
            "connections": len(self._connections),
            "idle": len(self._idle) + sum(connection.idle for connection in self._shared),
            "dialling": len(self._dials),
            "waiting": len(self.waiting),
        }

    # Borrowing ------------------------------------------------------------------------------------

    def acquire(self, exchange: Any) -> None:
        """Answer the exchange with `on_upstream_ready` or `on_upstream_failed`, now or later."""
        for shared in self._shared:
            if shared.lend(exchange):
                return
        idle = self._idle
        while idle:
            connection = idle.pop()
            transport = connection.transport
            if transport is not None and not transport.is_closing():
                connection.lend(exchange)
                return
        for scope, limits in (("endpoint", self._limits), ("cluster", self._shared_limits)):
            if limits.pending.full:
                self._overflowed(scope, "pending")
                exchange.on_upstream_failed("overflow")
                return
        self._count_waiting(1)
        self.waiting.append(exchange)
        self._dial_if_needed()

    def forget(self, exchange: Any) -> None:
        """The exchange waits no longer."""
        if exchange in self.waiting:
            self._count_waiting(-1)
            self.waiting.remove(exchange)

    def _next(self) -> Any:
        """Return the head of the line."""
        self._count_waiting(-1)
        return self.waiting.popleft()

    def _count_waiting(self, more: int) -> None:
        self._limits.pending.count += more
        self._shared_limits.pending.count += more

    def _count_connections(self, more: int) -> None:
        self._limits.connections.count += more
        self._shared_limits.connections.count += more

    def _overflowed(self, scope: str, limit: str) -> None:
        self._environment.metrics.overflowed(self.cluster.name, scope, limit)

    def idle(self, connection: Any) -> None:
        """A connection comes back: the line's head gets it, or it rests."""
        if self.waiting:
            connection.lend(self._next())
        elif self.retired:
            connection.close()
        else:
            connection.idle_since = self._environment.now()
            self._idle.append(connection)

    def roomier(self, connection: Http2Connection) -> None:
        """A stream of a shared connection has ended: there is room for who waits."""
        while self.waiting and connection.room > 0:
            connection.lend(self._next())
        if self.waiting:
            self._dial_if_needed()

    def leaving(self, connection: Http2Connection) -> None:
        """A shared connection takes no more requests; those under way go on."""
        if connection in self._shared:
            self._shared.remove(connection)

    def switched(self, connection: Connection, tunnel: EndpointTunnel) -> None:
        """A connection has left HTTP for good: it still counts, but never comes back."""
        assert isinstance(connection, Http1Connection)
        self._keep(tunnel)
        self._connections.discard(connection)
        self._forget_age(connection)

    def _keep(self, connection: Dialled | EndpointTunnel) -> None:
        """There is a connection, and so something to expel."""
        self._connections.add(connection)
        self._environment.pools.add(self)
        if self._environment.revoked:
            self.expel()  # who was revoked since the handshake was not here to be expelled then

    def lost(self, connection: Dialled | EndpointTunnel) -> None:
        """A connection is gone."""
        if connection in self._connections:
            self._connections.discard(connection)
            if not self._connections:
                self._environment.pools.discard(self)
            self._count_connections(-1)
            self._counts.closed += 1
        if not isinstance(connection, EndpointTunnel):
            self._forget_age(connection)
        if isinstance(connection, Http2Connection):
            self.leaving(connection)
        elif connection in self._idle:
            self._idle.remove(connection)
        self._dial_if_needed()

    # Dialling -------------------------------------------------------------------------------------

    def _dial_if_needed(self) -> None:
        dials = len(self._dials)
        at_once = 1 if self._sharing else DIALS_AT_ONCE
        wanted = min(len(self.waiting) - dials, at_once - dials)
        if wanted <= 0:
            return
        for _ in range(self._within_limits(wanted)):
            self._dial_one()

    def _dial_one(self) -> None:
        self._count_connections(1)
        task = self._environment.loop.create_task(self._dial())
        self._dials.add(task)
        task.add_done_callback(self._dials.discard)

    def _within_limits(self, wanted: int) -> int:
        """Return how many of the connections that are wanted may be made."""
        for scope, limits in (("endpoint", self._limits), ("cluster", self._shared_limits)):
            if limits.connections.room < wanted:
                self._overflowed(scope, "connections")
                wanted = limits.connections.room
        return wanted or (0 if self._connections or self._dials else 1)

    @property
    def _needed(self) -> bool:
        """Somebody waits, whom no connection has served that came back in the meantime."""
        return bool(self.waiting)

    def _leads_back(self) -> bool:
        """Say whether this is a port of our own, taken for that of an app by mistake."""
        place = (self.endpoint.address, self.endpoint.port)
        return not self.cluster.mtls and place in self._environment.listening

    async def _dial(self) -> None:
        connection: Dialled | None = None
        code = ""
        try:
            if not self._needed:
                return
            if self._leads_back():
                raise DialError("loop")
            connection = await self._connect()
        except DialError as error:
            code = str(error)
        finally:
            task = asyncio.current_task()
            assert task is not None
            self._dials.discard(task)
            if connection is None or not connection.usable:
                self._count_connections(-1)
        if connection is None or not connection.usable:
            # Without a code it was closed by the other side before this task ran again.
            self._on_dial_failed(code or "connect-failed")
            return
        if self._failing:
            self._failing = ""
            log.info("%s: connected again", self._where)
        self._keep(connection)
        self._counts.opened += 1
        if self.cluster.max_connection_age is not None:
            self._limit_age(connection, self.cluster.max_connection_age / 1000)
        if isinstance(connection, Http2Connection):
            self._sharing = True
            self._shared.append(connection)
            self.roomier(connection)
            if self.retired:
                self.leaving(connection)
                connection.retire()
        else:
            self._sharing = False
            self.idle(connection)
        self._dial_if_needed()

    async def _connect(self) -> Dialled:
        """
        Connect and, in a mesh, make sure who answers before a byte of a request goes out.

        Raises:
            DialError: It did not work; says why.
        """
        endpoint, cluster, environment = self.endpoint, self.cluster, self._environment
        context = environment.client_context if cluster.mtls else None
        if cluster.mtls and context is None:
            raise DialError("not-ready")
        try:
            async with asyncio.timeout(cluster.connect_timeout / 1000):
                new = _New(environment.loop, self)
                await environment.loop.create_connection(
                    lambda: as_protocol(new),
                    endpoint.address,
                    endpoint.port,
                    # No more is asked of it than to wrap.
                    ssl=cast("ssl.SSLContext", Offer(context, self._offered)) if context else None,
                    server_hostname="" if context else None,
                    ssl_shutdown_timeout=1.0 if context else None,
                )
        except TimeoutError:
            self._warn(f"no connection within {cluster.connect_timeout} ms")
            raise DialError("connect-timeout") from None
        except ssl.SSLError as error:
            self._warn(f"TLS handshake failed: {error.reason or error}")
            environment.handshake_failed(error.reason or "other")
            raise DialError("handshake-failed") from None
        except (OSError, ValueError) as error:  # ValueError: an address that is no address
            self._warn(f"cannot connect: {reason(error)}")
            raise DialError("connect-failed") from None
        connection = new.connection
        if connection is None:
            new.abort()
            raise DialError("connect-failed" if new.failure is None else new.failure)
        return connection

    @property
    def _offered(self) -> list[str]:
        """What a connection to a peer may speak."""
        return ALPN

    def objection(self, transport: asyncio.Transport) -> str | None:
        """
        Return what is wrong with the other end, or None when it is who it should be.

        Whoever is not hears nothing from us.
        """
        if not self.cluster.mtls:
            return None
        expected = self.endpoint.identities
        proved = peer_identity(transport, self._environment.trust_domain)
        if proved is not None and proved in expected:
            if proved not in self._environment.revoked:
                return None
            self._warn(f"proved to be {proved}, which is revoked")
            self._environment.handshake_failed("identity-revoked")
            return "identity-revoked"
        wanted = " or ".join(expected) or "nobody"
        self._warn(f"proved to be {proved or 'nobody'}, expected {wanted}")
        self._environment.handshake_failed("peer-identity-mismatch")
        return "peer-identity-mismatch"

    def successor(self, transport: asyncio.Transport) -> Dialled:
        """Return what goes on with a new connection, by the protocol it turned out to speak."""
        loop, mtls = self._environment.loop, self.cluster.mtls
        if mtls:
            http2 = protocol(transport) == ALPN_HTTP2
        else:
            http2 = self.cluster.protocol == "http2"  # prior knowledge: RFC 9113 section 3.3
        if http2:
            return Http2Connection(loop, self, to_sidecar=mtls)
        return Http1Connection(loop, self)

    @property
    def _where(self) -> str:
        return f"{self.cluster.name} at {self.endpoint.address}:{self.endpoint.port}"

    def _warn(self, why: str) -> None:
        """Log why dialling fails: once, until it succeeds or fails for another reason."""
        level = logging.DEBUG if why == self._failing else logging.WARNING
        self._failing = why
        log.log(level, "%s: %s", self._where, why)

    def _on_dial_failed(self, code: str) -> None:
        """Tell who waits: all of them when nothing else can serve them, otherwise one."""
        failed = 1 if self._connections or self._dials else len(self.waiting)
        for _ in range(min(failed, len(self.waiting))):
            self._next().on_upstream_failed(code)
        self._dial_if_needed()

    # Growing old ----------------------------------------------------------------------------------

    def sweep(self, now: float) -> None:
        """Close what nobody has needed for the idle timeout."""
        limit = now - self.cluster.idle_timeout / 1000
        while self._idle and self._idle[0].idle_since < limit:
            self._idle.pop(0).close()
        for connection in list(self._shared):
            connection.sweep(now)
            if connection.idle and connection.idle_since < limit:
                self.leaving(connection)
                connection.retire()

    def look(self) -> None:
        """
        See whether anybody is there, where neither pings nor limits of time tell; called every few seconds.
        """
        for connection in list(self._connections):
            if isinstance(connection, EndpointTunnel) and vanished(connection.transport, ANYBODY):
                connection.abort()

    def _limit_age(self, connection: Dialled, age: float) -> None:
        # With jitter: connections that were made at once shall not be replaced at once.
        age *= 1 + AGE_JITTER * (2 * self._environment.random() - 1)
        timer = self._environment.loop.call_later(age, self._on_aged, connection)
        self._ages[connection] = timer

    def _forget_age(self, connection: Dialled) -> None:
        timer = self._ages.pop(connection, None)
        if timer is not None:
            timer.cancel()

    def _on_aged(self, connection: Dialled) -> None:
        """Let a connection finish what it has, and give it nothing more."""
        del self._ages[connection]
        if isinstance(connection, Http2Connection):
            self.leaving(connection)
            connection.retire()
        elif connection in self._idle:
            self._idle.remove(connection)
            connection.close()
        else:
            connection.retire()

    def retire(self) -> None:
        """The endpoint is gone from the configuration: finish what runs, keep nothing."""
        self.retired = True
        for connection in self._idle:
            connection.close()
        self._idle.clear()
        for shared in self._shared:
            shared.retire()
        self._shared.clear()

    def expel(self) -> None:
        """End the connections to identities that have been revoked; who waits, waits on."""
        if not self.cluster.mtls:
            return
        environment = self._environment
        for connection in list(self._connections):
            identity = peer_identity(connection.transport, environment.trust_domain)
            if identity in environment.revoked:
                log.warning("%s: connection to %s cut, which is revoked", self._where, identity)
                connection.abort()

    def close(self) -> None:
        """End everything now."""
        self.retired = True
        for task in list(self._dials):
            task.cancel()
        for connection in list(self._connections):
            connection.abort()


class _New(Connection):
    """
    A new connection: once it stands and is with the right one, what it speaks takes over.

    That has to happen here, and not when `create_connection` returns: an HTTP/2 server speaks
    first, and its words would find nobody.
    """

    __slots__ = ("_pool", "connection", "failure")

    def __init__(self, loop: asyncio.AbstractEventLoop, pool: Pool) -> None:
        super().__init__(loop)
        self._pool = pool
        self.connection: Dialled | None = None
        self.failure: str | None = None

    def on_connected(self) -> None:
        transport = self.transport
        assert transport is not None
        self.failure = self._pool.objection(transport)
        if self.failure is not None:
            self.abort()
            return
        self.connection = connection = self._pool.successor(transport)
        transport.set_protocol(as_protocol(connection))
        connection.connection_made(transport)
