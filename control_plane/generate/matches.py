"""Conditions on a request, of an HTTPRoute or of a policy, as the contract has them."""

from collections.abc import Iterable, Sequence
from typing import Literal

from control_plane.resources.gateway_api import HTTPRouteMatch, ValueMatch
from meshproxy.contract.matching import MatchSpec, PathMatchSpec, ValueMatchSpec

ANYTHING = HTTPRouteMatch()


def http_match(match: HTTPRouteMatch) -> MatchSpec:
    """Return the conditions of an HTTPRoute, of which the path always is one."""
    kinds: dict[str, Literal["exact", "prefix", "regex"]] = {
        "Exact": "exact",
        "PathPrefix": "prefix",
        "RegularExpression": "regex",
    }
    return MatchSpec(
        path=PathMatchSpec(type=kinds[match.path.type], value=match.path.value),
        method=match.method,
        headers=value_matches(first_of_each(match.headers, fold=True)),
        query=value_matches(first_of_each(match.query_params, fold=False)),
    )


def of_policy(match: HTTPRouteMatch) -> MatchSpec:
    """Return the conditions of a policy's rule: without any, none."""
    return MatchSpec() if match == ANYTHING else http_match(match)


def first_of_each(matches: Sequence[ValueMatch], *, fold: bool) -> list[ValueMatch]:
    """
    "If multiple entries specify equivalent header names, only the first entry with an equivalent
    name MUST be considered for a match.  Subsequent entries ... MUST be ignored."
    """
    first: dict[str, ValueMatch] = {}
    for match in matches:
        first.setdefault(match.name.lower() if fold else match.name, match)
    return list(first.values())


def value_matches(matches: Iterable[ValueMatch]) -> tuple[ValueMatchSpec, ...]:
    return tuple(
        ValueMatchSpec(
            name=match.name, type="exact" if match.type == "Exact" else "regex", value=match.value
        )
        for match in matches
    )
