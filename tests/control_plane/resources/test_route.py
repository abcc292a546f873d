"""What routes of all kinds have in common; `test_http_route` and its like have the rest."""

import pytest

from tests.helpers.mesh import messages, route

RULES = {
    "HTTPRoute": "[{name: x}, {name: x}]",
    "GRPCRoute": "[{name: x}, {name: x}]",
}


@pytest.mark.parametrize("kind", RULES)
def test_rule_names_are_unique(kind: str) -> None:
    """A name is a metric label: two rules under one could not be told apart."""
    (only,) = messages(route("r", "a", RULES[kind], kind=kind))
    assert only.endswith('spec.rules[1].name: "x" is also the name of rules[0]')


@pytest.mark.parametrize("kind", RULES)
def test_matches_are_limited_over_all_rules(kind: str) -> None:
    """As the API server would: 128 are taken, more are not."""
    rule = f"{{matches: [{', '.join(['{}'] * 64)}]}}"
    assert messages(route("r", "a", f"[{rule}, {rule}]", kind=kind)) == []
    (only,) = messages(route("r", "a", f"[{rule}, {rule}, {{matches: [{{}}]}}]", kind=kind))
    assert only.endswith("spec.rules: has 129 matches in all, expected at most 128")


@pytest.mark.parametrize("kind", ["HTTPRoute", "GRPCRoute", "TLSRoute", "TCPRoute"])
@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("name: a", 'name: ""', "spec.parentRefs[0].name: has 0 characters, expected 1 to 253"),
        ("namespace: default}]", "namespace: A}]", 'spec.parentRefs[0].namespace: "A" is not'),
        ("port: 80", "port: 0", "spec.rules[0].backendRefs[0].port: 0 is out of range"),
        ("name: b", f"name: {'b' * 254}", "spec.rules[0].backendRefs[0].name: has 254 characters"),
    ],
)
def test_references(kind: str, old: str, new: str, expected: str) -> None:
    """Names and ports are checked the same everywhere."""
    text = route("r", "a", "[{backendRefs: [{name: b, port: 80}]}]", kind=kind)
    if kind == "TLSRoute":
        text += "  hostnames: [a]\n"
    found = messages(text.replace(old, new))
    assert any(f"{kind}/default/r: {expected}" in line for line in found), found
