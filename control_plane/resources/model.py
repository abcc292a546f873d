"""
The resources, as frozen structures with the names and meanings of their YAML.

Routes are the Gateway API's (`gateway_api`), `Service` is Kubernetes' own; the group
`meshproxy.io/v1alpha1` is ours: what is here, and the `policies`.  Fields are camelCase in YAML and
snake_case here.  Nothing in these files checks more than types: `parse` reads, `validate` judges.
"""

from typing import Literal

from msgspec import field

from .fields import Metadata, Model, Period, Port, Weight
from .gateway_api import GRPCRoute, HTTPRoute, Route, TCPRoute, TLSRoute
from .policies import FaultInjection, Policy, RateLimitPolicy, TrafficPolicy
from .security import (
    AuthorizationPolicy,
    PeerAuthentication,
    RequestAuthentication,
    SecurityPolicy,
)

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


# MeshConfig (meshproxy.io/v1alpha1) ---------------------------------------------------------------


class Certificates(Model, frozen=True, kw_only=True):
    """How long SVIDs live; at least 60 s."""

    lifetime: Period = "24h"


class OutboundTrafficPolicy(Model, frozen=True, kw_only=True):
    """What becomes of captured connections to what is no service of the mesh."""

    mode: Literal["ALLOW_ANY", "REGISTRY_ONLY"] = "ALLOW_ANY"


class KeySets(Model, frozen=True, kw_only=True):
    """
    Where the control plane may have the keys of issuers from.

    Attributes:
        allowed_hosts: ``id.example`` or ``id.example:8443``.  Who may write a RequestAuthentication
            could else make the control plane ask anybody for anything (CVE-2026-41413).
        allowed_folders: Where a `jwksFile` may be, besides the folders of the configuration.
        refresh: Between two fetches of one address.
    """

    allowed_hosts: tuple[str, ...] = ()
    allowed_folders: tuple[str, ...] = ()
    refresh: Period = "5m"


class MeshConfigSpec(Model, frozen=True, kw_only=True):
    """
    Attributes:
        trust_domain: First part of every SPIFFE ID; fixed once the authority exists.
        mtls: What inbound ports accept.  STRICT refuses plaintext.
        outbound_traffic_policy: ALLOW_ANY passes captured connections to unknown destinations on
            as they are, REGISTRY_ONLY refuses them (names and default are Istio's).
        jwks: For `jwksUri` and `jwksFile` of RequestAuthentications.
    """

    trust_domain: str = "mesh.local"
    certificates: Certificates = Certificates()
    mtls: Literal["STRICT", "PERMISSIVE", "DISABLED"] = "STRICT"
    outbound_traffic_policy: OutboundTrafficPolicy = OutboundTrafficPolicy()
    jwks: KeySets = KeySets()


class MeshConfig(Model, frozen=True, kw_only=True):
    """At most one in a mesh; without one, the defaults hold."""

    api_version: Literal["meshproxy.io/v1alpha1"]
    kind: Literal["MeshConfig"]
    metadata: Metadata
    spec: MeshConfigSpec = MeshConfigSpec()


DEFAULT_MESH = MeshConfig(
    api_version="meshproxy.io/v1alpha1", kind="MeshConfig", metadata=Metadata(name="default")
)
"""What holds where nobody wrote one."""


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
        weight: Its share beside the other workloads of a service (as Istio's WorkloadEntry); 0
            means none.
    """

    service_account: str | None = None
    ports: tuple[WorkloadPort, ...] = ()
    run: WorkloadRun | None = None
    weight: Weight = 1


class Workload(Model, frozen=True, kw_only=True):
    """A process or VM with an identity; what a Pod is in a cluster."""

    api_version: Literal["meshproxy.io/v1alpha1"]
    kind: Literal["Workload"]
    metadata: Metadata
    spec: WorkloadSpec = WorkloadSpec()


Resource = Service | Route | MeshConfig | Workload | Policy | SecurityPolicy

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
    ("meshproxy.io/v1alpha1", "TrafficPolicy"): TrafficPolicy,
    ("meshproxy.io/v1alpha1", "RateLimitPolicy"): RateLimitPolicy,
    ("meshproxy.io/v1alpha1", "FaultInjection"): FaultInjection,
    ("meshproxy.io/v1alpha1", "PeerAuthentication"): PeerAuthentication,
    ("meshproxy.io/v1alpha1", "AuthorizationPolicy"): AuthorizationPolicy,
    ("meshproxy.io/v1alpha1", "RequestAuthentication"): RequestAuthentication,
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
