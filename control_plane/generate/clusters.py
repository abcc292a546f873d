"""The sets of servers that a proxy's routes lead to, and how to speak with them."""

from collections.abc import Iterable

from control_plane.resources.model import MeshConfig, Workload
from meshproxy.contract.resources import ClusterSpec, VirtualHostSpec

from .listeners import inbound_name


def outbound(virtual_hosts: Iterable[VirtualHostSpec], mesh: MeshConfig) -> tuple[ClusterSpec, ...]:
    """Return the clusters that these virtual hosts lead to, and no other."""
    names = {
        backend.cluster
        for host in virtual_hosts
        for route in host.routes
        for backend in route.backends
        if backend.cluster is not None
    }
    return tuple(
        ClusterSpec(name=name, service=name.rpartition(":")[0], mtls=mesh.spec.mtls != "DISABLED")
        for name in sorted(names)
    )


def inbound(workload: Workload) -> tuple[ClusterSpec, ...]:
    """Return the app's own ports: plaintext, over the loopback."""
    metadata = workload.metadata
    return tuple(
        ClusterSpec(name=inbound_name(port.port), service=f"{metadata.namespace}/{metadata.name}")
        for port in sorted(workload.spec.ports, key=lambda port: port.port)
    )
