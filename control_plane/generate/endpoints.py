"""Who answers for a service: the workloads that its selector chooses, where they were placed."""

from collections.abc import Iterable

from control_plane.placement import Placement, Placements
from control_plane.resources.model import MeshConfig, Service, Workload
from control_plane.resources.selection import target
from meshproxy.contract.resources import ClusterSpec, EndpointSpec, EndpointsSpec

from .clusters import service_port
from .listeners import inbound_name
from .locality import priority, zone

Labelled = dict[tuple[str, str, str], list[tuple[str, Workload]]]
"""(namespace, label, value) → names and workloads."""


def identity(workload: Workload, mesh: MeshConfig) -> str:
    """Return the SPIFFE ID of a workload."""
    metadata = workload.metadata
    account = workload.spec.service_account or metadata.name
    return f"spiffe://{mesh.spec.trust_domain}/ns/{metadata.namespace}/sa/{account}"


def outbound(
    own: Workload,
    clusters: Iterable[ClusterSpec],
    services: dict[str, Service],
    workloads: dict[str, Workload],
    placements: Placements,
    mesh: MeshConfig,
) -> tuple[EndpointsSpec, ...]:
    """Return the endpoints of each cluster, also of those that have none, as near as `own` is."""
    made: list[EndpointsSpec] = []
    labelled = _by_label(workloads)
    for cluster in clusters:
        service, port = service_port(cluster.name, services)
        endpoints = (
            endpoint(key, workload, placement, at, mesh, own)
            for key, workload in _selected(service, labelled)
            if (at := target(port, workload)) is not None
            and (placement := placements.workloads.get(key)) is not None
            and at in placement.inbound_ports
        )
        made.append(EndpointsSpec(cluster=cluster.name, endpoints=tuple(endpoints)))
    return tuple(made)


def inbound(workload: Workload, placement: Placement | None) -> tuple[EndpointsSpec, ...]:
    """Return where the app itself listens."""
    made: list[EndpointsSpec] = []
    for port in sorted(workload.spec.ports, key=lambda port: port.port):
        endpoints: tuple[EndpointSpec, ...] = ()
        if placement is not None and port.port in placement.app_ports:
            endpoints = (
                EndpointSpec(
                    address=placement.app_address or placement.address,
                    port=placement.app_ports[port.port],
                ),
            )
        made.append(EndpointsSpec(cluster=inbound_name(port.port), endpoints=endpoints))
    return tuple(made)


def _by_label(workloads: dict[str, Workload]) -> Labelled:
    """Return the workloads that carry each label, in the order of their names."""
    found: Labelled = {}
    for key, workload in sorted(workloads.items()):
        for label in workload.metadata.labels.items():
            found.setdefault((workload.metadata.namespace, *label), []).append((key, workload))
    return found


def _selected(service: Service, labelled: Labelled) -> list[tuple[str, Workload]]:
    """
    Return the workloads of the Service's namespace that carry all labels of its selector.

    A Service without a selector chooses nobody: its endpoints are somebody else's business.
    """
    if not service.spec.selector:
        return []
    first, *others = service.spec.selector.items()
    return [
        (key, workload)
        for key, workload in labelled.get((service.metadata.namespace, *first), ())
        if all(workload.metadata.labels.get(name) == value for name, value in others)
    ]


def endpoint(
    name: str,
    workload: Workload,
    placement: Placement,
    target: int,
    mesh: MeshConfig,
    own: Workload,
) -> EndpointSpec:
    """Return where `own` reaches a port of a workload, and who will answer."""
    return EndpointSpec(
        address=placement.address,
        port=placement.inbound_ports[target],
        identities=(identity(workload, mesh),),
        workload=name,
        weight=workload.spec.weight,
        zone=zone(workload),
        priority=priority(workload, own),
        version=workload.metadata.labels.get("version", ""),
    )
