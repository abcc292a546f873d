"""
What a route refers to, and what the Gateway API makes of it when it is not there.

A reference that does not resolve is no error: the resource applies, requests that would have
gone there are answered 500, and a condition says so.  `generate` asks the same functions, so the
finding and the traffic cannot disagree.

The condition types and reasons are those of the Gateway API's `RouteConditionType` and
`RouteConditionReason` (apis/v1/shared_types.go).
"""

import difflib
from collections.abc import Iterator, Mapping
from typing import Literal

from msgspec import Struct

from .finding import Finding
from .model import HTTPBackendRef, HTTPRoute, ParentRef, Service, ServicePort
from .parse import Source

Services = Mapping[str, Service]

BACKEND_FILTERS = frozenset({"RequestHeaderModifier", "ResponseHeaderModifier"})
"""Filters that a backendRef may carry here; the others change where a request goes."""

_IN_FORCE = " (in force: its share of requests is answered 500)"


class Problem(Struct, frozen=True):
    """Why a reference leads nowhere: a condition that is False, and a sentence."""

    condition: Literal["Accepted", "ResolvedRefs"]
    reason: str
    message: str

    def __str__(self) -> str:
        return f"{self.condition}=False ({self.reason}): {self.message}"


def parent_ports(
    ref: ParentRef, namespace: str, services: Services
) -> tuple[ServicePort, ...] | Problem:
    """Return the ports of the Service that a route in `namespace` attaches to."""
    if (ref.group, ref.kind) != ("", "Service"):
        return Problem(
            "Accepted",
            "NoMatchingParent",
            f'{_kind(ref.group, ref.kind)} is no parent in a mesh, expected group "", kind Service',
        )
    name = f"{ref.namespace or namespace}/{ref.name}"
    service = services.get(name)
    if service is None:
        return Problem(
            "Accepted", "NoMatchingParent", f"Service {name} does not exist{_known(name, services)}"
        )
    # "When both Port and SectionName are specified, the name and port of the selected port must
    # match both specified values."
    ports = tuple(
        port
        for port in service.spec.ports
        if ref.port in (None, port.port) and ref.section_name in (None, port.name)
    )
    if not ports:
        wanted = f'port "{ref.section_name}"' if ref.section_name else f"port {ref.port}"
        return Problem(
            "Accepted", "NoMatchingParent", f"Service {name} has no {wanted}{_ports(service)}"
        )
    return ports


def backend_problem(ref: HTTPBackendRef, namespace: str, services: Services) -> Problem | None:
    """Return why requests for this backend, of a route in `namespace`, are answered 500."""
    if (ref.group, ref.kind) != ("", "Service"):
        return Problem(
            "ResolvedRefs",
            "InvalidKind",
            f'{_kind(ref.group, ref.kind)} cannot be a backend, expected group "", kind Service',
        )
    name = f"{ref.namespace or namespace}/{ref.name}"
    service = services.get(name)
    if service is None:
        return Problem(
            "ResolvedRefs",
            "BackendNotFound",
            f"Service {name} does not exist{_known(name, services)}",
        )
    if all(port.port != ref.port for port in service.spec.ports):
        return Problem(
            "ResolvedRefs",
            "BackendNotFound",
            f"Service {name} has no port {ref.port}{_ports(service)}",
        )
    return None


def unresolved(source: Source, services: Services) -> Iterator[Finding]:
    """Yield what of a route does not resolve now."""
    route = source.resource
    if not isinstance(route, HTTPRoute):
        return
    namespace = route.metadata.namespace
    for index, parent in enumerate(route.spec.parent_refs):
        found = parent_ports(parent, namespace, services)
        if isinstance(found, Problem):
            yield source.finding(("spec", "parentRefs", index), str(found), "unresolved")
    for number, rule in enumerate(route.spec.rules):
        for index, ref in enumerate(rule.backend_refs):
            path = ("spec", "rules", number, "backendRefs", index)
            problem = backend_problem(ref, namespace, services)
            if problem is not None:
                yield source.finding(path, f"{problem}{_IN_FORCE}", "unresolved")
            for place, item in enumerate(ref.filters):
                if item.type not in BACKEND_FILTERS:
                    problem = Problem(
                        "Accepted",
                        "UnsupportedValue",
                        f"{item.type} is not supported on a backendRef, which is answered 500; "
                        "expected it under the rule's filters",
                    )
                    yield source.finding((*path, "filters", place), str(problem), "unresolved")


def _kind(group: str, kind: str) -> str:
    return f"{group}/{kind}" if group else kind


def _known(name: str, services: Services) -> str:
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
