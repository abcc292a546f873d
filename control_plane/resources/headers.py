"""
The Gateway API's rules for headers: conditions on them and changes to them.

HTTPRoute and GRPCRoute share them.  What a proxy would refuse to write into a head is refused here
already, by the proxy's own word (`writable`).
"""

from collections.abc import Sequence

from meshproxy.routing import writable

from . import syntax
from .finding import Path
from .gateway_api import (
    GRPCHeaderMatch,
    GRPCRouteFilter,
    HTTPHeaderFilter,
    HTTPHeaderMatch,
    HTTPQueryParamMatch,
    HTTPRouteFilter,
)
from .route import MAX_ITEMS, Problems, at_most

HeaderMatch = HTTPHeaderMatch | GRPCHeaderMatch
Filter = HTTPRouteFilter | GRPCRouteFilter

SECTIONS = {
    "RequestHeaderModifier": ("requestHeaderModifier", "request_header_modifier"),
    "ResponseHeaderModifier": ("responseHeaderModifier", "response_header_modifier"),
    "RequestMirror": ("requestMirror", "request_mirror"),
    "ExtensionRef": ("extensionRef", "extension_ref"),
}
"""Filter type → the field that belongs to it: in YAML, in the model."""


# Conditions ---------------------------------------------------------------------------------------


def problems_of_header_matches(path: Path, matches: Sequence[HeaderMatch]) -> Problems:
    """Yield what is wrong with `matches[].headers`."""
    yield from problems_of_values(path, matches)
    for index, header in enumerate(matches):
        if wrong := syntax.header_name(header.name):
            yield (*path, index, "name"), wrong
        if wrong := syntax.header_value(header.value):
            yield (*path, index, "value"), wrong


def problems_of_values(
    path: Path, matches: Sequence[HeaderMatch | HTTPQueryParamMatch]
) -> Problems:
    """Yield what is wrong with a list of names and the values that they should have."""
    yield from at_most(path, matches, MAX_ITEMS)
    # +listType=map, +listMapKey=name
    yield from unique_names(path, [match.name for match in matches])
    for index, match in enumerate(matches):
        if not match.value:
            yield (*path, index, "value"), "is empty, expected at least one character"
        if match.type == "RegularExpression" and (
            wrong := syntax.regular_expression(match.value)
        ):  # fmt: skip
            yield (*path, index, "value"), wrong


def unique_names(path: Path, names: Sequence[str], field: str | None = "name") -> Problems:
    """Headers are told apart without regard to case; a name in two cases is as ambiguous."""
    first: dict[str, int] = {}
    for index, name in enumerate(names):
        known = first.setdefault(name.lower(), index)
        if known != index:
            where = (*path, index) if field is None else (*path, index, field)
            yield where, f'"{name}" stands twice, also at [{known}]'


# Changes ------------------------------------------------------------------------------------------


def problems_of_sections(
    path: Path, item: Filter, sections: dict[str, tuple[str, str]] = SECTIONS
) -> Problems:
    """Each type has its section: "filter.requestRedirect must be specified for RequestRedirect"."""
    for kind, (section, attribute) in sections.items():
        given = getattr(item, attribute) is not None
        if kind == item.type and not given:
            yield (*path, section), f"is missing, expected it with type {item.type}"
        elif kind != item.type and given:
            expected = sections[item.type][0]
            yield (*path, section), f"does not go with type {item.type}, expected {expected}"


def problems_of_modifiers(path: Path, item: Filter) -> Problems:
    """Yield what is wrong with the changes that a filter makes to headers."""
    for modifier, section in (
        (item.request_header_modifier, "requestHeaderModifier"),
        (item.response_header_modifier, "responseHeaderModifier"),
    ):
        if modifier is not None:
            yield from _modifier((*path, section), modifier)


def problems_of_repetition(path: Path, filters: Sequence[Filter]) -> Problems:
    """
    Yield that a filter stands twice: "Specifying the same filter multiple times is not supported
    unless explicitly indicated in the filter", as in the two that refer to something.
    """
    yield from at_most(path, filters, MAX_ITEMS)
    types = [item.type for item in filters]
    for index, kind in enumerate(types):
        if kind in ("RequestMirror", "ExtensionRef"):
            if filters[index] in filters[:index]:
                yield (
                    (*path, index),
                    f"is the same as filters[{list(filters).index(filters[index])}]",
                )
        elif kind in types[:index]:
            yield (*path, index, "type"), f"{kind} stands twice, also at [{types.index(kind)}]"


def _modifier(path: Path, modifier: HTTPHeaderFilter) -> Problems:
    for action, headers in (("set", modifier.set), ("add", modifier.add)):
        yield from at_most((*path, action), headers, MAX_ITEMS)
        yield from unique_names((*path, action), [header.name for header in headers])
        for index, header in enumerate(headers):
            here = (*path, action, index)
            if wrong := syntax.header_name(header.name) or writable.wrong_name(header.name):
                yield (*here, "name"), wrong
            if wrong := syntax.header_value(header.value) or writable.wrong_value(header.value):
                yield (*here, "value"), wrong
    yield from at_most((*path, "remove"), modifier.remove, MAX_ITEMS)
    yield from unique_names((*path, "remove"), modifier.remove, field=None)
    for index, name in enumerate(modifier.remove):
        if wrong := syntax.header_name(name):
            yield (*path, "remove", index), wrong
