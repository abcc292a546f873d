"""
Files together: which version of each is in force, and the state that they make.

The unit of acceptance is the file.  A version with an error in it never replaces one without, and
a good file never waits for a bad one: each file is in force in its newest acceptable version, or
not at all.  A resource that two files declare belongs to the file that had it first.
"""

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import msgspec
from msgspec import Struct

from control_plane.placement import Placements
from control_plane.store import Location, State

from .attachment import by_parent, grpc_backends
from .finding import MOST, Finding, most
from .gateway_api import GRPCRoute, HTTPRoute, Route, TCPRoute, TLSRoute
from .model import DEFAULT_MESH, MeshConfig, Service, Workload
from .parse import Source, parse
from .policies import FaultInjection, Policy, RateLimitPolicy, TrafficPolicy
from .policy_attachment import by_target
from .policy_references import unchecked, untargeted
from .references import unresolved
from .security import (
    AuthorizationPolicy,
    PeerAuthentication,
    RequestAuthentication,
    SecurityPolicy,
)
from .security_references import ineffective
from .validate import validate


class File(Struct, frozen=True):
    """
    One version of a file.

    Attributes:
        sources: Its resources, of which none may be used when there are findings: some may
            then be incomplete.
        findings: What is wrong with it by itself.
    """

    text: str
    sources: tuple[Source, ...]
    findings: tuple[Finding, ...]


class Choice(Struct, frozen=True):
    """
    Attributes:
        in_force: By path.
        findings: Why other versions are not.
    """

    in_force: dict[Path, File]
    findings: tuple[Finding, ...]


def examine(text: str, path: Path) -> File:
    """Read one version of a file and judge it by itself."""
    sources, findings = parse(text, str(path))
    first: dict[str, Source] = {}
    for source in sources:
        if len(findings) > MOST:
            break
        # What a type was wrong for is missing now; to complain of that as well would mislead.
        mistyped = [one.field for one in findings if one.name == source.name]
        findings.extend(
            finding
            for finding in list(validate(source))
            if not any(
                field.startswith(finding.field) or finding.field.startswith(field)
                for field in mistyped
            )
        )
        known = first.setdefault(_identity(source), source)
        if known is not source:
            findings.append(_duplicate(source, known))
    return File(text, tuple(sources), tuple(sorted(findings, key=_place)))


def choose(newest: Mapping[Path, File], accepted: Mapping[Path, File]) -> Choice:
    """
    Decide which version of each file is in force.

    All good new versions are tried together, so that resources can move between files that are
    saved together.  Where two files then declare the same resource, the newcomer falls back to
    its accepted version; that may free or take other resources, so look again.  It ends because
    each round takes one more new version out.
    """
    findings: list[Finding] = []
    in_force: dict[Path, File] = {}
    for path, file in sorted(newest.items()):
        findings.extend(file.findings)
        if not file.findings:
            in_force[path] = file
        elif path in accepted:
            in_force[path] = accepted[path]
    while (conflict := _conflict(in_force, accepted)) is not None:
        path, source, owner = conflict
        findings.append(_duplicate(source, owner))
        fallback = accepted.get(path)
        if fallback is None or fallback is in_force[path]:
            del in_force[path]
        else:
            in_force[path] = fallback
    return Choice(in_force, tuple(sorted(findings, key=_place)))


def state_of(choice: Choice, placements: Placements) -> State:
    """Return the state that the files in force make, with all findings."""
    services: dict[str, Service] = {}
    routes: dict[str, Route] = {}
    policies: dict[str, Policy] = {}
    security: dict[str, SecurityPolicy] = {}
    workloads: dict[str, Workload] = {}
    mesh_config: MeshConfig | None = None
    locations: dict[str, Location] = {}
    sources = [source for file in choice.in_force.values() for source in file.sources]
    for source in sources:
        locations[source.key] = Location(source.file, source.line)
        match source.resource:
            case Service():
                services[source.name] = source.resource
            case Workload():
                workloads[source.name] = source.resource
            case MeshConfig():
                mesh_config = source.resource
            case TrafficPolicy() | RateLimitPolicy() | FaultInjection() as policy:
                policies[source.key] = policy
            case AuthorizationPolicy() | PeerAuthentication() | RequestAuthentication() as policy:
                security[source.key] = policy
            case route:
                routes[source.key] = route
    state = State(
        services=services,
        routes=routes,
        policies=policies,
        security=security,
        workloads=workloads,
        mesh_config=mesh_config,
        placements=placements,
        locations=locations,
    )
    findings = sorted([*choice.findings, *_unresolved(sources, state)], key=_place)
    return msgspec.structs.replace(state, findings=tuple(most(findings)))


def _unresolved(sources: Iterable[Source], state: State) -> Iterator[Finding]:
    """Yield what does not do now what it seems to."""
    services, parented = state.services, by_parent(state.routes.values())
    targeted = by_target(state.policies.values())
    called_by_grpc = grpc_backends(state.routes.values())
    mesh = state.mesh_config or DEFAULT_MESH
    for source in sources:
        match source.resource:
            case TrafficPolicy() | RateLimitPolicy() | FaultInjection() as policy:
                yield from untargeted(source, policy, services, targeted, parented)
                if isinstance(policy, TrafficPolicy):
                    yield from unchecked(source, policy, services, called_by_grpc)
            case GRPCRoute() | HTTPRoute() | TCPRoute() | TLSRoute() as route:
                yield from unresolved(source, route, services, parented, state.policies)
            case AuthorizationPolicy() | PeerAuthentication() | RequestAuthentication() as policy:
                yield from ineffective(source, policy, state.workloads, services, mesh)


def _conflict(
    in_force: Mapping[Path, File], accepted: Mapping[Path, File]
) -> tuple[Path, Source, Source] | None:
    """Return a file that declares what is another's: its path, the resource, the other's."""
    owners: dict[str, tuple[Path, Source]] = {}
    for path, file in sorted(in_force.items()):
        for source in file.sources:
            key = _identity(source)
            if key not in owners:
                owners[key] = (path, source)
                continue
            other, theirs = owners[key]
            # Of two newcomers the first by path wins; one that was here before beats both.
            if _had(accepted.get(path), key) and not _had(accepted.get(other), key):
                return other, theirs, source
            return path, source, theirs
    return None


def _had(file: File | None, key: str) -> bool:
    return file is not None and any(_identity(source) == key for source in file.sources)


def _identity(source: Source) -> str:
    """What may exist once: a name within a kind; of MeshConfig, one at all."""
    return "MeshConfig" if isinstance(source.resource, MeshConfig) else source.key


def _duplicate(source: Source, first: Source) -> Finding:
    where = f"{first.file}:{first.line}"
    if isinstance(source.resource, MeshConfig):
        return source.finding((), f"a mesh has one MeshConfig, and {where} has it")
    return source.finding(("metadata", "name"), f"is declared twice, first in {where}")


def _place(finding: Finding) -> tuple[str, int, str]:
    return finding.file, finding.line, finding.field
