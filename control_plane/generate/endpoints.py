"""Who answers for a service: the workloads that its selector chooses, where they were placed."""

from collections.abc import Iterable

from control_plane.placement import Placement, Placements
from control_plane.resources.model import MeshConfig, Service, ServicePort, Workload
from meshproxy.contract.resources import ClusterSpec, EndpointSpec, EndpointsSpec

from .listeners import inbound_name


def identity(workload: Workload, mesh: MeshConfig) -> str:
    """Return the SPIFFE ID of a workload."""
    metadata = workload.metadata
    account = workload.spec.service_account or metadata.name
    return f"spiffe://{mesh.spec.trust_domain}/ns/{metadata.namespace}/sa/{account}"


def outbound(
    clusters: Iterable[ClusterSpec],
    services: dict[str, Service],
    workloads: dict[str, Workload],
    placements: Placements,
    mesh: MeshConfig,
) -> tuple[EndpointsSpec, ...]:
    """Return the endpoints of each cluster, also of those that have none."""
    made: list[EndpointsSpec] = []
    for cluster in clusters:
        name, _, number = cluster.name.rpartition(":")
        service = services[name]
        port = next(port for port in service.spec.ports if port.port == int(number))
        endpoints = (
            _endpoint(key, workload, placement, target, mesh)
            for key, workload in sorted(workloads.items())
            if _selects(service, workload)
            and (target := _target(port, workload)) is not None
            and (placement := placements.workloads.get(key)) is not None
            and target in placement.inbound_ports
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
                EndpointSpec(address=placement.address, port=placement.app_ports[port.port]),
            )
        made.append(EndpointsSpec(cluster=inbound_name(port.port), endpoints=endpoints))
    return tuple(made)


def _selects(service: Service, workload: Workload) -> bool:
    """A Service without a selector chooses nobody: its endpoints are somebody else's business."""
    selector, labels = service.spec.selector, workload.metadata.labels
    return (
        service.metadata.namespace == workload.metadata.namespace
        and bool(selector)
        and all(labels.get(key) == value for key, value in selector.items())
    )


def _target(port: ServicePort, workload: Workload) -> int | None:
    """Return the workload's port that a service port leads to, if it has it."""
    wanted = port.port if port.target_port is None else port.target_port
    for candidate in workload.spec.ports:
        if wanted in (candidate.port, candidate.name):
            return candidate.port
    return None


def _endpoint(
    name: str, workload: Workload, placement: Placement, target: int, mesh: MeshConfig
) -> EndpointSpec:
    return EndpointSpec(
        address=placement.address,
        port=placement.inbound_ports[target],
        identities=(identity(workload, mesh),),
        workload=name,
        version=workload.metadata.labels.get("version", ""),
    )
