"""
The Gateway API's own rules for an HTTPRoute, beyond types.

In a cluster, the CRD's CEL expressions and the webhook enforce them; files have only us.  The
names of limits and the wording of rules follow apis/v1/httproute_types.go.  What a proxy would
refuse to write into a head is refused here already, by the proxy's own word (`writable`).
"""

from collections.abc import Iterator, Sequence

from meshproxy.routing import writable

from . import syntax
from .finding import Path
from .model import (
    HTTPHeaderFilter,
    HTTPHeaderMatch,
    HTTPPathModifier,
    HTTPQueryParamMatch,
    HTTPRoute,
    HTTPRouteFilter,
    HTTPRouteMatch,
    HTTPRouteRule,
)

Problems = Iterator[tuple[Path, str]]

MAX_RULES = 16
MAX_MATCHES = 64
MAX_ITEMS = 16
"""Of parentRefs, backendRefs (kubebuilder MaxItems, which the API server enforces), filters, headers."""

_SECTIONS = {
    "RequestHeaderModifier": ("requestHeaderModifier", "request_header_modifier"),
    "ResponseHeaderModifier": ("responseHeaderModifier", "response_header_modifier"),
    "RequestRedirect": ("requestRedirect", "request_redirect"),
    "URLRewrite": ("urlRewrite", "url_rewrite"),
}
"""Filter type → the field that belongs to it: in YAML, in the model."""


def problems_of_route(route: HTTPRoute) -> Problems:
    """Yield what is wrong with a route, whatever it refers to."""
    spec = route.spec
    if not spec.parent_refs:
        yield ("spec", "parentRefs"), "is missing, expected at least one Service"
    for index, parent in enumerate(spec.parent_refs):
        path: Path = ("spec", "parentRefs", index)
        yield from _reference(path, parent.name, parent.namespace)
        if parent in spec.parent_refs[:index]:
            yield path, f"is the same as parentRefs[{spec.parent_refs.index(parent)}]"
    yield from _at_most(("spec", "parentRefs"), spec.parent_refs, 32)
    yield from _at_most(("spec", "rules"), spec.rules, MAX_RULES)
    names: dict[str, int] = {}
    for number, rule in enumerate(spec.rules):
        path = ("spec", "rules", number)
        if rule.name is not None:
            if wrong := syntax.dns_name(rule.name):
                yield (*path, "name"), wrong
            if names.setdefault(rule.name, number) != number:
                first = f"rules[{names[rule.name]}]"
                yield (*path, "name"), f'"{rule.name}" is also the name of {first}'
        yield from _rule(path, rule)


def _rule(path: Path, rule: HTTPRouteRule) -> Problems:
    yield from _at_most((*path, "matches"), rule.matches, MAX_MATCHES)
    for index, match in enumerate(rule.matches):
        yield from _match((*path, "matches", index), match)
    yield from _filters((*path, "filters"), rule.filters, rule.matches)
    if rule.backend_refs and any(item.type == "RequestRedirect" for item in rule.filters):
        # "RequestRedirect filter must not be used together with backendRefs"
        message = "cannot stand beside a RequestRedirect filter, which forwards nothing"
        yield (*path, "backendRefs"), message
    yield from _at_most((*path, "backendRefs"), rule.backend_refs, MAX_ITEMS)
    for index, ref in enumerate(rule.backend_refs):
        here = (*path, "backendRefs", index)
        yield from _reference(here, ref.name, ref.namespace)
        if (ref.group, ref.kind) == ("", "Service") and ref.port is None:
            yield (*here, "port"), "is missing, expected the port of the Service"
        yield from _filters((*here, "filters"), ref.filters, rule.matches)


def _reference(path: Path, name: str, namespace: str | None) -> Problems:
    if not 1 <= len(name) <= 253:
        yield (*path, "name"), f"has {len(name)} characters, expected 1 to 253"
    if namespace is not None and (wrong := syntax.dns_label(namespace)):
        yield (*path, "namespace"), wrong


def _at_most(path: Path, items: Sequence[object], limit: int) -> Problems:
    if len(items) > limit:
        yield path, f"has {len(items)} items, expected at most {limit}"


# Matches ------------------------------------------------------------------------------------------


def _match(path: Path, match: HTTPRouteMatch) -> Problems:
    check = syntax.regular_expression if match.path.type == "RegularExpression" else syntax.path
    if wrong := check(match.path.value):
        yield (*path, "path", "value"), wrong
    yield from _values((*path, "headers"), match.headers)
    for index, header in enumerate(match.headers):
        if wrong := syntax.header_name(header.name):
            yield (*path, "headers", index, "name"), wrong
        if wrong := syntax.header_value(header.value):
            yield (*path, "headers", index, "value"), wrong
    yield from _values((*path, "queryParams"), match.query_params)
    for index, param in enumerate(match.query_params):
        # "HTTPHeaderName", in spite of what it names.
        if wrong := syntax.header_name(param.name):
            yield (*path, "queryParams", index, "name"), wrong


def _values(path: Path, matches: Sequence[HTTPHeaderMatch | HTTPQueryParamMatch]) -> Problems:
    yield from _at_most(path, matches, MAX_ITEMS)
    # +listType=map, +listMapKey=name
    yield from _unique_names(path, [match.name for match in matches])
    for index, match in enumerate(matches):
        if not match.value:
            yield (*path, index, "value"), "is empty, expected at least one character"
        if match.type == "RegularExpression" and (
            wrong := syntax.regular_expression(match.value)
        ):  # fmt: skip
            yield (*path, index, "value"), wrong


def _unique_names(path: Path, names: Sequence[str], field: str | None = "name") -> Problems:
    """Headers are told apart without regard to case; a name in two cases is as ambiguous."""
    first: dict[str, int] = {}
    for index, name in enumerate(names):
        known = first.setdefault(name.lower(), index)
        if known != index:
            where = (*path, index) if field is None else (*path, index, field)
            yield where, f'"{name}" stands twice, also at [{known}]'


# Filters ------------------------------------------------------------------------------------------


def _filters(
    path: Path, filters: Sequence[HTTPRouteFilter], matches: Sequence[HTTPRouteMatch]
) -> Problems:
    yield from _at_most(path, filters, MAX_ITEMS)
    types = [item.type for item in filters]
    for index, item in enumerate(filters):
        here = (*path, index)
        if item.type in types[:index]:
            message = f"{item.type} stands twice, also at [{types.index(item.type)}]"
            yield (*here, "type"), message
        if item.type == "RequestRedirect" and "URLRewrite" in types:
            # "May specify either httpRouteFilterRequestRedirect or httpRouteFilterRequestRewrite,
            # but not both"
            yield (*here, "type"), "RequestRedirect cannot stand beside URLRewrite"
        yield from _sections(here, item)
        for modifier, section in (
            (item.request_header_modifier, "requestHeaderModifier"),
            (item.response_header_modifier, "responseHeaderModifier"),
        ):
            if modifier is not None:
                yield from _modifier((*here, section), modifier)
        if item.request_redirect is not None:
            redirect = item.request_redirect
            yield from _hostname((*here, "requestRedirect"), redirect.hostname)
            yield from _path((*here, "requestRedirect", "path"), redirect.path, matches)
        if item.url_rewrite is not None:
            yield from _hostname((*here, "urlRewrite"), item.url_rewrite.hostname)
            yield from _path((*here, "urlRewrite", "path"), item.url_rewrite.path, matches)


def _sections(path: Path, item: HTTPRouteFilter) -> Problems:
    """Each type has its section: "filter.requestRedirect must be specified for RequestRedirect"."""
    for kind, (section, attribute) in _SECTIONS.items():
        given = getattr(item, attribute) is not None
        if kind == item.type and not given:
            yield (*path, section), f"is missing, expected it with type {item.type}"
        elif kind != item.type and given:
            expected = _SECTIONS[item.type][0]
            yield (*path, section), f"does not go with type {item.type}, expected {expected}"


def _modifier(path: Path, modifier: HTTPHeaderFilter) -> Problems:
    for action, headers in (("set", modifier.set), ("add", modifier.add)):
        yield from _at_most((*path, action), headers, MAX_ITEMS)
        yield from _unique_names((*path, action), [header.name for header in headers])
        for index, header in enumerate(headers):
            here = (*path, action, index)
            if wrong := syntax.header_name(header.name) or writable.wrong_name(header.name):
                yield (*here, "name"), wrong
            if wrong := syntax.header_value(header.value) or writable.wrong_value(header.value):
                yield (*here, "value"), wrong
    yield from _at_most((*path, "remove"), modifier.remove, MAX_ITEMS)
    yield from _unique_names((*path, "remove"), modifier.remove, field=None)
    for index, name in enumerate(modifier.remove):
        if wrong := syntax.header_name(name):
            yield (*path, "remove", index), wrong


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
