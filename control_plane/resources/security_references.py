"""
What of a security policy has no effect, or another one than its author will have meant.

None of this is an error that keeps a file out of force: a policy may come before the workloads that
it selects.  But a policy that does nothing, or denies more than it says, is told so.
"""

from collections.abc import Iterable, Iterator, Mapping
from urllib.parse import urlsplit

from .app_protocol import agreed
from .attachment import Services
from .finding import Finding, Path
from .model import MeshConfig, Workload
from .parse import Source
from .references import Problem
from .security import (
    AuthorizationPolicy,
    AuthorizationRule,
    Operation,
    PeerAuthentication,
    RequestAuthentication,
    SecurityPolicy,
)
from .selection import everywhere, in_front, is_about, means


def ineffective(
    source: Source,
    policy: SecurityPolicy,
    workloads: Mapping[str, Workload],
    services: Services,
    mesh: MeshConfig,
) -> Iterator[Finding]:
    """Yield what of a policy does not do what it seems to."""
    for path, problem in _problems(policy, workloads, services, mesh):
        yield source.finding(path, str(problem), "unresolved")


def _problems(
    policy: SecurityPolicy,
    workloads: Mapping[str, Workload],
    services: Services,
    mesh: MeshConfig,
) -> Iterator[tuple[Path, Problem]]:
    wide = not isinstance(policy, PeerAuthentication) and policy.spec.scope == "Mesh"
    if wide and not everywhere(policy, mesh):
        message = (
            f"scope Mesh is for policies in namespace {mesh.metadata.namespace}, where the "
            "MeshConfig is: this one holds in its own"
        )
        yield ("spec", "scope"), Problem("Accepted", "Invalid", message)
    found = [workload for workload in workloads.values() if is_about(policy, workload, mesh)]
    if not found and workloads:
        where = ("spec", "selector") if policy.spec.selector is not None else ("spec",)
        message = f"no workload of namespace {policy.metadata.namespace} is selected"
        if policy.spec.selector is not None:
            message += " by these labels"
        yield where, Problem("Accepted", "TargetNotFound", message)
    match policy:
        case PeerAuthentication():
            yield from _unknown_ports(policy, found)
        case AuthorizationPolicy():
            yield from _of_requests(policy, found, services)
        case RequestAuthentication():
            yield from _not_allowed(policy, mesh)


def _unknown_ports(
    policy: PeerAuthentication, workloads: Iterable[Workload]
) -> Iterator[tuple[Path, Problem]]:
    known = {str(port.port) for workload in workloads for port in workload.spec.ports}
    for port in policy.spec.port_level_mtls:
        if port not in known and known:
            message = f"no selected workload has port {port}, expected one of "
            yield (
                ("spec", "portLevelMtls", port),
                Problem("Accepted", "Invalid", message + ", ".join(sorted(known, key=int))),
            )


def _of_requests(
    policy: AuthorizationPolicy, workloads: Iterable[Workload], services: Services
) -> Iterator[tuple[Path, Problem]]:
    """Rules about requests, on ports where there are none (Istio ignores them there in silence)."""
    ports: dict[int, str] = {}
    for workload in workloads:
        for one in workload.spec.ports:
            name = f"{workload.metadata.namespace}/{workload.metadata.name}"
            if agreed(front for _, front in in_front(one.port, workload, services)) == "tcp":
                ports.setdefault(one.port, name)
    effect = {
        "ALLOW": "the rule allows nothing there",
        "DENY": "the rule denies every connection of its callers there",
        "AUDIT": "the rule counts every connection of its callers there",
    }[policy.spec.action]
    for number, rule in enumerate(policy.spec.rules):
        where = _about_requests(rule)
        opaque = [port for port in sorted(ports) if means(rule, port)]
        if where is not None and opaque:
            port = opaque[0]
            message = (
                f"asks about requests, but port {port} of {ports[port]} is opaque TCP: {effect}; "
                "expected `ports` that say which ports are meant"
            )
            yield ("spec", "rules", number, *where), Problem("Accepted", "Invalid", message)


def _about_requests(rule: AuthorizationRule) -> Path | None:
    """Return what of a rule asks about requests, if anything."""
    for index, one in enumerate(rule.sources):
        if one.source.request_principals or one.source.not_request_principals:
            return ("from", index, "source")
    for index, to in enumerate(rule.to):
        if to.operation != Operation(ports=to.operation.ports, not_ports=to.operation.not_ports):
            return ("to", index, "operation")
    return ("when", 0) if rule.when else None


def _not_allowed(policy: RequestAuthentication, mesh: MeshConfig) -> Iterator[tuple[Path, Problem]]:
    for index, rule in enumerate(policy.spec.jwt_rules):
        if rule.jwks_uri is None or allowed(rule.jwks_uri, mesh):
            continue
        message = (
            f"{urlsplit(rule.jwks_uri).netloc} is not among spec.jwks.allowedHosts of the "
            "MeshConfig, so nothing is fetched, and no token of this issuer is right"
        )
        path = ("spec", "jwtRules", index, "jwksUri")
        yield path, Problem("Accepted", "Invalid", message)


def allowed(address: str, mesh: MeshConfig) -> bool:
    """Say whether the control plane may fetch keys from there."""
    found = urlsplit(address)
    return bool({found.netloc, found.hostname} & set(mesh.spec.jwks.allowed_hosts))
