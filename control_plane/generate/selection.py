"""Which workloads a Service's selector chooses, and which of their ports a service port means."""

from collections.abc import Mapping

from control_plane.resources.model import Service, ServicePort, Workload


def selects(service: Service, workload: Workload) -> bool:
    """Say whether the Service's selector chooses the workload; one without a selector does not."""
    ours, theirs = workload.metadata, service.metadata
    return (
        ours.namespace == theirs.namespace
        and bool(service.spec.selector)
        and service.spec.selector.items() <= ours.labels.items()
    )


def target(port: ServicePort, workload: Workload) -> int | None:
    """Return the workload's port that a service port leads to, if it has it."""
    wanted = port.port if port.target_port is None else port.target_port
    for candidate in workload.spec.ports:
        if wanted in (candidate.port, candidate.name):
            return candidate.port
    return None


def in_front(
    port: int, workload: Workload, services: Mapping[str, Service]
) -> list[tuple[str, ServicePort]]:
    """Return the service ports that lead to a workload's port, with the names of their services."""
    return [
        (name, candidate)
        for name, service in services.items()
        if selects(service, workload)
        for candidate in service.spec.ports
        if target(candidate, workload) == port
    ]
