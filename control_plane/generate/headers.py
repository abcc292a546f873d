"""The filters RequestHeaderModifier and ResponseHeaderModifier, which HTTPRoute and GRPCRoute share."""

from collections.abc import Iterable

from control_plane.resources.gateway_api import GRPCRouteFilter, HTTPHeaderFilter, HTTPRouteFilter
from meshproxy.contract.resources import HeaderModifierSpec, HeaderSpec

Filter = HTTPRouteFilter | GRPCRouteFilter


def request_headers(filters: Iterable[Filter]) -> HeaderModifierSpec | None:
    """Return what these filters change in a request's head."""
    found = [item for item in filters if item.type == "RequestHeaderModifier"]
    return _headers(found[0].request_header_modifier) if found else None


def response_headers(filters: Iterable[Filter]) -> HeaderModifierSpec | None:
    """Return what these filters change in a response's head."""
    found = [item for item in filters if item.type == "ResponseHeaderModifier"]
    return _headers(found[0].response_header_modifier) if found else None


def _headers(modifier: HTTPHeaderFilter | None) -> HeaderModifierSpec | None:
    if modifier is None:
        return None
    return HeaderModifierSpec(
        set=tuple(HeaderSpec(name=one.name, value=one.value) for one in modifier.set),
        add=tuple(HeaderSpec(name=one.name, value=one.value) for one in modifier.add),
        remove=modifier.remove,
    )
