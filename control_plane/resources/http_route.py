"""
The Gateway API's own rules for an HTTPRoute, beyond types.

In a cluster, the CRD's CEL expressions and the webhook enforce them; files have only us.  The
names of limits and the wording of rules follow apis/v1/httproute_types.go.  What a proxy would
refuse to write into a head is refused here already, by the proxy's own word (`writable`).
"""

from collections.abc import Sequence

from meshproxy.routing import writable

from . import headers, session, syntax
from .finding import Path
from .gateway_api import HTTPPathModifier, HTTPRoute, HTTPRouteFilter, HTTPRouteMatch, HTTPRouteRule
from .route import (
    MAX_ITEMS,
    Problems,
    at_most,
    no_repetition,
    problems_of_backend,
    problems_of_matches,
    problems_of_mirror,
    problems_of_parents,
    problems_of_rule_names,
    problems_of_timeouts,
)

MAX_MATCHES = 64

_SECTIONS = {
    **headers.SECTIONS,
    "RequestRedirect": ("requestRedirect", "request_redirect"),
    "URLRewrite": ("urlRewrite", "url_rewrite"),
}


def problems_of_route(route: HTTPRoute) -> Problems:
    """Yield what is wrong with a route, whatever it refers to."""
    yield from problems_of_parents(route.spec.parent_refs)
    yield from at_most(("spec", "rules"), route.spec.rules, MAX_ITEMS)
    yield from problems_of_matches(route)
    yield from problems_of_rule_names(route)
    for number, rule in enumerate(route.spec.rules):
        yield from _rule(("spec", "rules", number), rule)


def _rule(path: Path, rule: HTTPRouteRule) -> Problems:
    yield from at_most((*path, "matches"), rule.matches, MAX_MATCHES)
    for index, match in enumerate(rule.matches):
        yield from problems_of_match((*path, "matches", index), match)
    yield from _filters((*path, "filters"), rule.filters, rule.matches)
    if rule.backend_refs and any(item.type == "RequestRedirect" for item in rule.filters):
        # "RequestRedirect filter must not be used together with backendRefs"
        message = "cannot stand beside a RequestRedirect filter, which forwards nothing"
        yield (*path, "backendRefs"), message
    yield from problems_of_timeouts((*path, "timeouts"), rule.timeouts)
    if rule.retry is not None:
        yield from no_repetition((*path, "retry", "codes"), rule.retry.codes)
    if rule.session_persistence is not None:
        where = (*path, "sessionPersistence")
        yield from session.problems_of_session(where, rule.session_persistence)
    yield from at_most((*path, "backendRefs"), rule.backend_refs, MAX_ITEMS)
    for index, ref in enumerate(rule.backend_refs):
        here = (*path, "backendRefs", index)
        yield from problems_of_backend(here, ref)
        yield from _filters((*here, "filters"), ref.filters, rule.matches)


# Matches ------------------------------------------------------------------------------------------


def problems_of_match(path: Path, match: HTTPRouteMatch) -> Problems:
    """Yield what is wrong with conditions on a request, of a route or of a policy."""
    check = syntax.regular_expression if match.path.type == "RegularExpression" else syntax.path
    if wrong := check(match.path.value):
        yield (*path, "path", "value"), wrong
    yield from headers.problems_of_header_matches((*path, "headers"), match.headers)
    yield from headers.problems_of_values((*path, "queryParams"), match.query_params)
    for index, param in enumerate(match.query_params):
        # "HTTPHeaderName", in spite of what it names.
        if wrong := syntax.header_name(param.name):
            yield (*path, "queryParams", index, "name"), wrong


# Filters ------------------------------------------------------------------------------------------


def _filters(
    path: Path, filters: Sequence[HTTPRouteFilter], matches: Sequence[HTTPRouteMatch]
) -> Problems:
    yield from headers.problems_of_repetition(path, filters)
    types = [item.type for item in filters]
    for index, item in enumerate(filters):
        here = (*path, index)
        if item.type == "RequestRedirect" and "URLRewrite" in types:
            # "May specify either httpRouteFilterRequestRedirect or httpRouteFilterRequestRewrite,
            # but not both"
            yield (*here, "type"), "RequestRedirect cannot stand beside URLRewrite"
        yield from headers.problems_of_sections(here, item, _SECTIONS)
        if item.request_mirror is not None:
            yield from problems_of_mirror((*here, "requestMirror"), item.request_mirror)
        yield from headers.problems_of_modifiers(here, item)
        if item.request_redirect is not None:
            redirect = item.request_redirect
            yield from _hostname((*here, "requestRedirect"), redirect.hostname)
            yield from _path((*here, "requestRedirect", "path"), redirect.path, matches)
        if item.url_rewrite is not None:
            yield from _hostname((*here, "urlRewrite"), item.url_rewrite.hostname)
            yield from _path((*here, "urlRewrite", "path"), item.url_rewrite.path, matches)


def _hostname(path: Path, hostname: str | None) -> Problems:
    if hostname is None:
        return
    if wrong := syntax.hostname(hostname) or writable.wrong_hostname(hostname):
        yield (*path, "hostname"), wrong


def _path(
    path: Path, modifier: HTTPPathModifier | None, matches: Sequence[HTTPRouteMatch]
) -> Problems:
    if modifier is None:
        return
    sections = {
        "ReplaceFullPath": ("replaceFullPath", modifier.replace_full_path),
        "ReplacePrefixMatch": ("replacePrefixMatch", modifier.replace_prefix_match),
    }
    for kind, (section, value) in sections.items():
        if kind == modifier.type and value is None:
            yield (*path, section), f"is missing, expected it with type {modifier.type}"
        elif kind != modifier.type and value is not None:
            yield (*path, section), f"does not go with type {modifier.type}"
        elif value:
            yield from _replacement((*path, section), value)
    if modifier.type == "ReplacePrefixMatch" and any(
        match.path.type != "PathPrefix" for match in matches
    ):
        # "When using URLRewrite filter with path.replacePrefixMatch, exactly one PathPrefix match
        # must be specified"; like Envoy Gateway we take several, each replaces its own prefix.
        message = "ReplacePrefixMatch replaces a prefix, expected only PathPrefix in matches"
        yield (*path, "type"), message


def _replacement(path: Path, value: str) -> Problems:
    if wrong := syntax.path(value) or writable.wrong_path(value):
        yield path, wrong
