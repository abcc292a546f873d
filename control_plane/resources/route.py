"""
What the Gateway API asks of routes of every kind: parents, names of rules, backends.

In a cluster, the CRDs' CEL expressions enforce it; files have only us.  The limits are those of
the kubebuilder markers in apis/v1/*route_types.go and shared_types.go.
"""

from collections.abc import Iterator, Sequence

from . import syntax
from .duration import milliseconds
from .finding import Path
from .gateway_api import (
    GRPCRoute,
    HTTPRoute,
    ObjectRef,
    ParentRef,
    RequestMirrorFilter,
    Route,
    RouteTimeouts,
)

Problems = Iterator[tuple[Path, str]]

MAX_PARENTS = 32
MAX_MATCHES = 128
"""Of all rules of a route together."""
MAX_ITEMS = 16
"""Of rules, backendRefs, filters, headers."""


def problems_of_parents(parents: Sequence[ParentRef]) -> Problems:
    """Yield what is wrong with `spec.parentRefs`."""
    if not parents:
        yield ("spec", "parentRefs"), "is missing or empty, expected at least one Service"
    for index, parent in enumerate(parents):
        path: Path = ("spec", "parentRefs", index)
        yield from _reference(path, parent.name, parent.namespace)
        if parent in parents[:index]:
            yield path, f"is the same as parentRefs[{parents.index(parent)}]"
    yield from at_most(("spec", "parentRefs"), parents, MAX_PARENTS)


def problems_of_rule_names(route: Route) -> Problems:
    """Yield what is wrong with the names of rules: they are metric labels, and told apart by."""
    names: dict[str, int] = {}
    for number, rule in enumerate(route.spec.rules):
        path: Path = ("spec", "rules", number, "name")
        if rule.name is None:
            continue
        if wrong := syntax.dns_name(rule.name):
            yield path, wrong
        if names.setdefault(rule.name, number) != number:
            yield path, f'"{rule.name}" is also the name of rules[{names[rule.name]}]'


def problems_of_matches(route: HTTPRoute | GRPCRoute) -> Problems:
    """
    "While 16 rules and 64 matches per rule are allowed, the total number of matches across all
    rules in a route must be less than 128."
    """
    total = sum(len(rule.matches) for rule in route.spec.rules)
    if total > MAX_MATCHES:
        yield ("spec", "rules"), f"has {total} matches in all, expected at most {MAX_MATCHES}"


def problems_of_backend(path: Path, ref: ObjectRef) -> Problems:
    """Yield what is wrong with a backendRef by itself."""
    yield from _reference(path, ref.name, ref.namespace)
    if (ref.group, ref.kind) == ("", "Service") and ref.port is None:
        yield (*path, "port"), "is missing, expected the port of the Service"


def problems_of_timeouts(path: Path, timeouts: RouteTimeouts | None) -> Problems:
    """Yield what is wrong with the timeouts of a rule."""
    if timeouts is not None:
        yield from backend_within_request(path, timeouts.request, timeouts.backend_request)


def backend_within_request(
    path: Path, request: str | None, backend_request: str | None
) -> Problems:
    """
    "backendRequest timeout cannot be longer than request timeout"; "0s" is no limit.

    Of a route's rule, or of a TrafficPolicy.
    """
    if request is None or backend_request is None:
        return
    if 0 < milliseconds(request) < milliseconds(backend_request):
        message = f'"{backend_request}" is longer than request "{request}", expected at most that'
        yield (*path, "backendRequest"), message


def problems_of_mirror(path: Path, item: RequestMirrorFilter) -> Problems:
    """Yield what is wrong with the filter RequestMirror, of an HTTPRoute or a GRPCRoute."""
    yield from problems_of_backend((*path, "backendRef"), item.backend_ref)
    if item.fraction is None:
        return
    if item.percent is not None:
        # "Only one of percent or fraction may be specified in HTTPRequestMirrorFilter"
        yield (*path, "fraction"), "cannot stand beside percent, expected one of them"
    if item.fraction.numerator > item.fraction.denominator:
        message = (
            f"{item.fraction.numerator} is above the denominator, expected at most "
            f"{item.fraction.denominator}"
        )
        yield (*path, "fraction", "numerator"), message


def no_repetition(path: Path, values: Sequence[object]) -> Problems:
    """Yield that something stands twice in a list that is a set (+listType=set)."""
    for index, value in enumerate(values):
        if value in values[:index]:
            yield (*path, index), f"{value} stands twice, also at [{values.index(value)}]"


def at_most(path: Path, items: Sequence[object], limit: int) -> Problems:
    """Yield that a list is too long, if it is."""
    if len(items) > limit:
        yield path, f"has {len(items)} items, expected at most {limit}"


def _reference(path: Path, name: str, namespace: str | None) -> Problems:
    if not 1 <= len(name) <= 253:
        yield (*path, "name"), f"has {len(name)} characters, expected 1 to 253"
    if namespace is not None and (wrong := syntax.dns_label(namespace)):
        yield (*path, "namespace"), wrong
