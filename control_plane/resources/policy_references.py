"""
What a policy refers to, and what becomes of it when it is not there, or another goes before.

As with routes, a target that does not exist is no error: the policy applies as soon as it does.  The
condition and its reasons are those of GEP-713 (apis/v1/policy_types.go).
"""

from collections.abc import Iterator

from .attachment import Parented, Services, decide, speaks_http2
from .finding import Finding
from .model import Service, ServicePort
from .parse import Source
from .policies import Policy, TargetRef, TrafficPolicy
from .policy_attachment import Targeted, deciding, selects, specificity, target_name
from .references import Problem, known_services


def untargeted(
    source: Source,
    policy: Policy,
    services: Services,
    targeted: Targeted,
    parented: Parented,
) -> Iterator[Finding]:
    """Yield which of a policy's targets it does not have, and why."""
    for index, ref in enumerate(policy.spec.target_refs):
        problem = _problem(ref, policy, services, targeted, parented)
        if problem is not None:
            yield source.finding(("spec", "targetRefs", index), str(problem), "unresolved")


def unchecked(
    source: Source,
    policy: TrafficPolicy,
    services: Services,
    called_by_grpc: set[tuple[str, int]],
) -> Iterator[Finding]:
    """Yield which ports cannot be asked for their health in gRPC, as a policy wants."""
    check = policy.spec.health_check
    if check is None or check.grpc is None:
        return
    for ref in policy.spec.target_refs:
        name = target_name(ref, policy)
        for port in services[name].spec.ports if name in services else ():
            if selects(ref, port) and not speaks_http2(name, port, called_by_grpc):
                problem = Problem(
                    "Accepted",
                    "Invalid",
                    f"port {port.port} of Service {name} is spoken to in HTTP/1.1, so it is not "
                    "checked: gRPC needs HTTP/2 (appProtocol: grpc on the Service's port)",
                )
                yield source.finding(("spec", "healthCheck", "grpc"), str(problem), "unresolved")


def _problem(
    ref: TargetRef,
    policy: Policy,
    services: Services,
    targeted: Targeted,
    parented: Parented,
) -> Problem | None:
    name = target_name(ref, policy)
    service = services.get(name)
    if service is None:
        message = f"Service {name} does not exist{known_services(name, services)}"
        return Problem("Accepted", "TargetNotFound", message)
    ports = [port for port in service.spec.ports if selects(ref, port)]
    if not ports:
        names = ", ".join(port.name for port in service.spec.ports if port.name)
        return Problem(
            "Accepted",
            "TargetNotFound",
            f'Service {name} has no port of the name "{ref.section_name}", '
            + (f"expected one of {names}" if names else "its port has no name"),
        )
    if isinstance(policy, TrafficPolicy):
        return _precedence(name, ports, policy, service, targeted)
    return _opaque(name, ports, service, parented)


def _opaque(
    name: str, ports: list[ServicePort], service: Service, parented: Parented
) -> Problem | None:
    """Return that a policy about requests has no effect where there are only connections."""
    routes, home = parented.get(name, ()), service.metadata.namespace
    deaf = [p for p in ports if decide(service, p, home, routes).protocol == "tcp"]
    if len(deaf) < len(ports):
        return None
    numbers = " and ".join(f"port {port.port}" for port in deaf)
    message = (
        f"{numbers} of Service {name} takes opaque connections; this kind is about requests of HTTP"
    )
    return Problem("Accepted", "Invalid", message)


def _precedence(
    name: str,
    ports: list[ServicePort],
    policy: TrafficPolicy,
    service: Service,
    targeted: Targeted,
) -> Problem | None:
    """Return which policy decides in this one's stead, where not both can."""
    first = {port.port: deciding(service, port, targeted) for port in ports}
    for port in ports:
        other = first[port.port]
        if (
            other is not None
            and other is not policy
            and specificity(other, name, port) == specificity(policy, name, port)
        ):
            return Problem(
                "Accepted",
                "Conflicted",
                f"port {port.port} of Service {name} follows TrafficPolicy "
                f"{other.metadata.namespace}/{other.metadata.name} alone: it is the older one",
            )
    if policy not in first.values():
        message = f"each port of Service {name} has a TrafficPolicy that names it"
        return Problem("Accepted", "Overridden", message)
    return None
