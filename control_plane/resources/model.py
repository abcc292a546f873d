"""
The resources, as frozen structures with the names and meanings of their YAML.

Gateway API kinds follow v1.6 (gateway.networking.k8s.io/v1), `Service` is Kubernetes' own; the
group `meshproxy.io/v1alpha1` is ours.  Fields are camelCase in YAML and snake_case here.
Nothing in this file checks more than types: `parse` reads, `validate` judges.
"""

from typing import Annotated, Literal

from msgspec import Meta, Struct, field

Port = Annotated[int, Meta(ge=1, le=65535)]
Weight = Annotated[int, Meta(ge=0, le=1_000_000)]
Duration = str
"""GEP-2257: ``1h30m``, ``10s``, ``250ms``; `validate` reads it."""


class Model(Struct, frozen=True, forbid_unknown_fields=True, rename="camel", kw_only=True):
    """Base of everything below."""


# Common -------------------------------------------------------------------------------------------


class Metadata(Model, frozen=True, kw_only=True):
    name: str
    namespace: str = "default"
    labels: dict[str, str] = {}
    annotations: dict[str, str] = {}
    creation_timestamp: str | None = None
    uid: str | None = None
    resource_version: str | None = None
    generation: int | None = None


# Service (v1) -------------------------------------------------------------------------------------


class ServicePort(Model, frozen=True, kw_only=True):
    """`target_port` is a number, or the name of a workload's port; `port` when left out."""

    port: Port
    name: str | None = None
    target_port: int | str | None = None
    protocol: Literal["TCP"] = "TCP"
    app_protocol: str | None = None


class ServiceSpec(Model, frozen=True, kw_only=True):
    ports: tuple[ServicePort, ...]
    selector: dict[str, str] = {}
    type: Literal["ClusterIP", "NodePort", "LoadBalancer"] = "ClusterIP"
    """Inside the mesh all three are the same: every type but ExternalName has a cluster IP."""
    cluster_ip: str | None = field(name="clusterIP", default=None)
    session_affinity: Literal["None"] = "None"


class Service(Model, frozen=True, kw_only=True):
    api_version: Literal["v1"]
    kind: Literal["Service"]
    metadata: Metadata
    spec: ServiceSpec


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


# HTTPRoute (gateway.networking.k8s.io/v1) ---------------------------------------------------------


class HTTPPathMatch(Model, frozen=True, kw_only=True):
    type: Literal["Exact", "PathPrefix", "RegularExpression"] = "PathPrefix"
    value: str = "/"


class HTTPHeaderMatch(Model, frozen=True, kw_only=True):
    type: Literal["Exact", "RegularExpression"] = "Exact"
    name: str
    value: str


class HTTPQueryParamMatch(Model, frozen=True, kw_only=True):
    type: Literal["Exact", "RegularExpression"] = "Exact"
    name: str
    value: str


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
        "RequestHeaderModifier", "ResponseHeaderModifier", "RequestRedirect", "URLRewrite"
    ]
    request_header_modifier: HTTPHeaderFilter | None = None
    response_header_modifier: HTTPHeaderFilter | None = None
    request_redirect: HTTPRequestRedirectFilter | None = None
    url_rewrite: HTTPURLRewriteFilter | None = None


class HTTPBackendRef(Model, frozen=True, kw_only=True):
    group: str = ""
    kind: str = "Service"
    namespace: str | None = None
    name: str
    port: Port | None = None
    weight: Weight = 1
    filters: tuple[HTTPRouteFilter, ...] = ()


class HTTPRouteRule(Rule, frozen=True, kw_only=True):
    matches: tuple[HTTPRouteMatch, ...] = (HTTPRouteMatch(),)
    filters: tuple[HTTPRouteFilter, ...] = ()
    backend_refs: tuple[HTTPBackendRef, ...] = ()


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


class GRPCHeaderMatch(Model, frozen=True, kw_only=True):
    type: Literal["Exact", "RegularExpression"] = "Exact"
    name: str
    value: str


class GRPCRouteMatch(Model, frozen=True, kw_only=True):
    method: GRPCMethodMatch | None = None
    headers: tuple[GRPCHeaderMatch, ...] = ()


class GRPCRouteFilter(Model, frozen=True, kw_only=True):
    type: Literal["RequestHeaderModifier", "ResponseHeaderModifier"]
    request_header_modifier: HTTPHeaderFilter | None = None
    response_header_modifier: HTTPHeaderFilter | None = None


class GRPCBackendRef(Model, frozen=True, kw_only=True):
    group: str = ""
    kind: str = "Service"
    namespace: str | None = None
    name: str
    port: Port | None = None
    weight: Weight = 1
    filters: tuple[GRPCRouteFilter, ...] = ()


class GRPCRouteRule(Rule, frozen=True, kw_only=True):
    matches: tuple[GRPCRouteMatch, ...] = ()
    filters: tuple[GRPCRouteFilter, ...] = ()
    backend_refs: tuple[GRPCBackendRef, ...] = ()


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


class BackendRef(Model, frozen=True, kw_only=True):
    group: str = ""
    kind: str = "Service"
    namespace: str | None = None
    name: str
    port: Port | None = None
    weight: Weight = 1


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


# MeshConfig (meshproxy.io/v1alpha1) ---------------------------------------------------------------


class Certificates(Model, frozen=True, kw_only=True):
    """How long SVIDs live; at least 60 s."""

    lifetime: Duration = "24h"


class OutboundTrafficPolicy(Model, frozen=True, kw_only=True):
    """What becomes of captured connections to what is no service of the mesh."""

    mode: Literal["ALLOW_ANY", "REGISTRY_ONLY"] = "ALLOW_ANY"


class MeshConfigSpec(Model, frozen=True, kw_only=True):
    """
    Attributes:
        trust_domain: First part of every SPIFFE ID; fixed once the authority exists.
        mtls: What inbound ports accept.  STRICT refuses plaintext.
        outbound_traffic_policy: ALLOW_ANY passes captured connections to unknown destinations on
            as they are, REGISTRY_ONLY refuses them (names and default are Istio's).
    """

    trust_domain: str = "mesh.local"
    certificates: Certificates = Certificates()
    mtls: Literal["STRICT", "PERMISSIVE", "DISABLED"] = "STRICT"
    outbound_traffic_policy: OutboundTrafficPolicy = OutboundTrafficPolicy()


class MeshConfig(Model, frozen=True, kw_only=True):
    """At most one in a mesh; without one, the defaults hold."""

    api_version: Literal["meshproxy.io/v1alpha1"]
    kind: Literal["MeshConfig"]
    metadata: Metadata
    spec: MeshConfigSpec = MeshConfigSpec()


# Workload (meshproxy.io/v1alpha1) -----------------------------------------------------------------


class WorkloadPort(Model, frozen=True, kw_only=True):
    port: Port
    name: str | None = None


class WorkloadRun(Model, frozen=True, kw_only=True):
    """
    How `meshctl up` starts the app.

    Attributes:
        command: Program and arguments, without a shell; ``$(NAME)`` stands for a variable of
            the environment, as in a Pod.
        env: Added to the environment that `meshctl up` hands over.
        directory: Working directory, relative to the file that declares the workload.
    """

    command: tuple[str, ...]
    env: dict[str, str] = {}
    directory: str = "."


class WorkloadSpec(Model, frozen=True, kw_only=True):
    """
    Attributes:
        service_account: Last part of the SPIFFE ID; the workload's name when left out.
        run: None when the app is started by somebody else, or there is only a sidecar.
    """

    service_account: str | None = None
    ports: tuple[WorkloadPort, ...] = ()
    run: WorkloadRun | None = None


class Workload(Model, frozen=True, kw_only=True):
    """A process or VM with an identity; what a Pod is in a cluster."""

    api_version: Literal["meshproxy.io/v1alpha1"]
    kind: Literal["Workload"]
    metadata: Metadata
    spec: WorkloadSpec = WorkloadSpec()


Resource = Service | Route | MeshConfig | Workload

KINDS: dict[tuple[str, str], type[Resource]] = {
    ("v1", "Service"): Service,
    ("gateway.networking.k8s.io/v1", "HTTPRoute"): HTTPRoute,
    ("gateway.networking.k8s.io/v1", "GRPCRoute"): GRPCRoute,
    ("gateway.networking.k8s.io/v1", "TLSRoute"): TLSRoute,
    ("gateway.networking.k8s.io/v1alpha2", "TLSRoute"): TLSRoute,
    ("gateway.networking.k8s.io/v1alpha3", "TLSRoute"): TLSRoute,
    ("gateway.networking.k8s.io/v1", "TCPRoute"): TCPRoute,
    ("gateway.networking.k8s.io/v1alpha2", "TCPRoute"): TCPRoute,
    ("meshproxy.io/v1alpha1", "MeshConfig"): MeshConfig,
    ("meshproxy.io/v1alpha1", "Workload"): Workload,
}
"""
(apiVersion, kind) → model; what is not here is an unknown kind.

Of a kind with several versions, those that Gateway API v1.6 serves in its two channels; they have
the same fields, and the first is the one to write.
"""

IGNORED: dict[type, frozenset[str]] = {
    **{model: frozenset({"status"}) for model in KINDS.values()},
    Metadata: frozenset(
        {
            "deletionGracePeriodSeconds",
            "deletionTimestamp",
            "finalizers",
            "generateName",
            "managedFields",
            "ownerReferences",
            "selfLink",
        }
    ),
    ServicePort: frozenset({"nodePort"}),
    ServiceSpec: frozenset(
        {
            "allocateLoadBalancerNodePorts",
            "clusterIPs",
            "externalTrafficPolicy",
            "internalTrafficPolicy",
            "ipFamilies",
            "ipFamilyPolicy",
            "publishNotReadyAddresses",
        }
    ),
}
"""
What a cluster writes into its objects and no proxy needs: read over, so that the output of
``kubectl get -o yaml`` can be used as it is.
"""
