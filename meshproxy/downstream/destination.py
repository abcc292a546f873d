"""
Where the connections of a listener are meant to go, and who makes them.

A plain listener leads to one place, so it has one `Destination`.  A captured one serves many: for
each connection it asks the kernel where it was meant to go and takes the destination of that
address.  Everything behind the accept loop sees a destination and does not care which it was.

A destination lives as long as its place is configured.  New configuration is written into it
(`obey`), so connections that are open follow it with their next request; an opaque connection has
chosen its route when it began and keeps it.
"""

import asyncio
import ssl
from collections.abc import Callable, Mapping
from functools import partial
from typing import Protocol
from weakref import WeakValueDictionary, ref

from meshproxy import neighbours
from meshproxy.contract.resources import DestinationSpec, ListenerSpec, Mtls
from meshproxy.contract.resources import Protocol as Spoken
from meshproxy.exchange import Exchange
from meshproxy.message import field
from meshproxy.neighbours import Authorities, Cluster, Series, Surroundings
from meshproxy.policies.authorization import Authorization, Source, Standing
from meshproxy.policies.first_speaker import FirstSpeaker
from meshproxy.policies.loop_detection import LoopDetection
from meshproxy.relay import Cluster as RelayCluster
from meshproxy.relay import Relay
from meshproxy.relay import Series as RelaySeries
from meshproxy.routing.authority import normalized
from meshproxy.routing.table import VirtualHost
from meshproxy.routing.tcp import TcpRoute
from meshproxy.telemetry.denials import Denials
from meshproxy.telemetry.metrics import GrpcLabels, Metrics

from .admission import Admission
from .guard import Guard
from .handshakes import Handshakes
from .sockets import Sockets

PLAINTEXT = "plaintext"
"""`source` of requests that nobody vouched for."""


class Environment(Protocol):
    """
    What listeners need of the process.

    Attributes:
        surroundings: The same, as exchanges know it.
        exchanges: Those that are under way.
        workload: ``namespace/name`` of the app beside us.
        version: Its version label.
        identity: Its SPIFFE ID.
        trust_domain: The only one whose identities count.
        server_context: TLS for the next inbound connection; None before there is a certificate.
        sockets: Where listening sockets come from.
        drain_seconds: How long who is idle may stay when no more connections are accepted.
        admission: How many connections there may be.
        half_closing: Clients that say no more may still listen.
        handshakes: Whose turn it is to begin one.
        revoked: Identities that are denied, whatever certificate they show.
        denials: Who was denied what.
    """

    exchanges: set[Exchange]
    workload: str
    version: str
    identity: str
    trust_domain: str
    metrics: Metrics
    loop: asyncio.AbstractEventLoop
    sockets: Sockets
    drain_seconds: float
    admission: Admission
    half_closing: bool
    handshakes: Handshakes
    revoked: frozenset[str]
    denials: Denials
    wall: Callable[[], float]

    @property
    def surroundings(self) -> Surroundings: ...
    @property
    def server_context(self) -> ssl.SSLContext | None: ...
    def refused(self, direction: str, code: str) -> None: ...


class Caller(neighbours.Caller):
    """
    Who sends requests on a connection, and where they may go (see `neighbours.Caller`).

    The same for opaque connections (see `relay.Caller`).
    """

    __slots__ = (
        "__weakref__", "_connections", "_destination", "_statuses", "identity", "relays", "tcp_route",
    )  # fmt: skip

    guard: Guard | None

    def __init__(self, destination: "Destination", identity: str | None) -> None:
        self._destination = destination
        self.guard = None
        self.relays: set[Relay] = set()
        self.series = _SeriesByLabels(self)
        self._statuses: dict[tuple[str, str, str], GrpcLabels] = {}
        self._connections: dict[tuple[str, str], RelaySeries] = {}
        self.surroundings = destination.environment.surroundings
        self.direction = destination.direction
        self.hop = destination.hop
        self.workload = destination.environment.workload
        self.loops = destination.loops
        self.identity = identity
        self.source = identity or ""
        if self.direction == "outbound":
            self.source = destination.environment.identity
        self.identity_field = None
        if self.direction == "inbound" and identity is not None:
            by = destination.environment.identity
            self.identity_field = field(
                b"x-forwarded-client-cert", f"By={by};URI={identity}".encode()
            )
        self.obey()

    def obey(self) -> None:
        """Go where the destination leads now, as far as its policies allow it."""
        destination = self._destination
        self.virtual_host = host = destination.virtual_host
        self.authorities = destination.authorities
        self.tcp_route = destination.tcp_route
        self.guard = None
        authorization = destination.authorization
        jwt = None if host is None or self.direction != "inbound" else host.jwt
        if authorization is not None and authorization.by_address:
            at = partial(_standing, self.identity, authorization)
            self.guard = Guard(destination.environment, self.source, None, jwt, at)
        else:
            standing = None if authorization is None else _standing(self.identity, authorization)
            if jwt is not None or (standing is not None and not standing.free):
                self.guard = Guard(destination.environment, self.source, standing, jwt)

    def new_series(self, route: str, service: str, version: str, protocol: str) -> Series:
        """Return what counts requests that share all this; `series` remembers it."""
        source, called, version = self._between(service, version)
        return self._destination.environment.metrics.requests(
            self.direction, source, called, version, route, protocol
        )

    def grpc_ended(self, route: str, service: str, status: str) -> None:
        key = (route, service, status)
        try:
            labels = self._statuses[key]
        except KeyError:
            source, called, _ = self._between(service, "")
            labels = self._statuses[key] = (self.direction, source, called, route, status)
        self._destination.environment.metrics.grpc_ended(labels)

    def connections(self, route: str, service: str) -> RelaySeries:
        """Return what counts the opaque connections to a service over a route."""
        try:
            return self._connections[route, service]
        except KeyError:
            source, called, _ = self._between(service, "")
            series = self._connections[route, service] = self._destination.environment.metrics.tcp(
                self.direction, source, called, route
            )
            return series

    def leads_to(self, authority: bytes) -> bool:
        """Say whether a CONNECT for this authority leads to opaque connections."""
        return self._destination.place(authority) is not None

    def _between(self, service: str, version: str) -> tuple[str, str, str]:
        """Return source, destination and its version, as metrics call them."""
        environment = self._destination.environment
        if self.direction == "inbound":
            return self.identity or PLAINTEXT, environment.workload, environment.version
        return environment.workload, service, version


def _standing(identity: str | None, authorization: Authorization, address: str = "") -> Standing:
    return authorization.standing(Source.of(identity, address))


class _SeriesByLabels(dict[tuple[str, str, str, str], Series]):
    """What counts the requests of one caller; a dict, because every request asks it."""

    def __init__(self, caller: Caller) -> None:
        super().__init__()
        self._caller = ref(caller)  # which has us, and shall go when nobody calls any more

    def __missing__(self, labels: tuple[str, str, str, str]) -> Series:
        caller = self._caller()
        assert caller is not None, "who asks is one of its exchanges"
        series = self[labels] = caller.new_series(*labels)
        return series


class Destination:
    """
    One place that connections are meant for, and what is known about it.

    Attributes:
        mtls: What its connections must be; None for what the listener says.
        port: Of the service, or of the app; what a peer must ask a tunnel for.
        app_port: Of the app, as metrics call it: also where the listener's is another.
        protocol: What clients speak, where somebody has said so.
        virtual_host: Serves every request, or None to choose by authority.
        tcp_route: Of connections that are not HTTP; None where there are none.
        places: For a proxy of many places: where its clients may ask to be connected to.
        first_speaker: What its connections have shown about who speaks first.
        hop: Name of this proxy's role in a refusal: ``outbound of default/storefront``.
    """

    __slots__ = (
        "__weakref__", "_callers", "_stranger", "app_port", "authorities", "direction", "environment", "first_speaker", "hop",
        "loops", "mtls", "places", "port", "protocol", "tcp_route",
        "virtual_host",
    )  # fmt: skip

    def __init__(self, environment: Environment, spec: ListenerSpec | DestinationSpec) -> None:
        self.environment = environment
        self.direction: str = spec.direction
        self.hop = f"{spec.direction} of {environment.workload}"
        self.port = spec.port
        self.app_port = spec.name.removeprefix("inbound:")
        self.protocol: Spoken = spec.protocol
        self.virtual_host: VirtualHost[Cluster] | None = None
        self.tcp_route: TcpRoute[RelayCluster] | None = None
        self.authorities: Authorities
        self.places: Mapping[bytes, Destination] = {}
        self.first_speaker = FirstSpeaker()
        self.loops = LoopDetection(spec.direction, environment.workload)
        # Those of whom there is a connection: identities come and go with every release.
        self._callers: WeakValueDictionary[str, Caller] = WeakValueDictionary()
        self._stranger: Caller | None = None  # nobody in particular, so always the same
        self.mtls: Mtls | None = spec.mtls

    def __repr__(self) -> str:
        return f"<Destination {self.direction} :{self.port} {self.protocol}>"

    @property
    def opaque(self) -> bool:
        """Nothing in the first bytes of a connection could change where it goes."""
        route = self.tcp_route
        return self.protocol == "tcp" and (route is None or not route.by_name)

    @property
    def guesses(self) -> bool:
        """The first bytes of a plaintext connection decide what becomes of it."""
        route = self.tcp_route
        return route is not None and (
            self.protocol == "detect" or (self.protocol == "tcp" and route.by_name)
        )

    def obey(
        self,
        spec: ListenerSpec | DestinationSpec,
        virtual_host: VirtualHost[Cluster] | None,
        authorities: Authorities,
        tcp_route: TcpRoute[RelayCluster] | None = None,
    ) -> None:
        """Be what this configuration says from now on."""
        before = self.authorization
        self.port = spec.port
        self.protocol = spec.protocol
        self.mtls = spec.mtls
        self.virtual_host = virtual_host
        self.authorities = authorities
        self.tcp_route = tcp_route
        for caller in self._everybody():
            caller.obey()
        now = self.authorization
        if now is not None and (before is None or now.specs != before.specs):
            self._end_forbidden()

    def _end_forbidden(self) -> None:
        """
        Other policies hold: end what has no next request, and is forbidden by them.

        All exchanges of the process are looked through: that is rare, and keeping a list for each
        caller would be work for every request.
        """
        callers = self._everybody()
        guards = {id(caller): caller.guard for caller in callers if caller.guard is not None}
        for relay in [relay for caller in callers for relay in caller.relays]:
            guard = guards.get(id(relay.caller))
            if guard is not None and guard.stop_connection(relay.downstream):
                relay.forbid()
        for exchange in [one for one in self.environment.exchanges if one.lasting]:
            guard = guards.get(id(exchange.caller))
            if guard is None or exchange.done:
                continue
            if number := guard.forbids(exchange.head, exchange.downstream):
                exchange.on_forbidden(number)

    def _everybody(self) -> list[Caller]:
        """Return all who call."""
        callers = list(self._callers.values())
        return callers if self._stranger is None else [*callers, self._stranger]

    @property
    def authorization(self) -> Authorization | None:
        """Who may do what here; inbound only."""
        if self.direction != "inbound":
            return None
        route = self.virtual_host or self.tcp_route
        return None if route is None else route.authorization

    def place(self, authority: bytes) -> "Destination | None":
        """Return where a client means to be connected to, if that takes opaque connections."""
        if not self.places:
            return None
        name = normalized(authority)
        return None if name is None else self.places.get(name)

    def caller(self, identity: str | None) -> Caller:
        """Return who calls: one object per proved identity, so that its counters are shared."""
        if identity is None:
            if self._stranger is None:
                self._stranger = Caller(self, None)
            return self._stranger
        caller = self._callers.get(identity)
        if caller is None:
            caller = self._callers[identity] = Caller(self, identity)
        return caller
