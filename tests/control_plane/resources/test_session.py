import pytest

from tests.helpers.mesh import messages, policy


def found(section: str) -> list[str]:
    prefix = "f.yaml:5: TrafficPolicy/default/p: spec.sessionPersistence."
    return [
        one.removeprefix(prefix) for one in messages(policy("p", f"sessionPersistence: {section}"))
    ]


@pytest.mark.parametrize(
    "section",
    [
        "{}",
        "{sessionName: a, absoluteTimeout: 1h}",
        "{type: Header, sessionName: x-session}",
        "{cookieConfig: {lifetimeType: Permanent}, absoluteTimeout: 1h}",
    ],
)
def test_accepted(section: str) -> None:
    """Each form of GEP-1619."""
    assert found(section) == []


@pytest.mark.parametrize(
    ("section", "expected"),
    [
        ("{sessionName: ''}", "sessionName: has 0 characters, expected 1 to 128"),
        ("{sessionName: a b}", 'sessionName: "a b" is not a header name'),
        ("{type: Header, sessionName: X-Mesh-A}", 'sessionName: "X-Mesh-A" begins with x-mesh-'),
        (
            "{type: Header, cookieConfig: {}}",
            "cookieConfig: does not go with type Header, expected",
        ),
        (
            "{cookieConfig: {lifetimeType: Permanent}}",
            "absoluteTimeout: is missing, expected it with",
        ),
        ("{absoluteTimeout: 0s}", 'absoluteTimeout: "0s" is too short, expected at least 1ms'),
        ("{idleTimeout: 1s}", "idleTimeout: unknown field, did you mean"),
    ],
)
def test_refused(section: str, expected: str) -> None:
    """Each is one finding, with its field."""
    (only,) = found(section)
    assert only.startswith(expected)
