"""
A listening socket: accepts, lets the first bytes decide, hands over to a protocol.

The accept loop is ours rather than asyncio's so that one port can serve TLS and plaintext
(PERMISSIVE), each connection gets the certificate of its own moment (a renewed one needs no
restart), and the original destination can be read from the raw socket.  The first bytes are
looked at with MSG_PEEK: TLS and HTTP then read them as if nobody had.
"""

import asyncio
import contextlib
import errno
import logging
import socket
import ssl
import struct
from collections.abc import Coroutine, Iterable
from functools import partial
from itertools import islice
from typing import Any, Final, NamedTuple

from meshproxy.codec.budget import PEER, STRANGER
from meshproxy.codec.http1 import encode_response_head
from meshproxy.codec.sniff import Protocol as Wire
from meshproxy.contract.resources import ListenerSpec, Mtls
from meshproxy.driven import Driven
from meshproxy.exchange import exchanges_of
from meshproxy.flow import Connection, as_protocol
from meshproxy.identity.tls import peer_identity
from meshproxy.local_reply import local_reply
from meshproxy.neighbours import Authorities, Cluster
from meshproxy.refusal import refusal
from meshproxy.relay import Cluster as RelayCluster
from meshproxy.relay import Relay
from meshproxy.routing.table import VirtualHost
from meshproxy.routing.tcp import TcpRoute
from meshproxy.tunnel import ANYBODY, SIDECARS, vanished

from . import http1
from .accept_rate import AcceptRate
from .arrival import Arrival
from .captured import Captured, Unknown
from .destination import PLAINTEXT, Destination, Environment
from .greeting import Greeting
from .http2 import Http2Connection
from .lane import LaneConnection
from .sockets import accept, cannot_listen, peer_address
from .speculation import Speculation
from .tcp import TcpConnection
from .trunk import TrunkConnection
from .tunnel import ClientTunnel

log = logging.getLogger("meshproxy.listener")

ACCEPT_BATCH = 16
"""Connections taken per wake-up, so that a flood of them does not starve those already open."""

HELLO_TIMEOUT = 10.0
"""Seconds for the first bytes and the TLS handshake."""

TURN_AWAY_TIMEOUT = 1.0
"""Seconds in which who is to be turned away can show that it speaks HTTP."""

SWEEP = 1.0
"""Seconds between two looks at the connections' deadlines."""

LOOKS = 5
"""Sweeps in which each connection is looked at once: whether anybody is at its other end."""

SHEDDING = 64
"""Greetings under way above which nobody is told any more that all is full."""

COMPLAIN = 10.0
"""Seconds between two words in the log about the same reason."""

REASONS: Final = {
    "connections": "it has as many connections as it may have",
    "memory": "the process takes more memory than it may",
    "accept-rate": "more connections come in a second than it may take",
    "handshakes": "more TLS handshakes wait for their turn than may wait",
}
"""Why somebody is refused who has just come."""


class Peer(NamedTuple):
    """
    What is to be remembered of who is at the other end of a connection.

    Attributes:
        plaintext: What a connection is meant for by which nobody was proved; None over mutual TLS.
        counted: Port and address under which such a one is counted; None where there is no choice.
    """

    plaintext: Destination | None
    counted: tuple[str, str] | None = None


PROVED: Final = Peer(None)

Accepted = (
    Arrival
    | http1.Http1Connection
    | Http2Connection
    | ClientTunnel
    | LaneConnection
    | TcpConnection
)


class Listener:
    """
    One listening socket and the connections it accepted.

    Attributes:
        destination: What its connections are meant for.
        draining: No new connections; the open ones end with their current or next request.
        half_closing: Clients of HTTP/1.1 that say no more may still listen.
        sockets: What it accepts from; none before `bind` and after `drain`.
    """

    def __init__(self, spec: ListenerSpec, environment: Environment) -> None:
        self.spec = spec
        self.environment = environment
        self.destination = Destination(environment, spec)
        self.hop = self.destination.hop
        self.draining = False
        self.half_closing = environment.half_closing
        self._captured: Captured | None = None
        self._loop = environment.loop
        self.sockets: list[socket.socket] = []
        self._family = int(socket.AF_INET)
        self._connections: dict[Accepted, Peer] = {}
        self._greeting: set[asyncio.Task[None] | Driven] = set()
        self._counts = environment.metrics.connection("downstream", spec.direction)
        self._sweep: asyncio.TimerHandle | None = None
        self._sweeps = 0
        self._last_call: asyncio.TimerHandle | None = None
        self._closed = False
        self._leaving = False  # it takes who waits in its queue, and then nobody
        self._complained: dict[str, float] = {}  # when, by one of `REASONS`
        self._rate = AcceptRate(environment.admission.accept_rate)

    def __repr__(self) -> str:
        state = "draining" if self.draining else "open" if self.sockets else "closed"
        return f"<Listener {self.spec.name} {self.spec.address}:{self.spec.port} {state}>"

    @property
    def connections(self) -> int:
        """How many are open, those still greeting included."""
        return len(self._connections) + len(self._greeting)

    @property
    def direction(self) -> str:
        """Relative to the app beside us."""
        return self.spec.direction

    @property
    def accepted(self) -> Iterable[Accepted]:
        """Those that are not greeting any more."""
        return self._connections

    # Opening --------------------------------------------------------------------------------------

    def bind(self) -> None:
        """
        Take the port; connections queue in the kernel until `start`.

        Raises:
            ContractError: The address or port cannot be had.
        """
        spec = self.spec
        try:
            self.sockets = self.environment.sockets.take((spec.address, spec.port))
        except OSError as error:
            raise cannot_listen(spec, error) from None
        self._family = int(self.sockets[0].family)

    def unbind(self) -> None:
        """Give the port back: nothing has been accepted, and nothing shall be."""
        place = (self.spec.address, self.spec.port)
        self.environment.sockets.give_back(place, self.sockets)
        self.sockets = []

    def obey(
        self,
        spec: ListenerSpec,
        virtual_host: VirtualHost[Cluster] | None,
        authorities: Authorities,
        tcp_route: TcpRoute[RelayCluster] | None = None,
        captured: Captured | None = None,
    ) -> None:
        """
        Serve by this configuration from now on, on the same socket.

        When STRICT arrives, whoever speaks plaintext finishes the current request, no more; what is
        no request (tunnels, opaque connections) ends at once.
        """
        self.spec = spec
        self.destination.obey(spec, virtual_host, authorities, tcp_route)
        self._captured = captured
        for connection in list(self._connections):
            if self._unwanted(connection):
                self._end(connection)

    def expel(self) -> None:
        """End the connections of identities that have been revoked."""
        environment = self.environment
        for connection, peer in list(self._connections.items()):
            if peer.plaintext is not None:
                continue
            identity = peer_identity(connection.transport, environment.trust_domain)
            if identity in environment.revoked:
                log.warning("%s: connection of %s cut, which is revoked", self.spec.name, identity)
                connection.abort()

    def start(self) -> None:
        """Begin to accept."""
        self.environment.admission.join(self)
        for sock in self.sockets:
            self._loop.add_reader(sock.fileno(), self._on_acceptable, sock)
        self._sweep = self._loop.call_later(SWEEP, self._on_sweep)

    def _on_acceptable(self, listening: socket.socket) -> bool:
        """Accept a batch; say whether there may be more."""
        admission = self.environment.admission
        room = ACCEPT_BATCH if self._leaving else admission.room(self, ACCEPT_BATCH)
        for _ in range(ACCEPT_BATCH):
            try:
                sock, peer = accept(listening, self._family)
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return False  # also when another process that shares the queue was faster
            except OSError as error:
                self._pause_accepting(listening, error)
                return False
            sock.setblocking(False)
            why_not = "" if self._leaving else self._objection(room)
            room -= 1
            if why_not:
                if self._shed(sock, why_not):
                    continue
                self._attend(self._turn_away(sock, "proxy-overloaded"))
            else:
                self._receive(sock, peer)
            admission.taken()
        return True

    def _objection(self, room: int) -> str:
        """Return why who has come is not taken, one of `REASONS`; empty where nothing is against it."""
        environment = self.environment
        if room <= 0:
            return "memory" if environment.admission.short_of_memory else "connections"
        if not self._rate.take(self._loop.time()):
            return "accept-rate"
        if self.spec.mtls == "strict" and environment.handshakes.full:
            return "handshakes"
        return ""

    def _shed(self, sock: socket.socket, why: str) -> bool:
        """Say whether the client was reset, as are those for whom a word is too much."""
        now = self._loop.time()
        if now >= self._complained.get(why, -COMPLAIN) + COMPLAIN:
            self._complained[why] = now
            log.warning(
                "%s: %s, %d are open; others are refused", self.spec.name, REASONS[why], self.connections
            )  # fmt: skip
        self.environment.metrics.connection_refused(self.spec.direction, why)
        brief = why in ("accept-rate", "handshakes") or self.spec.mtls == "strict"
        if not brief and len(self._greeting) < SHEDDING:
            return False
        self.environment.refused(self.spec.direction, "proxy-overloaded")
        _reset(sock)
        return True

    def _pause_accepting(self, listening: socket.socket, error: OSError) -> None:
        """Out of descriptors or memory: waiting connections stay queued, and we do not spin."""
        if error.errno not in (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM):
            log.error("%s: accept failed: %s", self.spec.name, error)
        self._loop.remove_reader(listening.fileno())
        self._loop.call_later(0.1, self._resume_accepting, listening)

    def _resume_accepting(self, listening: socket.socket) -> None:
        if listening in self.sockets:
            self._loop.add_reader(listening.fileno(), self._on_acceptable, listening)

    def _receive(self, sock: socket.socket, peer: Any) -> None:
        """Begin with a new connection what is to be done by where it was meant to go."""
        destination: Destination | None = self.destination
        if self._captured is not None:
            passing = self.spec.unknown == "pass"
            destination = self._captured.meant(sock, peer, passing=passing)
        if destination is None:
            self._attend(self._turn_away(sock))
        elif self._mtls(destination) == "disabled" or isinstance(destination, Unknown):
            self._welcome(sock, destination)
        else:
            self._attend(self._greet(sock, destination))

    def _attend(self, greeting: Coroutine[Any, Any, None]) -> None:
        task = self._loop.create_task(greeting)
        self._greeting.add(task)
        task.add_done_callback(self._greeting.discard)

    # Greeting: the first bytes decide -------------------------------------------------------------

    async def _greet(self, sock: socket.socket, destination: Destination) -> None:
        try:
            async with asyncio.timeout(HELLO_TIMEOUT):
                await self._hand_over(sock, destination)
        except TimeoutError:
            self.environment.metrics.handshake_failed("downstream", "timeout")
            sock.close()
        except ssl.SSLError as error:
            sock.close()
            self.environment.metrics.handshake_failed("downstream", error.reason or "other")
            log.info("%s: TLS handshake refused: %s", self.spec.name, error.reason or error)
        except OSError:  # the client gave up meanwhile
            sock.close()
        except asyncio.CancelledError:
            sock.close()
            raise

    async def _hand_over(self, sock: socket.socket, destination: Destination) -> None:
        permissive = self._mtls(destination) == "permissive"
        greeting = Greeting(self._loop, sock, destination, permissive=permissive)
        try:
            await self._answer(sock, greeting, destination)
        finally:
            greeting.withdraw()

    async def _answer(
        self, sock: socket.socket, greeting: Greeting, destination: Destination
    ) -> None:
        wire = await greeting.hear()
        if wire is None:
            if greeting.speculation is None:
                sock.close()
            elif self._mtls(destination) == "strict":  # since the client came
                await self._refuse_plaintext(sock, destination, Wire.OPAQUE)
            else:
                speculation, greeting.speculation = greeting.speculation, None
                self._welcome(sock, destination, speculation)
        elif wire is Wire.TLS:
            context = self.environment.server_context
            if context is None:
                self.environment.metrics.handshake_failed("downstream", "no-certificate")
                sock.close()
                return
            if not await self.environment.handshakes.turn():
                self._shed(sock, "handshakes")
                return
            await self._loop.connect_accepted_socket(
                lambda: as_protocol(Arrival(self._loop, self, destination, tls=True)),
                sock,
                ssl=context,
                ssl_handshake_timeout=HELLO_TIMEOUT,
                ssl_shutdown_timeout=http1.LINGER_TIMEOUT,
            )
        elif self._mtls(destination) == "strict":
            await self._refuse_plaintext(sock, destination, wire)
        else:
            if wire is not Wire.OPAQUE:
                greeting.on_http()
            greeting.withdraw()
            self._welcome(sock, destination)

    def _welcome(
        self,
        sock: socket.socket,
        destination: Destination,
        speculation: Speculation | None = None,
    ) -> None:
        """Begin to read a plaintext connection, for which nothing has to be waited for."""
        begin = partial(self._begin, destination, speculation)
        accepted = self._loop.connect_accepted_socket(begin, sock)
        self._greeting.add(Driven(self._loop, accepted, partial(self._on_welcomed, sock)))

    # (A function within the other would know itself, and wait for the cycle collector.)
    def _begin(
        self, destination: Destination, speculation: Speculation | None
    ) -> asyncio.BaseProtocol:
        if speculation is None and not destination.opaque:
            return as_protocol(Arrival(self._loop, self, destination))
        caller = destination.caller(None)
        return as_protocol(
            TcpConnection(self._loop, self, destination, caller, speculation=speculation)
        )

    def _on_welcomed(self, sock: socket.socket, driven: Driven, error: Exception | None) -> None:
        self._greeting.discard(driven)
        if error is not None:  # the client gave up meanwhile
            sock.close()

    async def _refuse_plaintext(
        self, sock: socket.socket, destination: Destination, wire: Wire
    ) -> None:
        """Say why, to who speaks HTTP; not a byte of the request goes any further."""
        self.environment.refused("inbound", "mtls-required")
        metrics = self.environment.metrics
        metrics.handshake_failed("downstream", PLAINTEXT)
        metrics.plaintext_refused(destination.app_port, peer_address(sock) or "")
        if wire is Wire.HTTP1:
            await self._say(sock, "mtls-required")
        sock.close()

    async def _turn_away(self, sock: socket.socket, code: str = "unknown-destination") -> None:
        """
        Refuse who wanted to go where nobody is, or has no business; or comes when all is full.

        Who speaks HTTP/1 is told; others are reset, and so is who waits for the server to speak.
        """
        self.environment.refused(self.spec.direction, code)
        wire: Wire | None = None
        try:
            with contextlib.suppress(OSError):  # TimeoutError is one, too
                async with asyncio.timeout(TURN_AWAY_TIMEOUT):
                    greeting = Greeting(self._loop, sock, self.destination, permissive=False)
                    wire = await greeting.hear()
            if wire is Wire.HTTP1:
                await self._say(sock, code)
            else:
                _reset(sock)
        finally:
            sock.close()

    async def _say(self, sock: socket.socket, code: str) -> None:
        """Refuse a request of HTTP/1 of which nothing has been read."""
        with contextlib.suppress(OSError):
            head, body = local_reply(refusal(code), None, hop=self.hop)
            sock.send(encode_response_head(head, close=True) + body)
            sock.shutdown(socket.SHUT_WR)
            # Closing with unread bytes would send RST, which can destroy the answer.
            async with asyncio.timeout(http1.LINGER_TIMEOUT):
                while await self._loop.sock_recv(sock, 65536):
                    pass

    def arrived(self, arrival: Arrival) -> None:
        """TLS is done, if there is any: who has come?"""
        if arrival.tls:
            arrival.identity = peer_identity(arrival.transport, self.environment.trust_domain)
            if arrival.identity is None:
                self.environment.metrics.handshake_failed("downstream", "no-spiffe-id")
                arrival.abort()
                return
            if arrival.identity in self.environment.revoked:
                self.environment.metrics.handshake_failed("downstream", "identity-revoked")
                log.warning("%s: refused %s, which is revoked", self.spec.name, arrival.identity)
                arrival.abort()
                return
        self._connections[arrival] = PROVED if arrival.tls else self._stranger(arrival)
        self._counts.opened += 1
        if self._closed:
            arrival.abort()
        elif self._unwanted(arrival):
            self._end(arrival)

    def opened(self, connection: TcpConnection) -> None:
        """A client's opaque connection stands."""
        if connection not in self._connections:
            self._connections[connection] = self._stranger(connection)
            self._counts.opened += 1
            if self._closed:
                connection.abort()
            elif self._unwanted(connection):
                self._end(connection)

    def _stranger(self, connection: Arrival | TcpConnection) -> Peer:
        """Return who came in plaintext; counted where mutual TLS could have been spoken."""
        destination = connection.destination
        if self.spec.direction == "outbound" or self._mtls(destination) == "disabled":
            return Peer(destination)
        metrics = self.environment.metrics
        counted = metrics.plaintext_opened(destination.app_port, connection.address)
        return Peer(destination, counted)

    def successor(
        self, arrival: Arrival, *, http2: bool
    ) -> http1.Http1Connection | Http2Connection:
        """Return what goes on with a connection, now that it is known what it speaks."""
        caller = arrival.destination.caller(arrival.identity)
        connection: http1.Http1Connection | Http2Connection
        if http2:
            known = arrival.identity is not None or self.spec.direction == "outbound"
            connection = Http2Connection(
                self._loop,
                self,
                exchanges_of(caller),
                PEER if known else STRANGER,
            )
        else:
            connection = http1.Http1Connection(self._loop, self, exchanges_of(caller))
        self._succeed(arrival, connection)
        return connection

    def trunk(self, arrival: Arrival) -> TrunkConnection:
        """Return what goes on with a peer's connection that carries opaque ones."""
        destination = arrival.destination
        caller = destination.caller(arrival.identity)
        connection = TrunkConnection(
            self._loop,
            self,
            partial(Relay, caller=caller),
            destination.port,
            guesses=destination.protocol == "detect",
        )
        self._succeed(arrival, connection)
        return connection

    def lane(self, arrival: Arrival) -> LaneConnection:
        """Return what goes on with a peer's connection that carries a single opaque one."""
        destination = arrival.destination
        connection = LaneConnection(
            self._loop,
            self,
            partial(Relay, caller=destination.caller(arrival.identity)),
            destination.port,
            guesses=destination.protocol == "detect",
        )
        self._succeed(arrival, connection)
        return connection

    def opaque(
        self, arrival: Arrival, server_name: str | None, speculation: Speculation | None
    ) -> TcpConnection:
        """Return what goes on with a connection that nobody looks into any more."""
        caller = arrival.destination.caller(arrival.identity)
        connection = TcpConnection(
            self._loop, self, arrival.destination, caller, server_name, speculation
        )
        self._succeed(arrival, connection)
        return connection

    def _succeed(self, arrival: Arrival, connection: Accepted) -> None:
        self._connections[connection] = self._connections.pop(arrival)
        if self.draining and isinstance(connection, Http2Connection):
            self._loop.call_soon(connection.drain)

    def _unwanted(self, connection: Accepted) -> bool:
        destination = self._connections[connection].plaintext
        return destination is not None and self._mtls(destination) == "strict"

    def _mtls(self, destination: Destination) -> Mtls:
        return destination.mtls or self.spec.mtls

    def _end(self, connection: Accepted) -> None:
        """Policy forbids what the connection is; a good moment comes only to what has requests."""
        if isinstance(connection, ClientTunnel | TcpConnection):
            connection.abort()
        else:
            connection.drain()

    # The connections' owner -----------------------------------------------------------------------

    def switched(self, connection: Connection, tunnel: ClientTunnel) -> None:
        assert isinstance(connection, http1.Http1Connection)
        self._connections[tunnel] = self._connections.pop(connection)

    def started_over(self, connection: Connection, authority: bytes, early: bytes) -> None:
        assert isinstance(connection, http1.Http1Connection)
        # Whoever means a service of HTTP alone says again, with each request, which one.
        destination = self.destination.place(authority) or self.destination
        arrival = Arrival(self._loop, self, destination, early=early)
        self._connections[arrival] = self._connections.pop(connection)
        arrival.take_over(connection)

    def closed(self, connection: Accepted) -> None:
        peer = self._connections.pop(connection, None)
        if peer is not None:
            self._counts.closed += 1
            if peer.counted is not None:
                self.environment.metrics.plaintext_closed(*peer.counted)

    def malformed(self, code: str) -> None:
        self.environment.refused(self.spec.direction, code)

    def _on_sweep(self) -> None:
        now = self._loop.time()
        for connection in [c for c in self._connections if c.deadline < now]:
            connection.expire()
        self._end_vanished()
        if self.draining and not self.connections:
            self._sweep = None  # nobody is left, nobody will come
            self.environment.admission.leave(self)
            if self._last_call is not None:
                self._last_call.cancel()
        else:
            self._sweep = self._loop.call_later(SWEEP, self._on_sweep)

    def _end_vanished(self) -> None:
        """Of a part of the connections at a time: of thousands it takes some milliseconds."""
        self._sweeps += 1
        for connection in list(islice(self._connections, self._sweeps % LOOKS, None, LOOKS)):
            peer = isinstance(connection, LaneConnection | TrunkConnection)
            if vanished(connection.transport, SIDECARS if peer else ANYBODY):
                connection.abort()

    # Closing --------------------------------------------------------------------------------------

    def drain(self) -> None:
        """
        Accept no more, and let the open connections end without failing a request.

        HTTP/2 can be told (GOAWAY).  An HTTP/1.1 client learns it from the next response
        (`Connection: close`, which it gets because we are draining): closing an idle connection
        just when its next request is on the way would fail that request.
        """
        if self.draining:
            return
        self._leaving = True
        for listening in self.sockets if self._sweep is not None else ():
            while self._on_acceptable(listening):
                pass  # who waits in the queue has been promised an answer
        self.draining = True
        self._forget_sockets()
        for connection in list(self._connections):
            if isinstance(connection, Http2Connection):
                connection.drain()
        self._last_call = self._loop.call_later(self.environment.drain_seconds, self._on_last_call)

    def _on_last_call(self) -> None:
        """Who has asked for nothing in all this time will hardly do so in this moment."""
        for connection in list(self._connections):
            connection.drain()

    def _forget_sockets(self) -> None:
        # Closed, never shut down: another process may go on accepting from the same sockets.
        for listening in self.sockets:
            self._loop.remove_reader(listening.fileno())
            listening.close()
        self.sockets = []

    def close(self) -> None:
        """End everything now."""
        self.draining = True
        self._forget_sockets()
        for timer in (self._sweep, self._last_call):
            if timer is not None:
                timer.cancel()
        self._sweep = self._last_call = None
        self._closed = True
        for greeting in list(self._greeting):
            if not isinstance(greeting, Driven):  # whose connection stands in a moment, and is told
                greeting.cancel()
        for connection in list(self._connections):
            connection.abort()
        self.environment.admission.leave(self)


def _reset(sock: socket.socket) -> None:
    """Close in a way that cannot be taken for an end, and that leaves nothing behind."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()
