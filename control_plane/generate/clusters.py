"""The sets of servers that a proxy's routes lead to, and how to speak with them."""

from collections.abc import Iterable
from typing import Literal

from control_plane.resources.app_protocol import is_prior_knowledge
from control_plane.resources.attachment import Services
from control_plane.resources.model import GRPCRoute, MeshConfig, Route, ServicePort, Workload
from meshproxy.contract.resources import ClusterSpec, TcpRouteSpec, VirtualHostSpec

from .backends import cluster_name
from .listeners import inbound_name
from .selection import in_front

Protocol = Literal["http1", "http2"]


def outbound(
    virtual_hosts: Iterable[VirtualHostSpec],
    tcp_routes: Iterable[TcpRouteSpec],
    services: Services,
    routes: Iterable[Route],
    mesh: MeshConfig,
) -> tuple[ClusterSpec, ...]:
    """Return the clusters that these virtual hosts and routes lead to, and no other."""
    names = {
        backend.cluster
        for host in virtual_hosts
        for route in host.routes
        for backend in route.backends
    }
    names.update(
        backend.cluster for one in tcp_routes for rule in one.rules for backend in rule.backends
    )
    mtls = mesh.spec.mtls != "DISABLED"
    called_by_grpc = grpc_backends(routes)
    return tuple(
        ClusterSpec(
            name=name,
            service=name.rpartition(":")[0],
            mtls=mtls,
            # Between sidecars the handshake settles it.
            protocol="http1" if mtls else _protocol_of(name, services, called_by_grpc),
        )
        for name in sorted(name for name in names if name is not None)
    )


def inbound(
    workload: Workload, services: Services, routes: Iterable[Route]
) -> tuple[ClusterSpec, ...]:
    """Return the app's own ports: plaintext, over the loopback."""
    metadata = workload.metadata
    called_by_grpc = grpc_backends(routes)
    return tuple(
        ClusterSpec(
            name=inbound_name(port.port),
            service=f"{metadata.namespace}/{metadata.name}",
            protocol=_protocol_at(port.port, workload, services, called_by_grpc),
        )
        for port in sorted(workload.spec.ports, key=lambda port: port.port)
    )


def grpc_backends(routes: Iterable[Route]) -> set[str]:
    """
    Return the clusters that GRPCRoutes lead to.

    "If a Service appProtocol isn't specified, an implementation MAY infer the backend protocol
    through its own means.  Implementations MAY infer the protocol from the Route type referring to
    the backend Service."  gRPC is HTTP/2, so a backend of a GRPCRoute speaks it.
    """
    return {
        cluster_name(f"{ref.namespace or route.metadata.namespace}/{ref.name}", ref.port)
        for route in routes
        if isinstance(route, GRPCRoute)
        for rule in route.spec.rules
        for ref in rule.backend_refs
        if ref.port is not None
    }


def _protocol_of(cluster: str, services: Services, called_by_grpc: set[str]) -> Protocol:
    name, _, number = cluster.rpartition(":")
    ports = [(name, port) for port in services[name].spec.ports if port.port == int(number)]
    return _protocol(ports, called_by_grpc)


def _protocol_at(
    number: int, workload: Workload, services: Services, called_by_grpc: set[str]
) -> Protocol:
    """
    Return what the app speaks on one of its ports, as the services in front of it say.

    Of several that lead there, one that says HTTP/2 decides: others may say nothing.
    """
    return _protocol(in_front(number, workload, services), called_by_grpc)


def _protocol(ports: Iterable[tuple[str, ServicePort]], called_by_grpc: set[str]) -> Protocol:
    for name, port in ports:
        if is_prior_knowledge(port):
            return "http2"
        if port.app_protocol is None and cluster_name(name, port.port) in called_by_grpc:
            return "http2"
    return "http1"
