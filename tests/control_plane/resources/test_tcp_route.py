import pytest

from tests.helpers.mesh import messages, route, tcp_route

PLACE = "f.yaml:7: TCPRoute/default/r: spec.rules"


def test_accepted() -> None:
    """Also in the version that v1.6 still serves beside v1, with a name and weights."""
    text = tcp_route("r", "a", "a", "b")
    assert messages(text) == []
    assert messages(text.replace("/v1\n", "/v1alpha2\n")) == []
    rules = "[{name: x, backendRefs: [{name: a, port: 80, weight: 0}, {name: b, port: 80}]}]"
    assert messages(route("r", "a", rules, kind="TCPRoute")) == []


@pytest.mark.parametrize(
    ("rules", "expected"),
    [
        ("[]", ": is missing or empty, expected one rule"),
        ("[{}]", "[0].backendRefs: is missing or empty, expected at least one Service"),
        (
            "[{backendRefs: [{name: a, port: 1}]}, {backendRefs: [{name: a, port: 1}]}]",
            ": has 2 items, expected one: a rule has no conditions",
        ),
        ("[{backendRefs: [{name: a}]}]", "[0].backendRefs[0].port: is missing, expected the port"),
        (
            "[{matches: [], backendRefs: [{name: a, port: 1}]}]",
            "[0].matches: unknown field, expected one of backendRefs, name",
        ),
        (
            "[{backendRef: [{name: a, port: 1}]}]",
            '[0].backendRef: unknown field, did you mean "backendRefs"?',
        ),
        ("[{name: A, backendRefs: [{name: a, port: 1}]}]", '[0].name: "A" is not a DNS name'),
    ],
)
def test_refused(rules: str, expected: str) -> None:
    """The rules of the Gateway API, each with its field."""
    assert any(
        line.startswith(PLACE + expected)
        for line in messages(route("r", "a", rules, kind="TCPRoute"))
    )


def test_a_parent_is_needed() -> None:
    """A route without a parent would do nothing, silently."""
    text = tcp_route("r", "a", "a").replace("  parentRefs", "  # parentRefs")
    (only,) = messages(text)
    assert only.endswith("spec.parentRefs: is missing or empty, expected at least one Service")
