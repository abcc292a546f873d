"""
The Gateway API's own rules for a TLSRoute, beyond types (apis/v1/tlsroute_types.go).
"""

from . import syntax
from .gateway_api import TLSRoute
from .route import Problems, at_most, problems_of_parents
from .tcp_route import problems_of_rules

MAX_HOSTNAMES = 1024


def problems_of_route(route: TLSRoute) -> Problems:
    """Yield what is wrong with a route, whatever it refers to."""
    yield from problems_of_parents(route.spec.parent_refs)
    hostnames = route.spec.hostnames
    if not hostnames:  # MinItems=1
        yield ("spec", "hostnames"), "is missing or empty, expected at least one server name (SNI)"
    yield from at_most(("spec", "hostnames"), hostnames, MAX_HOSTNAMES)
    for index, hostname in enumerate(hostnames):
        # "A hostname may be prefixed with a wildcard label (`*.`)"
        if wrong := syntax.hostname(hostname.removeprefix("*.")):
            yield ("spec", "hostnames", index), wrong
        if hostname in hostnames[:index]:
            first = hostnames.index(hostname)
            yield ("spec", "hostnames", index), f'"{hostname}" stands twice, also at [{first}]'
    yield from problems_of_rules(route)
