import pytest

from tests.helpers.mesh import messages, policy


@pytest.mark.parametrize(
    ("kind", "does"),
    [("RateLimitPolicy", "requests: 1"), ("FaultInjection", "delay: {fixedDelay: 1s}")],
)
@pytest.mark.parametrize(
    ("rules", "expected"),
    [
        ("[]", "spec.rules: is empty, expected at least one rule"),
        ("[{name: A, DOES}]", 'spec.rules[0].name: "A" is not a DNS name'),
        (
            "[{name: a, DOES}, {name: a, DOES}]",
            'spec.rules[1].name: "a" is also the name of rules[0]',
        ),
        (
            "[{match: {path: {value: a}}, DOES}]",
            'spec.rules[0].match.path.value: "a" is not absolute, expected a path',
        ),
        (
            "[{match: {method: get}, DOES}]",
            'spec.rules[0].match.method: "get" is not known, expected',
        ),
        ("[{matches: [], DOES}]", 'spec.rules[0].matches: unknown field, did you mean "match"?'),
        (f"[{', '.join(['{DOES}'] * 17)}]", "spec.rules: has 17 items, expected at most 16"),
    ],
)
def test_refused(kind: str, does: str, rules: str, expected: str) -> None:
    """What the rules of both kinds have in common is said in the same words."""
    (only,) = messages(policy("p", f"rules: {rules.replace('DOES', does)}", kind=kind))
    assert only.startswith(f"f.yaml:5: {kind}/default/p: {expected}")
