"""The sets of servers that a proxy's routes lead to, and how to speak with them."""

from collections.abc import Iterable, Mapping
from typing import Literal

from control_plane.resources.model import MeshConfig, Service, ServicePort, Workload
from meshproxy.contract.resources import ClusterSpec, VirtualHostSpec

from .endpoints import selects, target
from .listeners import inbound_name

Protocol = Literal["http1", "http2"]

PRIOR_KNOWLEDGE = frozenset({"kubernetes.io/h2c", "h2c", "http2", "grpc"})
"""
Values of a Service port's `appProtocol` that mean HTTP/2 in plaintext.

The first is Kubernetes' own (GEP-1911); the others are what Istio's users write.
"""


def outbound(
    virtual_hosts: Iterable[VirtualHostSpec], services: Mapping[str, Service], mesh: MeshConfig
) -> tuple[ClusterSpec, ...]:
    """Return the clusters that these virtual hosts lead to, and no other."""
    names = {
        backend.cluster
        for host in virtual_hosts
        for route in host.routes
        for backend in route.backends
        if backend.cluster is not None
    }
    mtls = mesh.spec.mtls != "DISABLED"
    return tuple(
        ClusterSpec(
            name=name,
            service=name.rpartition(":")[0],
            mtls=mtls,
            # Between sidecars the handshake settles it.
            protocol="http1" if mtls else _protocol_of(name, services),
        )
        for name in sorted(names)
    )


def inbound(workload: Workload, services: Iterable[Service]) -> tuple[ClusterSpec, ...]:
    """Return the app's own ports: plaintext, over the loopback."""
    metadata = workload.metadata
    chosen_by = [service for service in services if selects(service, workload)]
    return tuple(
        ClusterSpec(
            name=inbound_name(port.port),
            service=f"{metadata.namespace}/{metadata.name}",
            protocol=_protocol_at(port.port, workload, chosen_by),
        )
        for port in sorted(workload.spec.ports, key=lambda port: port.port)
    )


def _protocol_of(cluster: str, services: Mapping[str, Service]) -> Protocol:
    name, _, number = cluster.rpartition(":")
    ports = [port for port in services[name].spec.ports if port.port == int(number)]
    return _protocol(ports)


def _protocol_at(number: int, workload: Workload, services: Iterable[Service]) -> Protocol:
    """
    Return what the app speaks on one of its ports, as the services in front of it say.

    Of several that lead there, one that says HTTP/2 decides: others may say nothing.
    """
    return _protocol(
        port
        for service in services
        for port in service.spec.ports
        if target(port, workload) == number
    )


def _protocol(ports: Iterable[ServicePort]) -> Protocol:
    return "http2" if any(port.app_protocol in PRIOR_KNOWLEDGE for port in ports) else "http1"
