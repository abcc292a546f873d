"""Headers, as HTTPRoute and GRPCRoute share them; `test_http_route` tries each rule."""

import pytest

from tests.helpers.mesh import messages, route


@pytest.mark.parametrize("kind", ["HTTPRoute", "GRPCRoute"])
@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        (
            "{matches: [{headers: [{name: x, value: '[', type: RegularExpression}]}]}",
            'matches[0].headers[0].value: "[" is not a regular expression',
        ),
        (
            "{matches: [{headers: [{name: a, value: b}, {name: A, value: b}]}]}",
            'matches[0].headers[1].name: "A" stands twice, also at [0]',
        ),
        (
            "{filters: [{type: RequestHeaderModifier}]}",
            "filters[0].requestHeaderModifier: is missing",
        ),
        (
            (
                "{filters: [{type: ResponseHeaderModifier, requestHeaderModifier: {}, "
                "responseHeaderModifier: {}}]}"
            ),
            "filters[0].requestHeaderModifier: does not go with type ResponseHeaderModifier",
        ),
        (
            (
                "{filters: [{type: RequestHeaderModifier, requestHeaderModifier: "
                "{set: [{name: te, value: a}]}}]}"
            ),
            "filters[0].requestHeaderModifier.set[0].name: te is the proxy's own to write",
        ),
    ],
)
def test_the_same_rules_for_both(kind: str, rule: str, expected: str) -> None:
    """What is wrong in one is wrong in the other."""
    (only,) = messages(route("r", "a", f"[{rule}]", kind=kind))
    assert f"{kind}/default/r: spec.rules[0].{expected}" in only
