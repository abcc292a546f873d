"""
From a snapshot (data) to a mesh (objects that act): compiled whole, adopted whole, or not at all.

1. *Compile*: routes become matchers, names become references; whatever is wrong is found here.
2. *Bind*: new listeners take their ports; a port that cannot be had is also an error.
3. *Adopt*: plain assignments that cannot fail.  Clusters, endpoints and listeners that stayed
   keep their connections and counters; requests under way finish on the route they began with.
"""

import socket
from collections.abc import Callable, Container, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Protocol, get_args

from meshproxy.contract.resources import Direction, ListenerSpec, Snapshot
from meshproxy.contract.wire import ContractError
from meshproxy.downstream import destination as downstream
from meshproxy.downstream.captured import Captured, places
from meshproxy.downstream.destination import Destination
from meshproxy.downstream.listener import Listener
from meshproxy.downstream.sockets import Place
from meshproxy.neighbours import Cluster as ExchangeCluster
from meshproxy.policies.load_balancing.tokens import Tokens, secret_of
from meshproxy.policies.retry import Retry
from meshproxy.relay import Cluster as RelayCluster
from meshproxy.routing.authority import normalized
from meshproxy.routing.table import Authorities, VirtualHost, compile_virtual_host
from meshproxy.routing.tcp import TcpRoute, compile_tcp_route
from meshproxy.upstream import cluster as upstream
from meshproxy.upstream.cluster import Cluster, check_policies
from meshproxy.upstream.passthrough import PassThrough

_NO_SECRET = "expected a session_secret in one of trust, from which its tokens are made"


class Environment(downstream.Environment, upstream.Environment, Protocol):
    """
    What listeners and clusters need of the process.

    Attributes:
        tokens: Of persistent sessions; ours to set.
        wall: Tells the seconds since the epoch.
        workers: Processes that serve the same traffic, this one included.
    """

    tokens: Tokens | None
    workers: int
    wall: Callable[[], float]


@dataclass(frozen=True)
class Prepared:
    """A snapshot that can be obeyed: everything that could fail has been done."""

    snapshot: Snapshot
    clusters: dict[str, Cluster]
    hosts: dict[str, VirtualHost[ExchangeCluster]]
    tcp_routes: dict[str, TcpRoute[RelayCluster]]
    authorities: Authorities[ExchangeCluster]
    listeners: dict[str, Listener]
    opened: list[Listener]
    secret: bytes


class Mesh:
    """
    What the proxy obeys at one version.

    Attributes:
        snapshot: What it was made from.
    """

    def __init__(self, environment: Environment) -> None:
        self.snapshot = Snapshot()
        self.clusters: dict[str, Cluster] = {}
        self.listeners: dict[str, Listener] = {}
        self.draining: list[Listener] = []  # gone from the configuration, still serving
        self._environment = environment
        self._hosts: dict[str, VirtualHost[ExchangeCluster]] = {}
        self._captured: dict[Direction, Captured] = {
            direction: Captured(
                direction, environment, partial(PassThrough, direction, environment)
            )
            for direction in get_args(Direction)
        }
        self._secret = b""  # of the tokens of persistent sessions
        self._ending = False  # the whole proxy drains: new configuration opens nothing
        self._holding = False  # not yet: another process still serves

    def adopt(self, snapshot: Snapshot) -> None:
        """
        Obey `snapshot` from now on.

        Raises:
            ContractError: It cannot be obeyed; everything is as before.
        """
        self.commit(self.prepare(snapshot))

    def prepare(self, snapshot: Snapshot) -> Prepared:
        """
        Do all that obeying `snapshot` needs and that can fail; `commit` or `discard` must follow.

        Raises:
            ContractError: It cannot be obeyed; everything is as before.
        """
        secret = _session_secret(snapshot)
        clusters = self._compile_clusters(snapshot)
        hosts = self._compile_virtual_hosts(snapshot, clusters)
        tcp_routes = self._compile_tcp_routes(snapshot, clusters)
        authorities: Authorities[ExchangeCluster] = _by_authority(snapshot, hosts)
        for spec in snapshot.listeners:
            if spec.virtual_host is not None and spec.virtual_host not in hosts:
                raise ContractError(
                    f"listener/{spec.name} virtual_host", f"there is no {spec.virtual_host!r}"
                )
            if spec.tcp_route is not None and spec.tcp_route not in tcp_routes:
                raise ContractError(
                    f"listener/{spec.name} tcp_route", f"there is no {spec.tcp_route!r}"
                )
        _check_destinations(snapshot, hosts, tcp_routes)
        listeners, opened = self._bind(snapshot)
        return Prepared(
            snapshot, clusters, hosts, tcp_routes, authorities, listeners, opened, secret
        )

    def commit(self, prepared: Prepared) -> None:
        """Obey what was prepared; nothing here can fail."""
        snapshot, hosts = prepared.snapshot, prepared.hosts
        self._environment.listening = _places_of(prepared.listeners.values())
        before, self._environment.revoked = self._environment.revoked, self._revoked(snapshot)
        if prepared.secret != self._secret:
            self._secret = prepared.secret
            self._environment.tokens = Tokens(prepared.secret, self._environment.wall)
        self._adopt_clusters(snapshot, prepared.clusters)
        self._hosts = hosts
        for direction, table in self._captured.items():
            wanted = [
                (
                    destination,
                    hosts.get(destination.virtual_host or ""),
                    prepared.tcp_routes.get(destination.tcp_route or ""),
                )
                for destination in snapshot.destinations
                if destination.direction == direction
            ]
            table.obey(wanted, prepared.authorities)
        for spec in snapshot.listeners:
            host = None if spec.virtual_host is None else hosts[spec.virtual_host]
            route = None if spec.tcp_route is None else prepared.tcp_routes[spec.tcp_route]
            captured = self._captured[spec.direction] if spec.captured else None
            prepared.listeners[spec.name].obey(spec, host, prepared.authorities, route, captured)
        named = _by_name(listener.destination for listener in prepared.listeners.values())
        for listener in prepared.listeners.values():
            if listener.spec.direction == "outbound" and listener.spec.virtual_host is None:
                listener.destination.places = named
        self._adopt_listeners(prepared.listeners, prepared.opened)
        self.snapshot = snapshot
        if not self._environment.revoked <= before:
            self._expel()

    def discard(self, prepared: Prepared) -> None:
        """Forget what was prepared; everything is as before."""
        for listener in prepared.opened:
            listener.unbind()

    # Compile --------------------------------------------------------------------------------------

    def _compile_clusters(self, snapshot: Snapshot) -> dict[str, Cluster]:
        clusters: dict[str, Cluster] = {}
        for spec in snapshot.clusters:
            if spec.name in clusters:
                raise ContractError(f"cluster/{spec.name}", "is given twice")
            Retry(spec.retry, f"cluster/{spec.name} retry")  # adopted only when nothing can fail
            check_policies(spec)
            known = self.clusters.get(spec.name)
            clusters[spec.name] = known or Cluster(spec, self._environment)
        served: set[str] = set()
        for endpoints in snapshot.endpoints:
            if endpoints.cluster not in clusters:
                raise ContractError(f"endpoints/{endpoints.cluster}", "there is no such cluster")
            if endpoints.cluster in served:
                raise ContractError(f"endpoints/{endpoints.cluster}", "is given twice")
            served.add(endpoints.cluster)
        return clusters

    def _compile_virtual_hosts(
        self, snapshot: Snapshot, clusters: Mapping[str, Cluster]
    ) -> dict[str, VirtualHost[ExchangeCluster]]:
        before = {spec.name: spec for spec in self.snapshot.virtual_hosts}
        # A host compiled before may point to clusters that have gone and come back anew.
        same = all(clusters.get(name) is cluster for name, cluster in self.clusters.items())
        hosts: dict[str, VirtualHost[ExchangeCluster]] = {}
        for spec in snapshot.virtual_hosts:
            if spec.name in hosts:
                raise ContractError(f"virtual_host/{spec.name}", "is given twice")
            if same and before.get(spec.name) == spec:  # thousands of routes: 10 µs each
                hosts[spec.name] = self._hosts[spec.name]
                continue
            try:
                hosts[spec.name] = compile_virtual_host(
                    spec, clusters, self._hosts.get(spec.name), self._environment.workers
                )
            except ContractError as error:
                where = f"virtual_host/{spec.name} {error.path}"
                raise ContractError(where, error.reason) from None
        return hosts

    def _compile_tcp_routes(
        self, snapshot: Snapshot, clusters: Mapping[str, Cluster]
    ) -> dict[str, TcpRoute[RelayCluster]]:
        routes: dict[str, TcpRoute[RelayCluster]] = {}
        for spec in snapshot.tcp_routes:
            if spec.name in routes:
                raise ContractError(f"tcp_route/{spec.name}", "is given twice")
            try:
                routes[spec.name] = compile_tcp_route(spec, clusters)
            except ContractError as error:
                where = f"tcp_route/{spec.name} {error.path}"
                raise ContractError(where, error.reason) from None
        return routes

    # Bind -----------------------------------------------------------------------------------------

    def _bind(self, snapshot: Snapshot) -> tuple[dict[str, Listener], list[Listener]]:
        """Return the listeners by name, and those of them that are new."""
        # What has a new name, or has swapped its port with another, needs no second socket.
        standing = {_place(known.spec): known for known in self.listeners.values()}
        listeners: dict[str, Listener] = {}
        opened: list[Listener] = []
        try:
            for spec in snapshot.listeners:
                if spec.name in listeners:
                    raise ContractError(f"listener/{spec.name}", "is given twice")
                listener = standing.pop(_place(spec), None)
                if listener is None:
                    listener = Listener(spec, self._environment)
                    listener.bind()
                    opened.append(listener)
                listeners[spec.name] = listener
        except ContractError:
            for listener in opened:
                listener.unbind()
            raise
        return listeners, opened

    # Adopt ----------------------------------------------------------------------------------------

    def _adopt_clusters(self, snapshot: Snapshot, clusters: dict[str, Cluster]) -> None:
        endpoints = {spec.cluster: spec.endpoints for spec in snapshot.endpoints}
        revoked = self._environment.revoked
        for spec in snapshot.clusters:
            servers, denied = endpoints.get(spec.name, ()), set[str]()
            if revoked:  # nobody who can only be denied is to be chosen
                out = [e for e in servers if e.identities and revoked.issuperset(e.identities)]
                servers = tuple(e for e in servers if e not in out)
                denied.update(*(e.identities for e in out))
            clusters[spec.name].adopt(spec, servers, denied)
        for name, cluster in self.clusters.items():
            if name not in clusters:
                cluster.retire()
        self.clusters = clusters

    def _adopt_listeners(self, listeners: dict[str, Listener], opened: list[Listener]) -> None:
        for listener in opened:
            if not self._holding:
                listener.start()
            if self._ending:
                listener.drain()
        kept = {id(listener) for listener in listeners.values()}
        for listener in self.listeners.values():
            if id(listener) not in kept:
                listener.drain()
                self.draining.append(listener)
        self.listeners = listeners
        self.draining = [listener for listener in self.draining if listener.connections]

    # Whom to deny ---------------------------------------------------------------------------------

    def _revoked(self, snapshot: Snapshot) -> frozenset[str]:
        own = self._environment.trust_domain
        return frozenset(
            identity
            for trust in snapshot.trust
            if trust.trust_domain == own
            for identity in trust.revoked
        )

    def _expel(self) -> None:
        """End what stands with identities that are denied from now on, on either side."""
        for listener in [*self.listeners.values(), *self.draining]:
            listener.expel()
        for connections in list(self._environment.pools):
            connections.expel()

    # The rest of life -----------------------------------------------------------------------------

    def hold(self) -> None:
        """Accept nothing before `open`: another process still serves these ports."""
        self._holding = True

    def open(self) -> None:
        """Accept from now on."""
        self._holding = False
        for listener in self.listeners.values():
            listener.start()

    @property
    def sockets(self) -> dict[Place, list[socket.socket]]:
        """What is accepted from, by place."""
        return {
            (listener.spec.address, listener.spec.port): listener.sockets
            for listener in self.listeners.values()
        }

    @property
    def connections(self) -> int:
        """How many clients are connected."""
        listeners = [*self.listeners.values(), *self.draining]
        return sum(listener.connections for listener in listeners)

    def sweep(self, now: float) -> None:
        """Close connections to endpoints that nobody has needed for long, or where nobody is."""
        for cluster in self.clusters.values():
            cluster.sweep(now)
        for connections in list(self._environment.pools):
            connections.look()
        for connection in list(self._environment.dialled):
            connection.look()

    def drain(self) -> None:
        """Accept no more; let what runs finish."""
        self._ending = True
        for listener in self.listeners.values():
            listener.drain()

    def close(self) -> None:
        """End everything now."""
        for listener in [*self.listeners.values(), *self.draining]:
            listener.close()
        for cluster in self.clusters.values():
            cluster.close()


def _places_of(listeners: Iterable[Listener]) -> frozenset[tuple[str, int]]:
    """Return where connections come to us; those at any address also over the loopback."""
    found: set[tuple[str, int]] = set()
    for listener in listeners:
        address, port = listener.spec.address, listener.spec.port
        found.add((address, port))
        if address in ("0.0.0.0", "::"):
            found |= {("127.0.0.1", port), ("::1", port)}
    return frozenset(found)


def _by_name(destinations: Iterable[Destination]) -> dict[bytes, Destination]:
    """Return what takes opaque connections outbound, by the authorities that mean it."""
    named: dict[bytes, Destination] = {}
    for destination in destinations:
        route, host = destination.tcp_route, destination.virtual_host
        if destination.direction != "outbound" or route is None:
            continue
        for domain in (*route.domains, *(() if host is None else host.domains)):
            authority = normalized(domain.encode())
            if authority is not None:
                named[authority] = destination
    return named


def _by_authority(
    snapshot: Snapshot, hosts: Mapping[str, VirtualHost[ExchangeCluster]]
) -> Authorities[ExchangeCluster]:
    """Inbound hosts are not to be called by name: only who has a listener of its own leads there."""
    inbound = {spec.virtual_host for spec in snapshot.listeners if spec.direction == "inbound"}
    inbound |= {spec.virtual_host for spec in snapshot.destinations if spec.direction == "inbound"}
    return Authorities([host for name, host in hosts.items() if name not in inbound])


def _check_destinations(
    snapshot: Snapshot, hosts: Container[str], tcp_routes: Container[str]
) -> None:
    """
    Refuse destinations that lead nowhere, or two that one address could mean.

    Raises:
        ContractError: There is one.
    """
    names: set[str] = set()
    taken: dict[tuple[Direction, str | None, int], str] = {}
    for spec in snapshot.destinations:
        where = f"destination/{spec.name}"
        if spec.name in names:
            raise ContractError(where, "is given twice")
        names.add(spec.name)
        if spec.virtual_host is not None and spec.virtual_host not in hosts:
            raise ContractError(f"{where} virtual_host", f"there is no {spec.virtual_host!r}")
        if spec.tcp_route is not None and spec.tcp_route not in tcp_routes:
            raise ContractError(f"{where} tcp_route", f"there is no {spec.tcp_route!r}")
        for address, port in places(spec):
            other = taken.setdefault((spec.direction, address, port), spec.name)
            if other != spec.name:
                place = f"{address or 'any address'}, port {port}"
                raise ContractError(f"{where} addresses", f"{place}, is that of {other!r} already")


def _session_secret(snapshot: Snapshot) -> bytes:
    """
    Return the secret of session tokens; empty where there are no sessions.

    Raises:
        ContractError: It is needed and missing, or is none.
    """
    for trust in snapshot.trust:
        if trust.session_secret:
            return secret_of(trust.session_secret, f"trust/{trust.trust_domain} session_secret")
    for cluster in snapshot.clusters:
        if cluster.session is not None:
            raise ContractError(f"cluster/{cluster.name} session", _NO_SECRET)
    for host in snapshot.virtual_hosts:
        for index, route in enumerate(host.routes):
            if route.session is not None:
                where = f"virtual_host/{host.name} routes[{index}].session"
                raise ContractError(where, _NO_SECRET)
    return b""


def _place(spec: ListenerSpec) -> tuple[str, str, int]:
    """A listener is the same, whatever its name, as long as it serves the same side in one place."""
    return (spec.direction, spec.address, spec.port)
