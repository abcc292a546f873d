"""
GRPCRoutes to the ordered routes of one service port.

A gRPC call is ``POST /package.Service/Method`` with a content type of its own, so a condition on
service and method is one on the path.  Beside it, each route asks that the request *is* gRPC:
"If no matches are specified, the implementation MUST match every gRPC request" and nothing else.
What no rule matches is refused: gRPC with UNIMPLEMENTED, anything else with 404.
"""

from collections.abc import Iterable
from typing import Any

from control_plane.resources.attachment import Services, age
from control_plane.resources.gateway_api import (
    GRPCMethodMatch,
    GRPCRoute,
    GRPCRouteMatch,
    GRPCRouteRule,
)
from control_plane.resources.references import Policies
from meshproxy.contract.matching import MatchSpec, PathMatchSpec
from meshproxy.contract.resources import RouteSpec

from .backends import http_backend
from .headers import request_headers, response_headers
from .matches import first_of_each, value_matches
from .route_policies import with_policies

_ANY = "[^/]+"


def compiled(
    routes: Iterable[GRPCRoute], services: Services, policies: Policies
) -> tuple[RouteSpec, ...]:
    """Return one spec for each match of each rule, the most specific first."""
    ranked: list[tuple[Any, RouteSpec]] = []
    for route in routes:
        for number, rule in enumerate(route.spec.rules):
            for position, match in enumerate(rule.matches or (GRPCRouteMatch(),)):
                key = (*_precedence(match), *age(route), number, position)
                ranked.append((key, _route(route, number, rule, match, services, policies)))
    ranked.sort(key=lambda pair: pair[0])
    return tuple(spec for _, spec in ranked)


def _precedence(match: GRPCRouteMatch) -> tuple[int, int, int, int]:
    """
    Return a key that sorts more specific matches first.

    GRPCRouteRule.matches: "Precedence MUST be given to the rule with the largest number of:
    * Characters in a matching service.
    * Characters in a matching method.
    * Header matches."

    How many characters a regular expression will match nobody knows beforehand: it comes after
    every exact name, but before no condition at all.
    """
    method = match.method
    if method is None:
        rank, service, name = 2, 0, 0
    elif method.type == "RegularExpression":
        rank, service, name = 1, 0, 0
    else:
        rank, service, name = 0, len(method.service), len(method.method)
    return rank, -service, -name, -len(first_of_each(match.headers, fold=True))


def _route(
    route: GRPCRoute,
    number: int,
    rule: GRPCRouteRule,
    match: GRPCRouteMatch,
    services: Services,
    policies: Policies,
) -> RouteSpec:
    metadata = route.metadata
    spec = RouteSpec(
        name=f"GRPCRoute/{metadata.namespace}/{metadata.name}/{rule.name or number}",
        match=MatchSpec(
            path=None if match.method is None else _path(match.method),
            grpc=True,
            headers=value_matches(first_of_each(match.headers, fold=True)),
        ),
        request_headers=request_headers(rule.filters),
        response_headers=response_headers(rule.filters),
        backends=tuple(http_backend(ref, route, services) for ref in rule.backend_refs),
    )
    return with_policies(spec, rule, route, services, policies)


def _path(match: GRPCMethodMatch) -> PathMatchSpec:
    service, method = match.service, match.method
    if match.type == "RegularExpression":
        parts = [f"(?:{part})" if part else _ANY for part in (service, method)]
        return PathMatchSpec(type="regex", value="/" + "/".join(parts))
    if not method:
        return PathMatchSpec(type="prefix", value=f"/{service}")
    if not service:  # a method's name has only letters, digits and "_": nothing to escape
        return PathMatchSpec(type="regex", value=f"/{_ANY}/{method}")
    return PathMatchSpec(type="exact", value=f"/{service}/{method}")
