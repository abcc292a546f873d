"""The sets of servers that a proxy's routes lead to, and how to speak with them."""

from collections.abc import Collection, Iterable
from typing import Literal

from control_plane.resources.attachment import Services, age, grpc_backends, speaks_http2
from control_plane.resources.gateway_api import Route
from control_plane.resources.model import MeshConfig, Service, ServicePort, Workload
from control_plane.resources.policies import TrafficPolicySpec
from control_plane.resources.policy_attachment import Targeted, deciding
from control_plane.resources.selection import in_front
from meshproxy.contract.policies import LimitsSpec
from meshproxy.contract.resources import ClusterSpec, TcpRouteSpec, VirtualHostSpec

from .listeners import inbound_name
from .traffic_policy import at_callers, at_workloads

Protocol = Literal["http1", "http2"]


def outbound(
    virtual_hosts: Collection[VirtualHostSpec],
    tcp_routes: Iterable[TcpRouteSpec],
    services: Services,
    routes: Iterable[Route],
    mesh: MeshConfig,
    targeted: Targeted,
) -> tuple[ClusterSpec, ...]:
    """Return the clusters that these virtual hosts and routes lead to, and no other."""
    names = {
        backend.cluster
        for host in virtual_hosts
        for route in host.routes
        for backend in route.backends
    }
    names.update(
        mirror.cluster
        for host in virtual_hosts
        for route in host.routes
        for mirror in route.mirrors
    )
    names.update(
        backend.cluster for one in tcp_routes for rule in one.rules for backend in rule.backends
    )
    mtls = mesh.spec.mtls != "DISABLED"
    called_by_grpc = grpc_backends(routes)
    clusters: list[ClusterSpec] = []
    for name in sorted(name for name in names if name is not None):
        service, port = service_port(name, services)
        spoken = _protocol([(name.rpartition(":")[0], port)], called_by_grpc)
        cluster = ClusterSpec(
            name=name,
            service=name.rpartition(":")[0],
            mtls=mtls,
            protocol="http1" if mtls else spoken,  # between sidecars the handshake settles it
        )
        policy = deciding(service, port, targeted)
        if policy is not None:
            cluster = at_callers(cluster, policy.spec, spoken)
        clusters.append(cluster)
    return tuple(clusters)


def inbound(
    workload: Workload, services: Services, routes: Iterable[Route], targeted: Targeted
) -> tuple[ClusterSpec, ...]:
    """
    Return the app's own ports: plaintext, over the loopback.

    There is one endpoint, which nothing can stand in for: it is never ejected.  How much may go on
    at once, each caller limits for itself, and load shedding for all of them together.
    """
    metadata = workload.metadata
    called_by_grpc = grpc_backends(routes)
    return tuple(
        at_workloads(
            ClusterSpec(
                name=inbound_name(port.port),
                service=f"{metadata.namespace}/{metadata.name}",
                protocol=_protocol_at(port.port, workload, services, called_by_grpc),
                limits=LimitsSpec(),
                endpoint_limits=LimitsSpec(),
                outliers=None,
            ),
            _policies_at(port.port, workload, services, targeted),
        )
        for port in sorted(workload.spec.ports, key=lambda port: port.port)
    )


def service_port(cluster: str, services: Services) -> tuple[Service, ServicePort]:
    """Return what a cluster is named after."""
    name, _, number = cluster.rpartition(":")
    service = services[name]
    return service, next(port for port in service.spec.ports if port.port == int(number))


def _policies_at(
    number: int, workload: Workload, services: Services, targeted: Targeted
) -> list[TrafficPolicySpec]:
    """Return what holds for the service ports in front of an app's port, the oldest first."""
    found = {
        policy.metadata.name: policy
        for name, port in in_front(number, workload, services)
        if (policy := deciding(services[name], port, targeted)) is not None
    }
    return [policy.spec for policy in sorted(found.values(), key=age)]


def _protocol_at(
    number: int, workload: Workload, services: Services, called_by_grpc: set[tuple[str, int]]
) -> Protocol:
    """
    Return what the app speaks on one of its ports, as the services in front of it say.

    Of several that lead there, one that says HTTP/2 decides: others may say nothing.
    """
    return _protocol(in_front(number, workload, services), called_by_grpc)


def _protocol(
    ports: Iterable[tuple[str, ServicePort]], called_by_grpc: set[tuple[str, int]]
) -> Protocol:
    http2 = any(speaks_http2(name, port, called_by_grpc) for name, port in ports)
    return "http2" if http2 else "http1"
