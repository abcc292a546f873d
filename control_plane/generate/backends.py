"""
The backendRefs of a rule: which cluster each leads to.

A reference that does not resolve keeps its weight and has no cluster, so that its share is refused
and not given to the others.
"""

from control_plane.resources.attachment import Services
from control_plane.resources.gateway_api import (
    BackendRef,
    GRPCBackendRef,
    GRPCRoute,
    HTTPBackendRef,
    HTTPRoute,
    ObjectRef,
    Route,
    TCPRoute,
    TLSRoute,
)
from control_plane.resources.references import BACKEND_FILTERS, backend_problem
from meshproxy.contract.resources import BackendSpec, TcpBackendSpec

from .headers import request_headers, response_headers


def cluster_name(service: str, port: int) -> str:
    """Return the name that the virtual host, TCP route and cluster of a service port share."""
    return f"{service}:{port}"


def http_backend(
    ref: HTTPBackendRef | GRPCBackendRef, route: HTTPRoute | GRPCRoute, services: Services
) -> BackendSpec:
    """Return where requests for a backend go, and what is changed in them on the way."""
    cluster = cluster_of(ref, route, services)
    # "Implementations MUST NOT skip filters": a backend with one that we lack answers 500.
    if cluster is None or any(item.type not in BACKEND_FILTERS for item in ref.filters):
        return BackendSpec(cluster=None, weight=ref.weight)
    return BackendSpec(
        cluster=cluster,
        weight=ref.weight,
        request_headers=request_headers(ref.filters),
        response_headers=response_headers(ref.filters),
    )


def tcp_backend(ref: BackendRef, route: TCPRoute | TLSRoute, services: Services) -> TcpBackendSpec:
    """Return where connections for a backend go."""
    return TcpBackendSpec(cluster=cluster_of(ref, route, services), weight=ref.weight)


def cluster_of(ref: ObjectRef, route: Route, services: Services) -> str | None:
    """Return the cluster that a reference leads to; None where it does not resolve."""
    if backend_problem(ref, route, services) is not None:
        return None
    assert ref.port is not None
    return cluster_name(f"{ref.namespace or route.metadata.namespace}/{ref.name}", ref.port)
