import pytest

from tests.helpers.mesh import messages, policy


def found(principals: str) -> list[str]:
    rule = f"rules: [{{requests: 1, from: {{principals: {principals}}}}}]"
    prefix = "f.yaml:5: RateLimitPolicy/default/p: spec.rules[0].from.principals"
    return [one.removeprefix(prefix) for one in messages(policy("p", rule, kind="RateLimitPolicy"))]


@pytest.mark.parametrize(
    "principals",
    ["[]", "[spiffe://mesh.local/ns/default/sa/a]", "[spiffe://mesh.local/ns/a*, spiffe://m/*]"],
)
def test_accepted(principals: str) -> None:
    """Whole identities, and beginnings of them."""
    assert found(principals) == []


@pytest.mark.parametrize(
    ("principals", "expected"),
    [
        (
            "[default/a]",
            '[0]: "default/a" is not an identity, expected such as spiffe://mesh.local/ns',
        ),
        ("['*']", '[0]: "*" is not an identity, expected such as'),
        ("[spiffe://m/*/sa/a]", '[0]: "spiffe://m/*/sa/a" is not an identity, expected such as'),
        ("[spiffe://m/a/]", '[0]: "spiffe://m/a/" is not an identity, expected such as'),
        ("[spiffe://m/a, spiffe://m/a]", "[1]: spiffe://m/a stands twice, also at [0]"),
    ],
)
def test_refused(principals: str, expected: str) -> None:
    """Each with what it should look like."""
    (only,) = found(principals)
    assert only.startswith(expected)
