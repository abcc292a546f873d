"""
HTTPRoutes to the ordered routes of one service port.

The Gateway API's rules that decide here:

* As soon as one route is attached, a request that no rule matches is answered 404: there is no
  fall-through to the Service's own endpoints.
* `hostnames` are ignored (GEP-1294).
* Of all matches the most specific wins; see `_precedence`.
"""

from collections.abc import Iterable, Sequence
from typing import Any, Literal

from control_plane.resources.attachment import Services, age
from control_plane.resources.model import (
    HTTPHeaderMatch,
    HTTPPathModifier,
    HTTPQueryParamMatch,
    HTTPRequestRedirectFilter,
    HTTPRoute,
    HTTPRouteFilter,
    HTTPRouteMatch,
    HTTPRouteRule,
    HTTPURLRewriteFilter,
)
from meshproxy.contract.matching import MatchSpec, PathMatchSpec, ValueMatchSpec
from meshproxy.contract.resources import PathRewriteSpec, RedirectSpec, RewriteSpec, RouteSpec

from .backends import http_backend
from .headers import request_headers, response_headers


def compiled(routes: Iterable[HTTPRoute], services: Services) -> tuple[RouteSpec, ...]:
    """Return one spec for each match of each rule, the most specific first."""
    ranked: list[tuple[Any, RouteSpec]] = []
    for route in routes:
        for number, rule in enumerate(route.spec.rules):
            # "If no matches are specified, the default is a prefix path match on '/'."
            for position, match in enumerate(rule.matches or (HTTPRouteMatch(),)):
                key = (*_precedence(match), *age(route), number, position)
                ranked.append((key, _route(route, number, rule, match, services)))
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
        -len(_first_of_each(match.headers, fold=True)),
        -len(_first_of_each(match.query_params, fold=False)),
    )


# One rule, one match ------------------------------------------------------------------------------


def _route(
    route: HTTPRoute, number: int, rule: HTTPRouteRule, match: HTTPRouteMatch, services: Services
) -> RouteSpec:
    metadata = route.metadata
    redirect = _first(rule.filters, "RequestRedirect")
    rewrite = _first(rule.filters, "URLRewrite")
    return RouteSpec(
        name=f"HTTPRoute/{metadata.namespace}/{metadata.name}/{rule.name or number}",
        match=_match(match),
        redirect=_redirect(redirect.request_redirect) if redirect else None,
        rewrite=_rewrite(rewrite.url_rewrite) if rewrite else None,
        request_headers=request_headers(rule.filters),
        response_headers=response_headers(rule.filters),
        backends=tuple(http_backend(ref, route, services) for ref in rule.backend_refs),
    )


def _match(match: HTTPRouteMatch) -> MatchSpec:
    kinds: dict[str, Literal["exact", "prefix", "regex"]] = {
        "Exact": "exact",
        "PathPrefix": "prefix",
        "RegularExpression": "regex",
    }
    return MatchSpec(
        path=PathMatchSpec(type=kinds[match.path.type], value=match.path.value),
        method=match.method,
        headers=_values(_first_of_each(match.headers, fold=True)),
        query=_values(_first_of_each(match.query_params, fold=False)),
    )


ValueMatch = HTTPHeaderMatch | HTTPQueryParamMatch


def _first_of_each(matches: Sequence[ValueMatch], *, fold: bool) -> list[ValueMatch]:
    """
    "If multiple entries specify equivalent header names, only the first entry with an equivalent
    name MUST be considered for a match.  Subsequent entries ... MUST be ignored."
    """
    first: dict[str, ValueMatch] = {}
    for match in matches:
        first.setdefault(match.name.lower() if fold else match.name, match)
    return list(first.values())


def _values(matches: Iterable[ValueMatch]) -> tuple[ValueMatchSpec, ...]:
    return tuple(
        ValueMatchSpec(
            name=match.name, type="exact" if match.type == "Exact" else "regex", value=match.value
        )
        for match in matches
    )


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
