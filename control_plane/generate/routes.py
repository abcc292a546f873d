"""
From HTTPRoutes to the ordered routes of one service port, as one namespace sees it.

The Gateway API's rules for a mesh (GEP-1226, GEP-1294, GEP-1324) that decide here:

* A route attaches to a Service through `parentRefs`, to all of its ports or to one.
* As soon as one is attached, a request that no rule matches is answered 404: there is no
  fall-through to the Service's own endpoints.
* A *producer* route (in the Service's namespace) holds for every client; a *consumer* route (in
  another) only for clients in its own namespace, where the consumer routes *replace* the producer
  routes.
* `hostnames` are ignored.
* Of all matches the most specific wins; see `_precedence`.
"""

from collections.abc import Iterable, Sequence
from typing import Any, Literal

from control_plane.resources.model import (
    HTTPBackendRef,
    HTTPHeaderFilter,
    HTTPHeaderMatch,
    HTTPPathModifier,
    HTTPQueryParamMatch,
    HTTPRequestRedirectFilter,
    HTTPRoute,
    HTTPRouteFilter,
    HTTPRouteMatch,
    HTTPRouteRule,
    HTTPURLRewriteFilter,
    Service,
    ServicePort,
)
from control_plane.resources.references import (
    BACKEND_FILTERS,
    Problem,
    Services,
    backend_problem,
    parent_ports,
)
from meshproxy.contract.resources import (
    BackendSpec,
    HeaderModifierSpec,
    HeaderSpec,
    MatchSpec,
    PathMatchSpec,
    PathRewriteSpec,
    RedirectSpec,
    RewriteSpec,
    RouteSpec,
    ValueMatchSpec,
)


def cluster_name(service: str, port: int) -> str:
    """Return the name that the virtual host and the cluster of a service port share."""
    return f"{service}:{port}"


def by_parent(routes: Iterable[HTTPRoute]) -> dict[str, list[HTTPRoute]]:
    """Return the routes that name each Service, so that not every route is asked for each one."""
    found: dict[str, list[HTTPRoute]] = {}
    for route in routes:
        names = {
            f"{ref.namespace or route.metadata.namespace}/{ref.name}"
            for ref in route.spec.parent_refs
        }
        for name in names:
            found.setdefault(name, []).append(route)
    return found


def attached(
    service: Service,
    port: ServicePort,
    namespace: str,
    routes: Iterable[HTTPRoute],
    services: Services,
) -> list[HTTPRoute]:
    """Return the routes that decide for clients in `namespace`, in no particular order."""
    producers: list[HTTPRoute] = []
    consumers: list[HTTPRoute] = []
    for route in routes:
        if not _attaches(route, service, port, services):
            continue
        if route.metadata.namespace == service.metadata.namespace:
            producers.append(route)
        elif route.metadata.namespace == namespace:
            consumers.append(route)
    return consumers or producers


def _attaches(route: HTTPRoute, service: Service, port: ServicePort, services: Services) -> bool:
    here = (service.metadata.namespace, service.metadata.name)
    for ref in route.spec.parent_refs:
        if (ref.namespace or route.metadata.namespace, ref.name) != here:
            continue
        ports = parent_ports(ref, route.metadata.namespace, services)
        if not isinstance(ports, Problem) and port in ports:
            return True
    return False


def compiled(routes: Iterable[HTTPRoute], services: Services) -> tuple[RouteSpec, ...]:
    """Return one spec for each match of each rule, the most specific first."""
    ranked: list[tuple[Any, RouteSpec]] = []
    for route in routes:
        for number, rule in enumerate(route.spec.rules):
            # "If no matches are specified, the default is a prefix path match on '/'."
            for position, match in enumerate(rule.matches or (HTTPRouteMatch(),)):
                key = (*_precedence(match), *_age(route), number, position)
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


def _age(route: HTTPRoute) -> tuple[bool, str, str]:
    """
    "If ties still exist across multiple Routes: the oldest Route based on creation timestamp; the
    Route appearing first in alphabetical order by '{namespace}/{name}'."

    A route out of a file has no timestamp; it counts as younger than one that has.
    """
    metadata = route.metadata
    created = metadata.creation_timestamp
    return created is None, created or "", f"{metadata.namespace}/{metadata.name}"


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
        request_headers=_request_headers(rule.filters),
        response_headers=_response_headers(rule.filters),
        backends=tuple(_backend(ref, metadata.namespace, services) for ref in rule.backend_refs),
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


def _backend(ref: HTTPBackendRef, namespace: str, services: Services) -> BackendSpec:
    resolved = backend_problem(ref, namespace, services) is None
    # "Implementations MUST NOT skip filters": a backend with one that we lack answers 500.
    if not resolved or any(item.type not in BACKEND_FILTERS for item in ref.filters):
        return BackendSpec(cluster=None, weight=ref.weight)
    assert ref.port is not None
    return BackendSpec(
        cluster=cluster_name(f"{ref.namespace or namespace}/{ref.name}", ref.port),
        weight=ref.weight,
        request_headers=_request_headers(ref.filters),
        response_headers=_response_headers(ref.filters),
    )


# Filters ------------------------------------------------------------------------------------------


def _first(filters: Iterable[HTTPRouteFilter], kind: str) -> HTTPRouteFilter | None:
    return next((item for item in filters if item.type == kind), None)


def _request_headers(filters: Iterable[HTTPRouteFilter]) -> HeaderModifierSpec | None:
    found = _first(filters, "RequestHeaderModifier")
    return _headers(found.request_header_modifier) if found else None


def _response_headers(filters: Iterable[HTTPRouteFilter]) -> HeaderModifierSpec | None:
    found = _first(filters, "ResponseHeaderModifier")
    return _headers(found.response_header_modifier) if found else None


def _headers(modifier: HTTPHeaderFilter | None) -> HeaderModifierSpec | None:
    if modifier is None:
        return None
    return HeaderModifierSpec(
        set=tuple(HeaderSpec(name=one.name, value=one.value) for one in modifier.set),
        add=tuple(HeaderSpec(name=one.name, value=one.value) for one in modifier.add),
        remove=modifier.remove,
    )


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
