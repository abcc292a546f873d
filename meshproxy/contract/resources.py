"""
The specs: everything one proxy must know, as frozen structures.

A spec is data; what acts on it has the bare name (`RouteSpec` is compiled into `routing`'s
`Route`).  Durations are integers in milliseconds.  Names are unique within their kind.
"""

from typing import Annotated, Literal

from msgspec import Meta, structs

from .authentication import JwtSpec
from .authorization import AuthorizationSpec
from .matching import MatchSpec
from .policies import (
    CircuitBreakerSpec,
    FaultSpec,
    HealthCheckSpec,
    LimitsSpec,
    LoadBalancingSpec,
    MirrorSpec,
    OutlierSpec,
    RateLimitSpec,
    RetryBudgetSpec,
    RetrySpec,
    SessionPersistenceSpec,
    SheddingSpec,
)
from .spec import Milliseconds, Name, Port, Positive, Spec, Weight

# Where traffic comes in ---------------------------------------------------------------------------


Direction = Literal["inbound", "outbound"]
Protocol = Literal["detect", "http", "tcp"]
"""
What the clients of a port speak: `http` (HTTP/1.1 or HTTP/2 in plaintext), `tcp` (bytes that nobody
looks into, TLS of the app's own among them), or `detect`: the first bytes decide.
"""


Mtls = Literal["strict", "permissive", "disabled"]


class ListenerSpec(Spec, frozen=True, kw_only=True):
    """
    One listening socket.

    Attributes:
        direction: Relative to the local app: `outbound` listens to it, `inbound` to its callers.
        protocol: What clients speak, where somebody has said so (`appProtocol`).
        virtual_host: Name of the virtual host that serves every request of this listener, or
            None to choose by authority among all virtual hosts (the HTTP proxy form).
        tcp_route: Name of the route of connections that are not HTTP; None refuses them.
        mtls: Inbound only.  `strict` refuses plaintext, `permissive` tells both apart by the
            first byte, `disabled` accepts plaintext only.
        captured: Connections come here by redirection, not by address: where each was meant to go
            says the kernel (SO_ORIGINAL_DST), and among the destinations of this direction it is
            found what that is.  `protocol`, `virtual_host` and `tcp_route` above are not used then.
        unknown: Captured connections to what is no destination: `pass` them on to where they were
            meant to go, as they are, or `refuse` them.
    """

    name: Name
    direction: Direction
    address: Name
    port: Port
    protocol: Protocol = "detect"
    virtual_host: Name | None = None
    tcp_route: Name | None = None
    mtls: Mtls = "disabled"
    captured: bool = False
    unknown: Literal["pass", "refuse"] = "refuse"


class DestinationSpec(Spec, frozen=True, kw_only=True):
    """
    What captured connections to one port are: a service's for outbound, the app's for inbound.

    Attributes:
        addresses: IP addresses, IPv4 or IPv6, by which clients mean it; empty for any address.
        protocol: As in `ListenerSpec`, like the two after it.
        mtls: None for the listener's.
    """

    name: Name
    direction: Direction
    addresses: tuple[str, ...] = ()
    port: Port
    protocol: Protocol = "detect"
    virtual_host: Name | None = None
    tcp_route: Name | None = None
    mtls: Mtls | None = None


# Where a request goes -----------------------------------------------------------------------------


class HeaderSpec(Spec, frozen=True, kw_only=True):
    name: Name
    value: str


class HeaderModifierSpec(Spec, frozen=True, kw_only=True):
    """HTTPRoute filters RequestHeaderModifier and ResponseHeaderModifier, in this order."""

    set: tuple[HeaderSpec, ...] = ()
    add: tuple[HeaderSpec, ...] = ()
    remove: tuple[str, ...] = ()


class PathRewriteSpec(Spec, frozen=True, kw_only=True):
    """HTTPRoute `path` of URLRewrite and RequestRedirect; `prefix` replaces the matched prefix."""

    type: Literal["full", "prefix"]
    value: str


class RewriteSpec(Spec, frozen=True, kw_only=True):
    """HTTPRoute filter URLRewrite."""

    hostname: str | None = None
    path: PathRewriteSpec | None = None


class RedirectSpec(Spec, frozen=True, kw_only=True):
    """HTTPRoute filter RequestRedirect: answer with a Location instead of forwarding."""

    status: Literal[301, 302, 303, 307, 308] = 302
    scheme: Literal["http", "https"] | None = None
    hostname: str | None = None
    port: Port | None = None
    path: PathRewriteSpec | None = None


class BackendSpec(Spec, frozen=True, kw_only=True):
    """
    One of the places a route sends its requests to.

    Attributes:
        cluster: None when the reference did not resolve: its share of requests is answered 500.
        weight: Share relative to the sum of the weights; 0 means none.
    """

    cluster: Name | None
    weight: Weight = 1
    request_headers: HeaderModifierSpec | None = None
    response_headers: HeaderModifierSpec | None = None


class RouteSpec(Spec, frozen=True, kw_only=True):
    """
    One rule with one match.  Of a virtual host's routes the first that matches decides.

    Attributes:
        name: Where the rule comes from (``HTTPRoute/ns/name/rule``); a metric label, so several
            routes made from one rule share it.
        backends: With no redirect and nothing to forward to, the route answers 500.
        request_timeout: Milliseconds from the request's head to the end of the answer, all attempts
            together (HTTPRoute `timeouts.request`); 0 for no limit, None for the cluster's.
        backend_request_timeout: Milliseconds for one attempt, to the end of its answer
            (`backendRequest`).
        retry: None for the cluster's.
        session: Of this rule; None for the cluster's.
        faults: The first that means a request decides.
        rate_limits: All that mean a request are asked.
    """

    name: Name
    match: MatchSpec = MatchSpec()
    redirect: RedirectSpec | None = None
    rewrite: RewriteSpec | None = None
    request_headers: HeaderModifierSpec | None = None
    response_headers: HeaderModifierSpec | None = None
    backends: tuple[BackendSpec, ...] = ()
    request_timeout: Milliseconds | None = None
    backend_request_timeout: Milliseconds | None = None
    retry: RetrySpec | None = None
    session: SessionPersistenceSpec | None = None
    mirrors: tuple[MirrorSpec, ...] = ()
    faults: tuple[FaultSpec, ...] = ()
    rate_limits: tuple[RateLimitSpec, ...] = ()


class VirtualHostSpec(Spec, frozen=True, kw_only=True):
    """
    The routes of one service port (or one inbound port).

    Attributes:
        domains: Authorities it serves, in lower case and with port (``catalog.default:80``).
        rate_limits: Of all its routes.
        authorization: Inbound, as is the next: the policies that select the workload.
        jwt: Whose tokens are believed.
    """

    name: Name
    domains: tuple[str, ...] = ()
    routes: tuple[RouteSpec, ...] = ()
    rate_limits: tuple[RateLimitSpec, ...] = ()
    authorization: tuple[AuthorizationSpec, ...] = ()
    jwt: tuple[JwtSpec, ...] = ()


# Where a connection goes that is not HTTP -----------------------------------------------------------


class TcpBackendSpec(Spec, frozen=True, kw_only=True):
    """
    One of the places a rule sends its connections to.

    Attributes:
        cluster: None when the reference did not resolve: its share of connections is refused.
        weight: As in `BackendSpec`.
    """

    cluster: Name | None
    weight: Weight = 1


class TcpRuleSpec(Spec, frozen=True, kw_only=True):
    """
    Attributes:
        name: Where the rule comes from (``TLSRoute/ns/name/rule``); a metric label.
        server_names: The connection begins with a TLS ClientHello for one of these (SNI): in lower
            case, ``*.example.com`` for all below; empty takes every connection.
    """

    name: Name
    server_names: tuple[str, ...] = ()
    backends: tuple[TcpBackendSpec, ...] = ()


class TcpRouteSpec(Spec, frozen=True, kw_only=True):
    """
    Where opaque connections to one service port (or one inbound port) go.

    Of the rules, the one with the most specific server name decides (exact, then the longest
    wildcard, then those without names), among equals the first.

    Attributes:
        domains: Authorities by which an HTTP CONNECT asks for it, in lower case and with port; its
            virtual host's, if it has one, lead there as well.
    """

    name: Name
    domains: tuple[str, ...] = ()
    rules: tuple[TcpRuleSpec, ...] = ()
    authorization: tuple[AuthorizationSpec, ...] = ()


# Who answers --------------------------------------------------------------------------------------


class ClusterSpec(Spec, frozen=True, kw_only=True):
    """
    A named set of equal servers with its policies.

    Attributes:
        service: What its traffic is called in metrics (``namespace/service``).
        mtls: Endpoints are mesh peers: connect with our certificate, check theirs.
        protocol: What plain endpoints speak; `http2` with prior knowledge.  Between sidecars the TLS
            handshake settles it (HTTP/2, or HTTP/1.1 with one that does not know better).
        connect_timeout: Milliseconds for TCP and TLS together.
        idle_timeout: Milliseconds after which an unused connection is closed.
        max_connection_age: Milliseconds after which a connection takes no more requests; with jitter,
            so that not all are replaced at once.  None for no limit.
        request_timeout: Of routes that say nothing; 0 for no limit, like the next.
        backend_request_timeout: The same.
        stream_idle_timeout: Milliseconds in which nothing of a request or its answer moves.
        tunnel_idle_timeout: The same of what has switched protocols (WebSocket, CONNECT), and of
            opaque connections; 0 for no limit.
        max_stream_duration: Milliseconds for request and answer together, tunnels and opaque
            connections included; 0 for no limit.
        retry: Of routes that say nothing.
        limits: Of the whole cluster.
        endpoint_limits: Of each of its endpoints.
        breaker: None for none, like the next three.
        shedding: Inbound: of the app's port.
    """

    name: Name
    service: str = ""
    mtls: bool = False
    protocol: Literal["http1", "http2"] = "http1"
    connect_timeout: Annotated[int, Meta(ge=1)] = 5_000
    idle_timeout: Annotated[int, Meta(ge=1)] = 60_000
    max_connection_age: Positive | None = None
    request_timeout: Milliseconds = 0
    backend_request_timeout: Milliseconds = 0
    stream_idle_timeout: Milliseconds = 300_000
    tunnel_idle_timeout: Milliseconds = 0
    max_stream_duration: Milliseconds = 0
    retry: RetrySpec = RetrySpec()
    retry_budget: RetryBudgetSpec = RetryBudgetSpec()
    limits: LimitsSpec = LimitsSpec(connections=1024, pending=1024, requests=1024)
    endpoint_limits: LimitsSpec = LimitsSpec(connections=1024, pending=1024)
    breaker: CircuitBreakerSpec | None = None
    outliers: OutlierSpec | None = OutlierSpec()
    health_check: HealthCheckSpec | None = None
    balancing: LoadBalancingSpec = LoadBalancingSpec()
    session: SessionPersistenceSpec | None = None
    shedding: SheddingSpec | None = None


class EndpointSpec(Spec, frozen=True, kw_only=True):
    """
    One server of a cluster.

    Attributes:
        identities: SPIFFE IDs of which the server must prove one, when the cluster is mTLS.
        workload: ``namespace/name``, for metrics and diagnostics.
        version: The workload's ``version`` label, for metrics.
        zone: Where it runs, for diagnostics.
        priority: How near that is to this proxy: 0 for the same zone, then the same region, then
            the rest.
    """

    address: Name
    port: Port
    weight: Weight = 1
    zone: str = ""
    priority: Annotated[int, Meta(ge=0, le=127)] = 0
    identities: tuple[str, ...] = ()
    workload: str = ""
    version: str = ""


class EndpointsSpec(Spec, frozen=True, kw_only=True):
    """The servers of one cluster; apart from `ClusterSpec` because they change far more often."""

    cluster: Name
    endpoints: tuple[EndpointSpec, ...] = ()


# Whom to believe ----------------------------------------------------------------------------------


class TrustSpec(Spec, frozen=True, kw_only=True):
    """
    The trust bundle of one trust domain.

    Attributes:
        roots: PEM certificates.  Several can be active, so that a root rotates without an outage.
        revoked: SPIFFE IDs that are denied, whatever certificate they show.
        session_secret: 32 to 128 hexadecimal digits that all proxies of the mesh share and nobody
            else knows: by it they understand each other's tokens of persistent sessions.  Empty
            where there are no such sessions.
    """

    trust_domain: Name
    roots: tuple[str, ...]
    revoked: tuple[str, ...] = ()
    session_secret: str = ""


# All of it ----------------------------------------------------------------------------------------


class Snapshot(Spec, frozen=True, kw_only=True):
    """
    All that one proxy must know at one version; immutable.

    Attributes:
        version: Hash of the content, made by `wire.version_of`.
    """

    version: str = ""
    listeners: tuple[ListenerSpec, ...] = ()
    destinations: tuple[DestinationSpec, ...] = ()
    virtual_hosts: tuple[VirtualHostSpec, ...] = ()
    tcp_routes: tuple[TcpRouteSpec, ...] = ()
    clusters: tuple[ClusterSpec, ...] = ()
    endpoints: tuple[EndpointsSpec, ...] = ()
    trust: tuple[TrustSpec, ...] = ()


Kind = Literal[
    "listener", "destination", "virtual_host", "tcp_route", "cluster", "endpoints", "trust"
]
Resource = (
    ListenerSpec
    | DestinationSpec
    | VirtualHostSpec
    | TcpRouteSpec
    | ClusterSpec
    | EndpointsSpec
    | TrustSpec
)

KINDS: dict[Kind, type[Resource]] = {
    "trust": TrustSpec,
    "cluster": ClusterSpec,
    "endpoints": EndpointsSpec,
    "tcp_route": TcpRouteSpec,
    "virtual_host": VirtualHostSpec,
    "destination": DestinationSpec,
    "listener": ListenerSpec,
}
"""Every kind of resource, in make-before-break order: what is referred to comes first."""

SECTIONS: dict[Kind, str] = {
    "trust": "trust",
    "cluster": "clusters",
    "endpoints": "endpoints",
    "tcp_route": "tcp_routes",
    "virtual_host": "virtual_hosts",
    "destination": "destinations",
    "listener": "listeners",
}
"""Which attribute of `Snapshot` holds the resources of a kind."""


def without_secrets(snapshot: Snapshot) -> Snapshot:
    """Return a snapshot that people may look at."""
    trust = tuple(
        structs.replace(one, session_secret="hidden" if one.session_secret else "")
        for one in snapshot.trust
    )
    return structs.replace(snapshot, trust=trust)


def name_of(resource: Resource) -> str:
    """Return the name that is unique within the resource's kind."""
    if isinstance(resource, EndpointsSpec):
        return resource.cluster
    if isinstance(resource, TrustSpec):
        return resource.trust_domain
    return resource.name
