import pytest

from tests.helpers.mesh import messages, security

KINDS = {
    "PeerAuthentication": "mtls: {mode: STRICT}",
    "AuthorizationPolicy": "action: DENY",
    "RequestAuthentication": "jwtRules: [{issuer: i, jwksFile: keys.json}]",
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("selector", "expected"),
    [
        ("", None),
        (", selector: {matchLabels: {app: a, shop.example/tier: ''}}", None),
        (
            ", selector: {}",
            (
                "spec.selector.matchLabels: is empty, expected a label; leave `selector` out to mean all "
                "workloads"
            ),
        ),
        (
            ", selector: {matchLabels: {}}",
            "spec.selector.matchLabels: is empty, expected a label; leave",
        ),
        (", selector: {matchLabels: {a b: c}}", 'spec.selector.matchLabels.a b: "a b" is not'),
        (", selector: {matchLabels: {a: b c}}", 'spec.selector.matchLabels.a: "b c" is not'),
        (
            ", selector: {matchLabel: {a: b}}",
            "spec.selector.matchLabel: unknown field, did you mean",
        ),
    ],
)
def test_a_selector(kind: str, selector: str, expected: str | None) -> None:
    """All three kinds have the same, with the same rules."""
    found = messages(security(kind, KINDS[kind] + selector))
    if expected is None:
        assert found == []
        return
    (only,) = found
    assert only.startswith(f"f.yaml:5: {kind}/default/p: {expected}")
