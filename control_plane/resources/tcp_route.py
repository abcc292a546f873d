"""
The Gateway API's own rules for a TCPRoute, beyond types (apis/v1/tcproute_types.go).

A TLSRoute's rules are the same, so `tls_route` borrows them.
"""

from .finding import Path
from .gateway_api import TCPRoute, TLSRoute
from .route import (
    MAX_ITEMS,
    Problems,
    at_most,
    problems_of_backend,
    problems_of_parents,
    problems_of_rule_names,
)


def problems_of_route(route: TCPRoute) -> Problems:
    """Yield what is wrong with a route, whatever it refers to."""
    yield from problems_of_parents(route.spec.parent_refs)
    yield from problems_of_rules(route)


def problems_of_rules(route: TCPRoute | TLSRoute) -> Problems:
    """Yield what is wrong with the rules of a route whose rules have no conditions."""
    path: Path = ("spec", "rules")
    if not route.spec.rules:
        yield path, "is missing or empty, expected one rule"
    elif len(route.spec.rules) > 1:
        # MinItems=1, MaxItems=1: nothing could tell which of several applies.
        yield path, f"has {len(route.spec.rules)} items, expected one: a rule has no conditions"
    yield from problems_of_rule_names(route)
    for number, rule in enumerate(route.spec.rules):
        here = (*path, number, "backendRefs")
        if not rule.backend_refs:
            yield here, "is missing or empty, expected at least one Service"
        yield from at_most(here, rule.backend_refs, MAX_ITEMS)
        for index, ref in enumerate(rule.backend_refs):
            yield from problems_of_backend((*here, index), ref)
