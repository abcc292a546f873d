"""
What the connections of a captured workload are meant for: services and neighbours by address, for
outbound; the app's own ports, for inbound.

The port of a service at its virtual addresses leads to the service, with its routes.  The port of
a workload at its own addresses leads to that workload alone, whatever routes say: who calls one
instance (a peer of a cluster, found by a headless service) means this one.
"""

from collections.abc import Collection, Iterable, Mapping
from typing import NamedTuple

from control_plane.placement import Placements
from control_plane.resources.attachment import Services
from control_plane.resources.model import DEFAULT_MESH, MeshConfig, Workload
from control_plane.resources.security import SecurityPolicy
from control_plane.resources.selection import mtls
from meshproxy.contract.matching import MatchSpec
from meshproxy.contract.resources import (
    BackendSpec,
    ClusterSpec,
    DestinationSpec,
    EndpointsSpec,
    RouteSpec,
    TcpBackendSpec,
    TcpRouteSpec,
    TcpRuleSpec,
    VirtualHostSpec,
)

from .called import Called
from .endpoints import endpoint
from .listeners import MTLS, inbound_name, inbound_protocol


def services(called: Iterable[Called], placements: Placements) -> tuple[DestinationSpec, ...]:
    """Return the service ports that have virtual addresses."""
    return tuple(
        DestinationSpec(
            name=one.name,
            direction="outbound",
            addresses=addresses,
            port=one.port.port,
            protocol=one.decision.protocol,
            virtual_host=one.name if one.is_http else None,
            tcp_route=one.name if one.is_tcp else None,
        )
        for one in called
        if (addresses := placements.service_addresses.get(one.service))
    )


def inbound(
    workload: Workload,
    services: Services,
    security: Collection[SecurityPolicy] = (),
    mesh: MeshConfig = DEFAULT_MESH,
) -> tuple[DestinationSpec, ...]:
    """Return the app's own ports, whatever address they are called by."""
    made: list[DestinationSpec] = []
    for port in sorted(workload.spec.ports, key=lambda port: port.port):
        name, protocol = inbound_name(port.port), inbound_protocol(port.port, workload, services)
        made.append(
            DestinationSpec(
                name=name,
                direction="inbound",
                port=port.port,
                protocol=protocol,
                virtual_host=None if protocol == "tcp" else name,
                tcp_route=None if protocol == "http" else name,
                mtls=MTLS[mtls(workload, port.port, security, mesh)],
            )
        )
    return tuple(made)


class Neighbours(NamedTuple):
    """The ports of the other captured workloads, with all that leads to them."""

    destinations: tuple[DestinationSpec, ...] = ()
    virtual_hosts: tuple[VirtualHostSpec, ...] = ()
    tcp_routes: tuple[TcpRouteSpec, ...] = ()
    clusters: tuple[ClusterSpec, ...] = ()
    endpoints: tuple[EndpointsSpec, ...] = ()


def neighbours(
    own: str,
    workloads: Mapping[str, Workload],
    services: Services,
    placements: Placements,
    mesh: MeshConfig,
) -> Neighbours:
    """Return every port of every other captured workload, as a cluster of one."""
    made: list[
        tuple[DestinationSpec, VirtualHostSpec, TcpRouteSpec, ClusterSpec, EndpointsSpec]
    ] = []
    for key, workload in sorted(workloads.items()):
        placement = placements.workloads.get(key)
        if key == own or placement is None or not placement.captured:
            continue
        addresses = tuple(filter(None, (placement.address, placement.ipv6)))
        for port in sorted(placement.inbound_ports):
            name = f"workload/{key}:{port}"
            protocol = inbound_protocol(port, workload, services)
            to_http = BackendSpec(cluster=name)
            to_tcp = TcpBackendSpec(cluster=name)
            made.append(
                (
                    DestinationSpec(
                        name=name,
                        direction="outbound",
                        addresses=addresses,
                        port=port,
                        protocol=protocol,
                        virtual_host=None if protocol == "tcp" else name,
                        tcp_route=None if protocol == "http" else name,
                    ),
                    VirtualHostSpec(
                        name=name,
                        routes=(RouteSpec(name=name, match=MatchSpec(), backends=(to_http,)),),
                    ),
                    TcpRouteSpec(name=name, rules=(TcpRuleSpec(name=name, backends=(to_tcp,)),)),
                    # Who means one workload gets it or nobody: nothing to eject.
                    ClusterSpec(
                        name=name, service=key, mtls=mesh.spec.mtls != "DISABLED", outliers=None
                    ),
                    EndpointsSpec(
                        cluster=name,
                        endpoints=(endpoint(key, workload, placement, port, mesh, workloads[own]),),
                    ),
                )
            )
    return Neighbours(
        tuple(one[0] for one in made),
        tuple(one[1] for one in made if one[0].virtual_host is not None),
        tuple(one[2] for one in made if one[0].tcp_route is not None),
        tuple(one[3] for one in made),
        tuple(one[4] for one in made),
    )
