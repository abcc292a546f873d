"""
Which workloads are meant: by a Service's selector, and by the selector of a security policy.

The same functions are asked by `generate` and by the findings, so what is said and what is done
cannot differ.
"""

from collections.abc import Iterable, Mapping
from typing import TypeVar

from .attachment import age
from .model import MeshConfig, Service, ServicePort, Workload
from .security import AuthorizationRule, Operation, PeerAuthentication, SecurityPolicy

S = TypeVar("S", bound=SecurityPolicy)

# By a Service --------------------------------------------------------------------------------


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


# By a security policy ----------------------------------------------------------------------


def is_about(policy: SecurityPolicy, workload: Workload, mesh: MeshConfig) -> bool:
    """Say whether a policy is about a workload."""
    selector = policy.spec.selector
    labels = {} if selector is None else selector.match_labels
    if not labels.items() <= workload.metadata.labels.items():
        return False
    return policy.metadata.namespace == workload.metadata.namespace or everywhere(policy, mesh)


def everywhere(policy: SecurityPolicy, mesh: MeshConfig) -> bool:
    """Say whether a policy reaches beyond its namespace; elsewhere than beside the MeshConfig, no."""
    if isinstance(policy, PeerAuthentication) or policy.spec.scope != "Mesh":
        return False
    return policy.metadata.namespace == mesh.metadata.namespace


def selected(
    kind: type[S], workload: Workload, policies: Iterable[SecurityPolicy], mesh: MeshConfig
) -> list[S]:
    """Return the policies of a kind that are about a workload, the oldest first."""
    found = [
        policy
        for policy in policies
        if isinstance(policy, kind) and is_about(policy, workload, mesh)
    ]
    return sorted(found, key=age)


def mtls(
    workload: Workload, port: int | None, policies: Iterable[SecurityPolicy], mesh: MeshConfig
) -> str:
    """
    Return what a workload's port accepts: STRICT, PERMISSIVE or DISABLED.

    Args:
        workload: The workload.
        port: One of its ports; None for those that it has not declared.
        policies: All of the mesh.
        mesh: In which DISABLED disables it all: nobody has a certificate to show.
    """
    if mesh.spec.mtls == "DISABLED":
        return "DISABLED"
    found = selected(PeerAuthentication, workload, policies, mesh)
    by_specificity = sorted(found, key=lambda one: not _labels(one))  # stable: then by age
    for policy in by_specificity:
        level = policy.spec.port_level_mtls.get(str(port))
        if level is not None:
            return level.mode
    for policy in by_specificity:
        if policy.spec.mtls is not None:
            return policy.spec.mtls.mode
    return mesh.spec.mtls


def _labels(policy: PeerAuthentication) -> bool:
    return policy.spec.selector is not None and bool(policy.spec.selector.match_labels)


# Of a workload, a port ------------------------------------------------------------------------------


def means(rule: AuthorizationRule, port: int) -> bool:
    """Say whether a rule can be about a port."""
    return not rule.to or any(includes(to.operation, port) for to in rule.to)


def includes(operation: Operation, port: int) -> bool:
    """Say whether an operation can be one at a port."""
    return (not operation.ports or port in operation.ports) and port not in operation.not_ports
