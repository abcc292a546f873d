"""Where one workload's sidecar listens: for its app, and for the app's callers."""

from collections.abc import Container
from typing import Literal

from control_plane.placement import Placement
from control_plane.resources.model import MeshConfig, Workload
from meshproxy.contract.resources import ListenerSpec

Mtls = Literal["strict", "permissive", "disabled"]
_MTLS: dict[str, Mtls] = {
    "STRICT": "strict",
    "PERMISSIVE": "permissive",
    "DISABLED": "disabled",
}


def inbound_name(port: int) -> str:
    """Return the name that the listener, virtual host and cluster of a workload port share."""
    return f"inbound:{port}"


def listeners(
    workload: Workload, placement: Placement | None, mesh: MeshConfig, called: Container[str]
) -> tuple[ListenerSpec, ...]:
    """
    Return the sockets of the sidecar; a workload that was placed nowhere has none.

    A placement can be older than the services: a local port whose service is not among `called`
    is left out, since nothing would serve its requests.
    """
    if placement is None:
        return ()
    outbound = ListenerSpec(
        name="outbound",
        direction="outbound",
        address=placement.address,
        port=placement.outbound_port,
    )
    services = (
        ListenerSpec(
            name=f"service/{service}",
            direction="outbound",
            address=placement.address,
            port=port,
            virtual_host=service,
        )
        for service, port in sorted(placement.service_ports.items())
        if service in called
    )
    inbound = (
        ListenerSpec(
            name=inbound_name(port.port),
            direction="inbound",
            address=placement.address,
            port=placement.inbound_ports[port.port],
            virtual_host=inbound_name(port.port),
            mtls=_MTLS[mesh.spec.mtls],
        )
        for port in sorted(workload.spec.ports, key=lambda port: port.port)
        if port.port in placement.inbound_ports
    )
    return (outbound, *services, *inbound)
