"""
What a route refers to, and what the Gateway API makes of it when it is not there.

A reference that does not resolve is no error: the resource applies, what would have gone there is
refused, and a condition says so.  `generate` asks the same functions, so the finding and the
traffic cannot disagree.

The condition types and reasons are those of the Gateway API's `RouteConditionType` and
`RouteConditionReason` (apis/v1/shared_types.go); `Conflicted` is GEP-1294's.
"""

import difflib
from collections.abc import Iterator, Mapping, Sequence
from typing import Literal

from msgspec import Struct

from .app_protocol import protocol_of
from .attachment import Parented, Services, decide, parent_name, selects, takes
from .finding import Finding, Path
from .gateway_api import (
    AnyBackendRef,
    ConnectionRule,
    GRPCBackendRef,
    GRPCRouteFilter,
    GRPCRouteRule,
    HTTPBackendRef,
    HTTPRouteFilter,
    HTTPRouteRule,
    LocalObjectRef,
    ObjectRef,
    ParentRef,
    Route,
)
from .meant import nearest
from .model import Service, ServicePort
from .parse import Source
from .policies import FaultInjection, Policy, RateLimitPolicy

Filter = HTTPRouteFilter | GRPCRouteFilter
Policies = Mapping[str, Policy]

EXTENSIONS = {
    ("meshproxy.io", "FaultInjection"): FaultInjection,
    ("meshproxy.io", "RateLimitPolicy"): RateLimitPolicy,
}
"""(group, kind) of what an ExtensionRef filter may refer to."""

BACKEND_FILTERS = frozenset({"RequestHeaderModifier", "ResponseHeaderModifier"})
"""Filters that a backendRef may carry here; the others change where a request goes, or whether."""

_IN_FORCE = {
    "HTTPRoute": " (in force: its share of requests is answered 500)",
    "GRPCRoute": " (in force: its share of requests is answered UNAVAILABLE)",
    "TLSRoute": " (in force: its share of connections is refused)",
    "TCPRoute": " (in force: its share of connections is refused)",
}


class Problem(Struct, frozen=True):
    """Why a reference leads nowhere: a condition that is False, and a sentence."""

    condition: Literal["Accepted", "ResolvedRefs"]
    reason: str
    message: str

    def __str__(self) -> str:
        return f"{self.condition}=False ({self.reason}): {self.message}"


def parent_ports(
    ref: ParentRef, route: Route, services: Services
) -> tuple[ServicePort, ...] | Problem:
    """Return the ports of the Service that a route attaches to with one of its parentRefs."""
    if (ref.group, ref.kind) != ("", "Service"):
        return Problem(
            "Accepted",
            "NoMatchingParent",
            f'{_kind(ref.group, ref.kind)} is no parent in a mesh, expected group "", kind Service',
        )
    name = parent_name(ref, route.metadata.namespace)
    service = services.get(name)
    if service is None:
        return Problem(
            "Accepted",
            "NoMatchingParent",
            f"Service {name} does not exist{known_services(name, services)}",
        )
    meant = tuple(port for port in service.spec.ports if selects(ref, port))
    if not meant:
        wanted = f'port "{ref.section_name}"' if ref.section_name else f"port {ref.port}"
        return Problem(
            "Accepted", "NoMatchingParent", f"Service {name} has no {wanted}{_ports(service)}"
        )
    # "If 1 of 2 Gateway listeners accept attachment from the referencing Route, the Route MUST be
    # considered successfully attached."
    taking = tuple(port for port in meant if takes(port, route.kind))
    if not taking:
        said = ", ".join(f"{port.port} is {port.app_protocol}" for port in meant)
        return Problem(
            "Accepted",
            "NotAllowedByListeners",
            f"the appProtocol of Service {name} allows no {route.kind}: port {said}",
        )
    return taking


def conflict(
    ref: ParentRef, route: Route, services: Services, parented: Parented
) -> Problem | None:
    """Return which route decides in this one's stead, where not both can."""
    ports = parent_ports(ref, route, services)
    if isinstance(ports, Problem):
        return None
    namespace = route.metadata.namespace
    name = parent_name(ref, namespace)
    for port in ports:
        deciding = decide(services[name], port, namespace, parented.get(name, ()))
        if route not in deciding.routes:
            first = deciding.routes[0]
            why = (
                f"{first.kind} goes before {route.kind}"
                if first.kind != route.kind
                else "it is the older one"
            )
            return Problem(
                "Accepted",
                "Conflicted",
                f"port {port.port} of Service {name} follows {first.kind} "
                f"{first.metadata.namespace}/{first.metadata.name} alone: {why}",
            )
    return None


def extension(
    ref: LocalObjectRef, route: Route, policies: Policies
) -> FaultInjection | RateLimitPolicy | Problem:
    """Return what an ExtensionRef filter refers to: a policy of the route's namespace."""
    if (ref.group, ref.kind) not in EXTENSIONS:
        kinds = " or ".join(f"{group}/{kind}" for group, kind in EXTENSIONS)
        return Problem(
            "ResolvedRefs",
            "InvalidKind",
            f"{_kind(ref.group, ref.kind)} is no filter of the mesh, expected {kinds}",
        )
    home = route.metadata.namespace
    found = policies.get(f"{ref.kind}/{home}/{ref.name}")
    if isinstance(found, FaultInjection | RateLimitPolicy):
        return found
    near = [key for key in policies if key.startswith(f"{ref.kind}/{home}/")]
    names = sorted(key.rpartition("/")[2] for key in near)
    known = f", {nearest(ref.name, names)}" if names else ""
    return Problem(
        "ResolvedRefs", "FilterNotFound", f"{ref.kind} {home}/{ref.name} does not exist{known}"
    )


def backend_problem(ref: ObjectRef, route: Route, services: Services) -> Problem | None:
    """Return why what is meant for a backend of this route is refused."""
    if (ref.group, ref.kind) != ("", "Service"):
        return Problem(
            "ResolvedRefs",
            "InvalidKind",
            f'{_kind(ref.group, ref.kind)} cannot be a backend, expected group "", kind Service',
        )
    name = f"{ref.namespace or route.metadata.namespace}/{ref.name}"
    service = services.get(name)
    if service is None:
        return Problem(
            "ResolvedRefs",
            "BackendNotFound",
            f"Service {name} does not exist{known_services(name, services)}",
        )
    port = next((port for port in service.spec.ports if port.port == ref.port), None)
    if port is None:
        return Problem(
            "ResolvedRefs",
            "BackendNotFound",
            f"Service {name} has no port {ref.port}{_ports(service)}",
        )
    # "If a Route is not able to send traffic to the backend using the specified protocol then the
    # backend is considered invalid."
    if not takes(port, route.kind):
        return Problem(
            "ResolvedRefs",
            "UnsupportedProtocol",
            f"port {port.port} of Service {name} is {port.app_protocol} ({protocol_of(port)}), to "
            f"which a {route.kind} cannot lead",
        )
    return None


def unresolved(
    source: Source, route: Route, services: Services, parented: Parented, policies: Policies
) -> Iterator[Finding]:
    """Yield what of a route does not resolve now."""
    for index, parent in enumerate(route.spec.parent_refs):
        found = parent_ports(parent, route, services)
        problem = (
            found if isinstance(found, Problem) else conflict(parent, route, services, parented)
        )
        if problem is not None:
            yield source.finding(("spec", "parentRefs", index), str(problem), "unresolved")
    rules: Sequence[HTTPRouteRule | GRPCRouteRule | ConnectionRule] = route.spec.rules
    for number, rule in enumerate(rules):
        path: Path = ("spec", "rules", number)
        filters: Sequence[Filter] = () if isinstance(rule, ConnectionRule) else rule.filters
        for index, item in enumerate(filters):
            where = (*path, "filters", index)
            yield from _filter(source, where, item, route, services, policies)
        refs: Sequence[AnyBackendRef] = rule.backend_refs
        for index, ref in enumerate(refs):
            yield from _backend(source, (*path, "backendRefs", index), ref, route, services)


def _backend(
    source: Source, path: Path, ref: AnyBackendRef, route: Route, services: Services
) -> Iterator[Finding]:
    problem = backend_problem(ref, route, services)
    if problem is not None:
        yield source.finding(path, f"{problem}{_IN_FORCE[route.kind]}", "unresolved")
    filters: Sequence[Filter] = (
        ref.filters if isinstance(ref, HTTPBackendRef | GRPCBackendRef) else ()
    )
    for index, item in enumerate(filters):
        if item.type not in BACKEND_FILTERS:
            problem = Problem(
                "Accepted",
                "UnsupportedValue",
                f"{item.type} is not supported on a backendRef, which is answered 500; "
                "expected it under the rule's filters",
            )
            yield source.finding((*path, "filters", index), str(problem), "unresolved")


def _filter(
    source: Source,
    path: Path,
    item: Filter,
    route: Route,
    services: Services,
    policies: Policies,
) -> Iterator[Finding]:
    if item.request_mirror is not None:
        problem = backend_problem(item.request_mirror.backend_ref, route, services)
        if problem is not None:
            # "If the referent cannot be found, this BackendRef is invalid and must be dropped."
            where = (*path, "requestMirror", "backendRef")
            yield source.finding(where, f"{problem} (in force: nothing is mirrored)", "unresolved")
    if item.extension_ref is not None:
        found = extension(item.extension_ref, route, policies)
        if isinstance(found, Problem):
            # "Unresolvable ExtensionRef … MUST NOT be skipped.  Instead requests that would have
            # been processed by that filter MUST receive a HTTP error response."
            message = f"{found} (in force: requests of this rule are answered 500)"
            yield source.finding((*path, "extensionRef"), message, "unresolved")


def _kind(group: str, kind: str) -> str:
    return f"{group}/{kind}" if group else kind


def known_services(name: str, services: Services) -> str:
    """Return what was probably meant: a name like it in the same namespace, or itself in another."""
    namespace, _, short = name.partition("/")
    here = [one.partition("/")[2] for one in services if one.startswith(f"{namespace}/")]
    if near := difflib.get_close_matches(short, here, n=1):
        return f', did you mean "{namespace}/{near[0]}"?'
    if elsewhere := sorted(one for one in services if one.endswith(f"/{short}")):
        return f', did you mean "{elsewhere[0]}"?'
    return f", expected one of {', '.join(sorted(services)[:10])}" if services else ""


def _ports(service: Service) -> str:
    return ", expected one of " + ", ".join(str(port.port) for port in service.spec.ports)
