"""
HTTPRoutes to the ordered routes of one service port.

The Gateway API's rules that decide here:

* As soon as one route is attached, a request that no rule matches is answered 404: there is no
  fall-through to the Service's own endpoints.
* `hostnames` are ignored (GEP-1294).
* Of all matches the most specific wins; see `_precedence`.
"""

from collections.abc import Iterable
from typing import Any

from control_plane.resources.attachment import Services, age
from control_plane.resources.gateway_api import (
    HTTPPathModifier,
    HTTPRequestRedirectFilter,
    HTTPRoute,
    HTTPRouteFilter,
    HTTPRouteMatch,
    HTTPRouteRule,
    HTTPURLRewriteFilter,
)
from control_plane.resources.references import Policies
from meshproxy.contract.resources import PathRewriteSpec, RedirectSpec, RewriteSpec, RouteSpec

from .backends import http_backend
from .headers import request_headers, response_headers
from .matches import first_of_each, http_match
from .route_policies import retry, with_policies


def compiled(
    routes: Iterable[HTTPRoute], services: Services, policies: Policies
) -> tuple[RouteSpec, ...]:
    """Return one spec for each match of each rule, the most specific first."""
    ranked: list[tuple[Any, RouteSpec]] = []
    for route in routes:
        for number, rule in enumerate(route.spec.rules):
            # "If no matches are specified, the default is a prefix path match on '/'."
            for position, match in enumerate(rule.matches or (HTTPRouteMatch(),)):
                key = (*_precedence(match), *age(route), number, position)
                ranked.append((key, _route(route, number, rule, match, services, policies)))
    ranked.sort(key=lambda pair: pair[0])
    return tuple(spec for _, spec in ranked)


# Order --------------------------------------------------------------------------------------------


def _precedence(match: HTTPRouteMatch) -> tuple[int, int, int, int, int]:
    """
    Return a key that sorts more specific matches first.

    HTTPRouteRule.matches: "Precedence must be given to the match having:
    * 'Exact' path match.
    * 'Prefix' path match with largest number of characters.
    * Method match.
    * Largest number of header matches.
    * Largest number of query param matches.
    Note: The precedence of RegularExpression path matches are implementation-specific."

    Ours: a regular expression comes after every real prefix, but before the prefix "/", which
    says nothing about the path and would otherwise shadow it.
    """
    path = match.path
    if path.type == "Exact":
        rank, characters = 0, 0
    elif path.type == "RegularExpression":
        rank, characters = 2, 0
    else:
        rank, characters = (3, 0) if path.value == "/" else (1, len(path.value))
    return (
        rank,
        -characters,
        0 if match.method else 1,
        -len(first_of_each(match.headers, fold=True)),
        -len(first_of_each(match.query_params, fold=False)),
    )


# One rule, one match ------------------------------------------------------------------------------


def _route(
    route: HTTPRoute,
    number: int,
    rule: HTTPRouteRule,
    match: HTTPRouteMatch,
    services: Services,
    policies: Policies,
) -> RouteSpec:
    metadata = route.metadata
    redirect = _first(rule.filters, "RequestRedirect")
    rewrite = _first(rule.filters, "URLRewrite")
    spec = RouteSpec(
        name=f"HTTPRoute/{metadata.namespace}/{metadata.name}/{rule.name or number}",
        match=http_match(match),
        redirect=_redirect(redirect.request_redirect) if redirect else None,
        rewrite=_rewrite(rewrite.url_rewrite) if rewrite else None,
        request_headers=request_headers(rule.filters),
        response_headers=response_headers(rule.filters),
        backends=tuple(http_backend(ref, route, services) for ref in rule.backend_refs),
        retry=None if rule.retry is None else retry(rule.retry),
    )
    return with_policies(spec, rule, route, services, policies)


# Filters ------------------------------------------------------------------------------------------


def _first(filters: Iterable[HTTPRouteFilter], kind: str) -> HTTPRouteFilter | None:
    return next((item for item in filters if item.type == kind), None)


def _redirect(redirect: HTTPRequestRedirectFilter | None) -> RedirectSpec | None:
    if redirect is None:
        return None
    return RedirectSpec(
        status=redirect.status_code,
        scheme=redirect.scheme,
        hostname=redirect.hostname,
        port=redirect.port,
        path=_path(redirect.path),
    )


def _rewrite(rewrite: HTTPURLRewriteFilter | None) -> RewriteSpec | None:
    if rewrite is None:
        return None
    return RewriteSpec(hostname=rewrite.hostname, path=_path(rewrite.path))


def _path(modifier: HTTPPathModifier | None) -> PathRewriteSpec | None:
    if modifier is None:
        return None
    if modifier.type == "ReplaceFullPath":
        return PathRewriteSpec(type="full", value=modifier.replace_full_path or "")
    return PathRewriteSpec(type="prefix", value=modifier.replace_prefix_match or "")
