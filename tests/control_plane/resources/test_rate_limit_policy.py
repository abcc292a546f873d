import pytest

from tests.helpers.mesh import messages, policy


def found(rule: str) -> list[str]:
    prefix = "f.yaml:5: RateLimitPolicy/default/p: spec.rules[0]."
    text = policy("p", f"rules: [{rule}]", kind="RateLimitPolicy")
    return [one.removeprefix(prefix) for one in messages(text)]


@pytest.mark.parametrize(
    "rule",
    [
        "{requests: 1}",
        "{name: a, requests: 100, interval: 1m, burst: 10, per: {type: Identity}}",
        "{requests: 1, per: {type: Header, header: x-user}, match: {method: POST}}",
    ],
)
def test_accepted(rule: str) -> None:
    """One bucket, one for each caller, one for each value of a header."""
    assert found(rule) == []


def test_no_target_is_needed() -> None:
    """A route can refer to it instead."""
    text = policy("p", "rules: [{requests: 1}]", kind="RateLimitPolicy")
    start, end = text.index("targetRefs"), text.index("rules")
    assert messages(text[:start] + text[end:]) == []


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        ("{}", "requests: is missing, expected an integer 1 to"),
        ("{requests: 0}", "requests: 0 is out of range, expected an integer 1 to"),
        ("{requests: 1, interval: 0s}", 'interval: "0s" is too short, expected at least 1ms'),
        (
            "{requests: 1, per: {type: Header}}",
            "per.header: is missing, expected it with type Header",
        ),
        (
            "{requests: 1, per: {header: a}}",
            "per.header: does not go with type All, expected Header",
        ),
        (
            "{requests: 1, per: {type: Header, header: a b}}",
            'per.header: "a b" is not a header name',
        ),
        (
            "{requests: 1, per: {type: User}}",
            'per.type: "User" is not known, expected one of All, Hea',
        ),
    ],
)
def test_refused(rule: str, expected: str) -> None:
    """Each is one finding, with its field."""
    (only,) = found(rule)
    assert only.startswith(expected)
