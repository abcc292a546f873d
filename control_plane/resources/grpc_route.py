"""
The Gateway API's own rules for a GRPCRoute, beyond types (apis/v1/grpcroute_types.go).
"""

import re
from collections.abc import Sequence

from . import headers, session, syntax
from .finding import Path
from .gateway_api import GRPCMethodMatch, GRPCRoute, GRPCRouteFilter, GRPCRouteRule
from .route import (
    MAX_ITEMS,
    Problems,
    at_most,
    problems_of_backend,
    problems_of_matches,
    problems_of_mirror,
    problems_of_parents,
    problems_of_rule_names,
    problems_of_timeouts,
)

MAX_MATCHES = 64
MAX_NAME = 1024

_SERVICE = re.compile(r"\.?[A-Za-z_][A-Za-z_0-9]*(\.[A-Za-z_][A-Za-z_0-9]*)*")
_METHOD = re.compile(r"[A-Za-z_][A-Za-z_0-9]*")


def problems_of_route(route: GRPCRoute) -> Problems:
    """Yield what is wrong with a route, whatever it refers to."""
    yield from problems_of_parents(route.spec.parent_refs)
    yield from at_most(("spec", "rules"), route.spec.rules, MAX_ITEMS)
    yield from problems_of_matches(route)
    yield from problems_of_rule_names(route)
    for number, rule in enumerate(route.spec.rules):
        yield from _rule(("spec", "rules", number), rule)


def _rule(path: Path, rule: GRPCRouteRule) -> Problems:
    yield from at_most((*path, "matches"), rule.matches, MAX_MATCHES)
    for index, match in enumerate(rule.matches):
        here = (*path, "matches", index)
        if match.method is not None:
            yield from _method((*here, "method"), match.method)
        yield from headers.problems_of_header_matches((*here, "headers"), match.headers)
    yield from _filters((*path, "filters"), rule.filters)
    yield from problems_of_timeouts((*path, "timeouts"), rule.timeouts)
    if rule.session_persistence is not None:
        where = (*path, "sessionPersistence")
        yield from session.problems_of_session(where, rule.session_persistence)
    yield from at_most((*path, "backendRefs"), rule.backend_refs, MAX_ITEMS)
    for index, ref in enumerate(rule.backend_refs):
        here = (*path, "backendRefs", index)
        yield from problems_of_backend(here, ref)
        yield from _filters((*here, "filters"), ref.filters)


def _method(path: Path, match: GRPCMethodMatch) -> Problems:
    if not match.service and not match.method:
        # "One or both of 'service' or 'method' must be specified"
        yield path, "has neither service nor method, expected at least one of them"
    for field, value, pattern, example in (
        ("service", match.service, _SERVICE, "package.Service"),
        ("method", match.method, _METHOD, "GetBook"),
    ):
        if not value:
            continue
        if match.type == "RegularExpression":
            if wrong := syntax.regular_expression(value):
                yield (*path, field), wrong
        elif len(value) > MAX_NAME:
            yield (*path, field), f"is {len(value)} characters long, expected at most {MAX_NAME}"
        elif not pattern.fullmatch(value):
            yield (*path, field), f'"{value}" is not a gRPC {field}, expected such as {example}'


def _filters(path: Path, filters: Sequence[GRPCRouteFilter]) -> Problems:
    yield from headers.problems_of_repetition(path, filters)
    for index, item in enumerate(filters):
        yield from headers.problems_of_sections((*path, index), item)
        if item.request_mirror is not None:
            yield from problems_of_mirror((*path, index, "requestMirror"), item.request_mirror)
        yield from headers.problems_of_modifiers((*path, index), item)
