"""Where one workload's sidecar listens: for its app, and for the app's callers."""

from collections.abc import Collection, Iterable
from typing import Literal

from control_plane.placement import Placement
from control_plane.resources.app_protocol import agreed
from control_plane.resources.attachment import Services
from control_plane.resources.model import MeshConfig, Workload
from control_plane.resources.security import SecurityPolicy
from control_plane.resources.selection import in_front, mtls
from meshproxy.contract.resources import ListenerSpec, Protocol

from .called import Called

Mtls = Literal["strict", "permissive", "disabled"]
MTLS: dict[str, Mtls] = {
    "STRICT": "strict",
    "PERMISSIVE": "permissive",
    "DISABLED": "disabled",
}


def inbound_name(port: int) -> str:
    """Return the name that the listener, virtual host and cluster of a workload port share."""
    return f"inbound:{port}"


def inbound_protocol(port: int, workload: Workload, services: Services) -> Protocol:
    """
    Return what comes to one of the app's own ports, as the services in front of it say.

    Routes do not count: which of them decide is a matter of who calls.
    """
    return agreed(one for _, one in in_front(port, workload, services))


def listeners(
    workload: Workload,
    placement: Placement | None,
    mesh: MeshConfig,
    called: Iterable[Called],
    services: Services,
    security: Collection[SecurityPolicy] = (),
) -> tuple[ListenerSpec, ...]:
    """
    Return the sockets of the sidecar; a workload that was placed nowhere has none.

    A placement can be older than the services: a local port whose service is not among `called`
    is left out, since nothing would serve its requests.
    """
    if placement is None:
        return ()
    if placement.captured:
        return _captured(placement, workload, security, mesh)
    outbound = ListenerSpec(
        name="outbound",
        direction="outbound",
        address=placement.address,
        port=placement.outbound_port,
    )
    known = {one.name: one for one in called}
    doors = (
        ListenerSpec(
            name=f"service/{name}",
            direction="outbound",
            address=placement.address,
            port=port,
            protocol=known[name].decision.protocol,
            virtual_host=name if known[name].is_http else None,
            tcp_route=name if known[name].is_tcp else None,
        )
        for name, port in sorted(placement.service_ports.items())
        if name in known
    )
    inbound = (
        _inbound(port.port, workload, placement, mesh, services, security)
        for port in sorted(workload.spec.ports, key=lambda port: port.port)
        if port.port in placement.inbound_ports
    )
    return (outbound, *doors, *inbound)


def _captured(
    placement: Placement,
    workload: Workload,
    security: Collection[SecurityPolicy],
    mesh: MeshConfig,
) -> tuple[ListenerSpec, ...]:
    """
    Return the two places that connections are redirected to, in both families.

    The app's arrive over the loopback, so that nobody from outside can use the sidecar as if they
    were the app; those of its callers at any address.  An inbound port that nobody has declared
    has no policy that could be asked: under STRICT it is refused, otherwise passed on.
    """
    anything = mesh.spec.outbound_traffic_policy.mode == "ALLOW_ANY"
    six = placement.ipv6 is not None
    accepted = mtls(workload, None, security, mesh)
    outbound = (
        ListenerSpec(
            name=name,
            direction="outbound",
            address=address,
            port=placement.outbound_port,
            captured=True,
            unknown="pass" if anything else "refuse",
        )
        for name, address in (("outbound", "127.0.0.1"), ("outbound/ipv6", "::1"))[: 1 + six]
    )
    inbound = (
        ListenerSpec(
            name=name,
            direction="inbound",
            address=address,
            port=placement.inbound_port,
            mtls=MTLS[accepted],
            captured=True,
            unknown="refuse" if accepted == "STRICT" else "pass",
        )
        for name, address in (("inbound", "0.0.0.0"), ("inbound/ipv6", "::"))[: 1 + six]
    )
    return (*outbound, *inbound)


def _inbound(
    port: int,
    workload: Workload,
    placement: Placement,
    mesh: MeshConfig,
    services: Services,
    security: Collection[SecurityPolicy],
) -> ListenerSpec:
    name = inbound_name(port)
    protocol = inbound_protocol(port, workload, services)
    return ListenerSpec(
        name=name,
        direction="inbound",
        address=placement.address,
        port=placement.inbound_ports[port],
        protocol=protocol,
        virtual_host=None if protocol == "tcp" else name,
        tcp_route=None if protocol == "http" else name,
        mtls=MTLS[mtls(workload, port, security, mesh)],
    )
