"""
The routes of the Gateway API (v1.6), as frozen structures with the names and meanings of their YAML.

Nothing in this file checks more than types: `parse` reads, `http_route` and its like judge.
"""

from typing import Annotated, Literal

from msgspec import Meta

from .fields import (
    Attempts,
    Duration,
    Metadata,
    Model,
    Percent,
    Port,
    RetryCode,
    SessionPersistence,
    Weight,
)

# What routes share (gateway.networking.k8s.io) ----------------------------------------------------


class ParentRef(Model, frozen=True, kw_only=True):
    group: str = "gateway.networking.k8s.io"
    kind: str = "Gateway"
    namespace: str | None = None
    name: str
    section_name: str | None = None
    port: Port | None = None


class Rule(Model, frozen=True, kw_only=True):
    """`name` is unique in the route: where it is given, metrics say it instead of the number."""

    name: str | None = None


class ObjectRef(Model, frozen=True, kw_only=True):
    """BackendObjectReference: a port of a Service."""

    group: str = ""
    kind: str = "Service"
    namespace: str | None = None
    name: str
    port: Port | None = None


class BackendRef(ObjectRef, frozen=True, kw_only=True):
    """One of several: `weight` is its share of the sum of the weights."""

    weight: Weight = 1


class ValueMatch(Model, frozen=True, kw_only=True):
    type: Literal["Exact", "RegularExpression"] = "Exact"
    name: str
    value: str


class RouteTimeouts(Model, frozen=True, kw_only=True):
    """HTTPRouteTimeouts; ``0s`` for no limit."""

    request: Duration | None = None
    backend_request: Duration | None = None


class Fraction(Model, frozen=True, kw_only=True):
    numerator: Annotated[int, Meta(ge=0)]
    denominator: Annotated[int, Meta(ge=1)] = 100


class RequestMirrorFilter(Model, frozen=True, kw_only=True):
    """`percent` or `fraction` of the requests, all of them without either."""

    backend_ref: ObjectRef
    percent: Percent | None = None
    fraction: Fraction | None = None


class LocalObjectRef(Model, frozen=True, kw_only=True):
    """A resource in the route's own namespace."""

    group: str
    kind: str
    name: str


# HTTPRoute (gateway.networking.k8s.io/v1) ---------------------------------------------------------


class HTTPPathMatch(Model, frozen=True, kw_only=True):
    type: Literal["Exact", "PathPrefix", "RegularExpression"] = "PathPrefix"
    value: str = "/"


class HTTPHeaderMatch(ValueMatch, frozen=True, kw_only=True):
    """`name` regardless of case."""


class HTTPQueryParamMatch(ValueMatch, frozen=True, kw_only=True):
    """`name` as it is written."""


Method = Literal[
    "GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH"
]  # fmt: skip


class HTTPRouteMatch(Model, frozen=True, kw_only=True):
    path: HTTPPathMatch = HTTPPathMatch()
    headers: tuple[HTTPHeaderMatch, ...] = ()
    query_params: tuple[HTTPQueryParamMatch, ...] = ()
    method: Method | None = None


class HTTPHeader(Model, frozen=True, kw_only=True):
    name: str
    value: str


class HTTPHeaderFilter(Model, frozen=True, kw_only=True):
    set: tuple[HTTPHeader, ...] = ()
    add: tuple[HTTPHeader, ...] = ()
    remove: tuple[str, ...] = ()


class HTTPPathModifier(Model, frozen=True, kw_only=True):
    type: Literal["ReplaceFullPath", "ReplacePrefixMatch"]
    replace_full_path: str | None = None
    replace_prefix_match: str | None = None


class HTTPRequestRedirectFilter(Model, frozen=True, kw_only=True):
    scheme: Literal["http", "https"] | None = None
    hostname: str | None = None
    path: HTTPPathModifier | None = None
    port: Port | None = None
    status_code: Literal[301, 302, 303, 307, 308] = 302


class HTTPURLRewriteFilter(Model, frozen=True, kw_only=True):
    hostname: str | None = None
    path: HTTPPathModifier | None = None


class HTTPRouteFilter(Model, frozen=True, kw_only=True):
    type: Literal[
        "RequestHeaderModifier",
        "ResponseHeaderModifier",
        "RequestMirror",
        "RequestRedirect",
        "URLRewrite",
        "ExtensionRef",
    ]
    request_header_modifier: HTTPHeaderFilter | None = None
    response_header_modifier: HTTPHeaderFilter | None = None
    request_mirror: RequestMirrorFilter | None = None
    request_redirect: HTTPRequestRedirectFilter | None = None
    url_rewrite: HTTPURLRewriteFilter | None = None
    extension_ref: LocalObjectRef | None = None


class HTTPBackendRef(BackendRef, frozen=True, kw_only=True):
    filters: tuple[HTTPRouteFilter, ...] = ()


class HTTPRouteRetry(Model, frozen=True, kw_only=True):
    """
    GEP-1731.

    Attributes:
        attempts: "The maximum number of times an individual request … should be retried in addition
            to the initial request"; 0 for never.
    """

    codes: tuple[RetryCode, ...] = ()
    attempts: Attempts = 2
    backoff: Duration = "25ms"


class HTTPRouteRule(Rule, frozen=True, kw_only=True):
    matches: tuple[HTTPRouteMatch, ...] = (HTTPRouteMatch(),)
    filters: tuple[HTTPRouteFilter, ...] = ()
    backend_refs: tuple[HTTPBackendRef, ...] = ()
    timeouts: RouteTimeouts | None = None
    retry: HTTPRouteRetry | None = None
    session_persistence: SessionPersistence | None = None


class HTTPRouteSpec(Model, frozen=True, kw_only=True):
    parent_refs: tuple[ParentRef, ...] = ()
    hostnames: tuple[str, ...] = ()
    rules: tuple[HTTPRouteRule, ...] = (HTTPRouteRule(),)


class HTTPRoute(Model, frozen=True, kw_only=True):
    api_version: Literal["gateway.networking.k8s.io/v1"]
    kind: Literal["HTTPRoute"]
    metadata: Metadata
    spec: HTTPRouteSpec


# GRPCRoute (gateway.networking.k8s.io/v1) ---------------------------------------------------------


class GRPCMethodMatch(Model, frozen=True, kw_only=True):
    """At least one of `service` and `method` is given."""

    type: Literal["Exact", "RegularExpression"] = "Exact"
    service: str = ""
    method: str = ""


class GRPCHeaderMatch(ValueMatch, frozen=True, kw_only=True):
    """A condition on metadata."""


class GRPCRouteMatch(Model, frozen=True, kw_only=True):
    method: GRPCMethodMatch | None = None
    headers: tuple[GRPCHeaderMatch, ...] = ()


class GRPCRouteFilter(Model, frozen=True, kw_only=True):
    type: Literal[
        "RequestHeaderModifier", "ResponseHeaderModifier", "RequestMirror", "ExtensionRef"
    ]
    request_header_modifier: HTTPHeaderFilter | None = None
    response_header_modifier: HTTPHeaderFilter | None = None
    request_mirror: RequestMirrorFilter | None = None
    extension_ref: LocalObjectRef | None = None


class GRPCBackendRef(BackendRef, frozen=True, kw_only=True):
    filters: tuple[GRPCRouteFilter, ...] = ()


class GRPCRouteRule(Rule, frozen=True, kw_only=True):
    """`timeouts` are ours: the Gateway API has them for HTTPRoutes alone."""

    matches: tuple[GRPCRouteMatch, ...] = ()
    filters: tuple[GRPCRouteFilter, ...] = ()
    backend_refs: tuple[GRPCBackendRef, ...] = ()
    timeouts: RouteTimeouts | None = None
    session_persistence: SessionPersistence | None = None


class GRPCRouteSpec(Model, frozen=True, kw_only=True):
    parent_refs: tuple[ParentRef, ...] = ()
    hostnames: tuple[str, ...] = ()
    rules: tuple[GRPCRouteRule, ...] = ()


class GRPCRoute(Model, frozen=True, kw_only=True):
    api_version: Literal["gateway.networking.k8s.io/v1"]
    kind: Literal["GRPCRoute"]
    metadata: Metadata
    spec: GRPCRouteSpec


# TLSRoute and TCPRoute (gateway.networking.k8s.io/v1, and before v1.6 alpha) ----------------------


class ConnectionRule(Rule, frozen=True, kw_only=True):
    """TLSRouteRule and TCPRouteRule: nothing to match, so there is one in a route."""

    backend_refs: tuple[BackendRef, ...] = ()


class TLSRouteSpec(Model, frozen=True, kw_only=True):
    """`hostnames` are compared with the SNI of the ClientHello."""

    parent_refs: tuple[ParentRef, ...] = ()
    hostnames: tuple[str, ...] = ()
    rules: tuple[ConnectionRule, ...] = ()


class TLSRoute(Model, frozen=True, kw_only=True):
    api_version: Literal[
        "gateway.networking.k8s.io/v1",
        "gateway.networking.k8s.io/v1alpha2",
        "gateway.networking.k8s.io/v1alpha3",
    ]
    kind: Literal["TLSRoute"]
    metadata: Metadata
    spec: TLSRouteSpec


class TCPRouteSpec(Model, frozen=True, kw_only=True):
    parent_refs: tuple[ParentRef, ...] = ()
    rules: tuple[ConnectionRule, ...] = ()


class TCPRoute(Model, frozen=True, kw_only=True):
    api_version: Literal["gateway.networking.k8s.io/v1", "gateway.networking.k8s.io/v1alpha2"]
    kind: Literal["TCPRoute"]
    metadata: Metadata
    spec: TCPRouteSpec


Route = GRPCRoute | HTTPRoute | TLSRoute | TCPRoute
AnyBackendRef = HTTPBackendRef | GRPCBackendRef | BackendRef
