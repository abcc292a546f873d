import pytest

from tests.helpers.mesh import messages, tls_route


@pytest.mark.parametrize("version", ["v1", "v1alpha2", "v1alpha3"])
def test_accepted(version: str) -> None:
    """Names and wildcards, in every version that v1.6 serves."""
    text = tls_route("r", "a", "['*.example.com', a.example.com, localhost]", "a", "b")
    assert messages(text.replace("/v1\n", f"/{version}\n")) == []


@pytest.mark.parametrize(
    ("hostnames", "expected"),
    [
        ("[]", ": is missing or empty, expected at least one server name (SNI)"),
        ("['*']", '[0]: "*" is not a DNS name'),
        ("['a.*.example']", '[0]: "a.*.example" is not a DNS name'),
        ("[A.example]", '[0]: "A.example" is not a DNS name'),
        ("[10.0.0.1]", '[0]: "10.0.0.1" is an address, expected a DNS name'),
        ("[a.example, a.example]", '[1]: "a.example" stands twice, also at [0]'),
    ],
)
def test_hostnames(hostnames: str, expected: str) -> None:
    """What a ClientHello can carry (RFC 6066), in lower case, a wildcard only in front."""
    (only,) = messages(tls_route("r", "a", hostnames, "a"))
    assert only.partition("spec.hostnames")[2].startswith(expected)


def test_rules_are_those_of_a_tcp_route() -> None:
    """One, with a backend."""
    (only,) = messages(tls_route("r", "a", "[a.example]"))
    assert only.endswith(
        "spec.rules[0].backendRefs: is missing or empty, expected at least one Service"
    )
