"""
The way of a request through the mesh, as the proxies on it would go: for `meshctl explain`.

    authority ─▶ virtual host ─▶ route ─▶ backends ─▶ endpoints ─▶ the app's sidecar: may it?

The tables are the proxy's own (`meshproxy.routing`), compiled from the snapshots that the two
sidecars obey.  Why a route was passed over is found by asking its match about one condition at a time.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

import msgspec

from control_plane.cli.decision import Asked, Decision, decide
from control_plane.cli.errors import USAGE, CommandError
from control_plane.cli.matching import described
from control_plane.cli.mesh import Mesh
from control_plane.cli.output import percent
from control_plane.outline import Behind
from meshproxy.contract.matching import MatchSpec
from meshproxy.contract.resources import (
    BackendSpec,
    ClusterSpec,
    DestinationSpec,
    EndpointSpec,
    ListenerSpec,
    RouteSpec,
    Snapshot,
    TcpBackendSpec,
)
from meshproxy.message import RequestHead
from meshproxy.routing.authority import normalized
from meshproxy.routing.match import Match
from meshproxy.routing.table import Authorities, Route, compile_virtual_host
from meshproxy.routing.tcp import compile_tcp_route

SHOWN = 10
"""Routes that were passed over, in words."""


@dataclass(frozen=True)
class Target:
    """What is asked for."""

    scheme: str
    authority: str
    path: str

    @classmethod
    def parse(cls, text: str) -> "Target":
        """
        Read a URL.

        Raises:
            CommandError: It is none that an app in the mesh could ask for.
        """
        expected = "expected such as http://catalog/items or tcp://db:5432"
        try:
            found = urlsplit(text)
        except ValueError as error:
            raise CommandError(f"{text!r} is no URL: {error}; {expected}", USAGE) from None
        if found.scheme == "https":
            raise CommandError(
                "an app's own TLS is opaque to its sidecar: ask for tcp://HOST:PORT, or for http://",
                USAGE,
            )
        if found.scheme not in ("http", "tcp") or not found.hostname:
            raise CommandError(f"{text!r} is neither a URL nor an id; {expected}", USAGE)
        if normalized(found.netloc.encode(errors="replace")) is None:
            raise CommandError(f"{found.netloc!r} is no host with port; {expected}", USAGE)
        path = (found.path or "/") + (f"?{found.query}" if found.query else "")
        return cls(found.scheme, found.netloc, path)


@dataclass(frozen=True)
class PassedOver:
    route: str
    match: str
    why: str


@dataclass(frozen=True)
class Taken:
    name: str
    match: str


@dataclass(frozen=True)
class Server:
    """An endpoint, and what its sidecar says; None where that is not known."""

    endpoint: EndpointSpec
    decision: Decision | None


@dataclass(frozen=True)
class BackendOf:
    cluster: str | None
    share: str
    servers: tuple[Server, ...]


@dataclass
class Steps:
    """
    Attributes:
        result: What the caller's sidecar answers by itself; empty where it forwards.
        seen: What the servers see, where a route changes it.
        part: Of the caller's snapshot, what this request is about.
    """

    caller: str
    asked: str
    authority: str
    virtual_host: str = ""
    tcp_route: str = ""
    route: Taken | None = None
    passed_over: list[PassedOver] = field(default_factory=list)
    result: str = ""
    seen: str = ""
    backends: list[BackendOf] = field(default_factory=list)
    part: Snapshot = field(default_factory=Snapshot)

    @property
    def decisions(self) -> list[Decision]:
        """What the servers say, each once."""
        found: dict[Behind, Decision] = {}
        for backend in self.backends:
            for server in backend.servers:
                if server.decision is not None:
                    at = Behind(server.decision.workload, server.decision.port)
                    found.setdefault(at, server.decision)
        return list(found.values())

    @property
    def answered(self) -> bool:
        """Whether it reaches an app, wherever the dice fall."""
        servers = [server for one in self.backends for server in one.servers]
        redirected = self.result.startswith("redirect")
        return redirected or (
            bool(servers)
            and all(one.cluster and one.servers for one in self.backends)
            and all(one.decision is None or one.decision.allowed for one in servers)
        )


def key_of(route: str) -> str:
    """Return ``Kind/namespace/name`` of what a route was made from."""
    return "/".join(route.split("/")[:3])


def follow(
    mesh: Mesh,
    caller: str,
    target: Target,
    head: RequestHead | None,
    claims: Mapping[str, Any] | None,
) -> Steps:
    """Return what would happen to a request of a workload's app; to a connection, without `head`."""
    snapshot = mesh.snapshot(caller)
    asked = f"{target.scheme}://{target.authority}{target.path if head else ''}"
    if head is not None:
        asked = f"{head.method.decode()} {asked}"
    authority = normalized(target.authority.encode()) or b""
    steps = Steps(caller, asked, authority.decode())
    way = _Way(mesh, caller, snapshot, steps, claims)
    if head is None:
        way.connect(authority)
    else:
        way.ask(head)
    return steps


class _Way:
    def __init__(
        self,
        mesh: Mesh,
        caller: str,
        snapshot: Snapshot,
        steps: Steps,
        claims: Mapping[str, Any] | None,
    ) -> None:
        self._mesh = mesh
        self._identity = mesh.outline.identities[caller]
        self._snapshot = snapshot
        self._steps = steps
        self._claims = claims
        self._clusters: dict[str, ClusterSpec] = {one.name: one for one in snapshot.clusters}

    # Requests -----------------------------------------------------------------------------------

    def ask(self, head: RequestHead) -> None:
        """Go the way of a request."""
        steps, inbound = self._steps, self._inbound()
        hosts = {
            spec.name: (spec, compile_virtual_host(spec, self._clusters))
            for spec in self._snapshot.virtual_hosts
            if spec.name not in inbound
        }
        found = Authorities([host for _, host in hosts.values()]).find(head.authority)
        if found is None:
            self._nobody(f"opaque TCP, no HTTP: ask for tcp://{steps.authority}")
            return
        steps.virtual_host = found.name
        spec = hosts[found.name][0]
        route = found.find(head)
        self._pass_over(spec.routes, found.routes, route, head)
        if route is None:
            steps.result = "404 no-route: no route of this service matches"
            return
        chosen = spec.routes[found.routes.index(route)]
        steps.route = Taken(route.name, described(chosen.match))
        if route.redirect is not None:
            location = route.redirect.location(head).decode()
            steps.result = f"redirect {route.redirect.status} to {location}"
            return
        seen = RequestHead(head.method, head.authority, head.path, list(head.fields))
        if route.request_headers is not None:
            seen.fields = route.request_headers.apply(seen.fields)
        if route.rewrite is not None:
            route.rewrite.apply(seen)
            steps.seen = f"{seen.method.decode()} {seen.authority.decode()}{seen.path.decode()}"
        self._share(chosen.backends, seen)
        self._keep(chosen)

    def _pass_over(
        self,
        specs: tuple[RouteSpec, ...],
        routes: tuple[Route[ClusterSpec], ...],
        taken: Route[ClusterSpec] | None,
        head: RequestHead,
    ) -> None:
        for spec, route in zip(specs, routes, strict=True):
            if route is taken:
                return
            why = "; ".join(_failing(spec.match, head)) or "not all conditions hold"
            self._steps.passed_over.append(PassedOver(route.name, described(spec.match), why))

    def _keep(self, route: RouteSpec) -> None:
        name = self._steps.virtual_host
        self._steps.part = Snapshot(
            virtual_hosts=tuple(
                msgspec.structs.replace(one, routes=(route,))
                for one in self._snapshot.virtual_hosts
                if one.name == name
            ),
            clusters=self._chosen(route.backends),
        )

    # Connections ----------------------------------------------------------------------------------

    def connect(self, authority: bytes) -> None:
        """Go the way of an opaque connection."""
        steps, inbound = self._steps, self._inbound()
        domains = {one.name: one.domains for one in self._snapshot.virtual_hosts}
        for spec in self._snapshot.tcp_routes:
            names = (*spec.domains, *domains.get(spec.name, ()))
            if spec.name in inbound or authority not in map(normalized, map(str.encode, names)):
                continue
            steps.tcp_route = spec.name
            rule = compile_tcp_route(spec, self._clusters).find(None)
            if rule is None:
                steps.result = "refused: every rule asks for a server name (TLS)"
                return
            chosen = next(one for one in spec.rules if one.name == rule.name)
            steps.route = Taken(rule.name, "every connection")
            self._share(chosen.backends, None)
            steps.part = Snapshot(clusters=self._chosen(chosen.backends))
            return
        self._nobody(f"HTTP, no opaque TCP: ask for http://{steps.authority}/")

    # Both -------------------------------------------------------------------------------------------

    def _inbound(self) -> set[str]:
        inbound = [one for one in _doors(self._snapshot) if one.direction == "inbound"]
        names = {name for one in inbound for name in (one.virtual_host, one.tcp_route)}
        return {name for name in names if name is not None}

    def _nobody(self, otherwise: str) -> None:
        """
        Tell that a name leads nowhere.

        Args:
            otherwise: What is said where it leads somewhere, but not for what was asked.
        """
        services = self._mesh.outline.services
        authority = self._steps.authority
        known = {
            normalized(domain.encode())
            for domains in (
                *(one.domains for one in self._snapshot.virtual_hosts),
                *(one.domains for one in self._snapshot.tcp_routes),
            )
            for domain in domains
        }
        if authority.encode() in known:
            self._steps.result = otherwise
            return
        port = authority.rpartition(":")[2]
        near = [name for name in services if name.rpartition(":")[2] == port] or list(services)
        listed = ", ".join(sorted(near)) or "none"
        self._steps.result = f"404 no-route: nobody is called so; there are {listed}"

    def _chosen(
        self, backends: tuple[BackendSpec, ...] | tuple[TcpBackendSpec, ...]
    ) -> tuple[ClusterSpec, ...]:
        names = dict.fromkeys(one.cluster for one in backends if one.weight and one.cluster)
        return tuple(self._clusters[name] for name in names)

    def _share(
        self,
        backends: tuple[BackendSpec, ...] | tuple[TcpBackendSpec, ...],
        head: RequestHead | None,
    ) -> None:
        total = sum(one.weight for one in backends)
        if not total:
            refused = "500 unresolved-backend" if head is not None else "refused"
            self._steps.result = f"{refused}: the route has nothing to forward to"
            return
        endpoints = {one.cluster: one.endpoints for one in self._snapshot.endpoints}
        decided: dict[Behind, Decision] = {}
        for one in backends:
            if not one.weight:
                continue
            servers = tuple(
                Server(endpoint, self._decided(endpoint, head, decided))
                for endpoint in endpoints.get(one.cluster or "", ())
            )
            share = percent(one.weight / total)
            self._steps.backends.append(BackendOf(one.cluster, share, servers))

    def _decided(
        self, endpoint: EndpointSpec, head: RequestHead | None, known: dict[Behind, Decision]
    ) -> Decision | None:
        if endpoint.workload not in self._mesh.outline.identities:
            return None
        snapshot = self._mesh.snapshot(endpoint.workload)
        port = _port(snapshot, endpoint.port)
        if port is None:
            return None
        at = Behind(endpoint.workload, port)
        if at not in known:
            asked = Asked(identity=self._identity, head=head, claims=self._claims)
            known[at] = decide(snapshot, at, asked)
        return known[at]


def _doors(snapshot: Snapshot) -> tuple[ListenerSpec | DestinationSpec, ...]:
    return (*snapshot.destinations, *snapshot.listeners)


def _port(snapshot: Snapshot, dialled: int) -> int | None:
    """Return which of the app's ports peers mean who dial `dialled`."""
    for door in _doors(snapshot):
        name, _, number = door.name.partition(":")
        if door.direction == "inbound" and name == "inbound" and door.port == dialled and number:
            return int(number)
    return None


def _failing(match: MatchSpec, head: RequestHead) -> Iterator[str]:
    """Yield the conditions of a match that do not hold, each asked by itself."""
    alone = [
        MatchSpec(path=match.path) if match.path else None,
        MatchSpec(method=match.method) if match.method else None,
        MatchSpec(grpc=True) if match.grpc else None,
        *(MatchSpec(headers=(one,)) for one in match.headers),
        *(MatchSpec(query=(one,)) for one in match.query),
    ]
    for condition in alone:
        if condition is not None and not Match(condition).holds(head):
            yield f"{described(condition)} does not hold"
