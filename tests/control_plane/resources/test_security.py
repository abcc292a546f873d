"""What an author may leave out of the kinds of security, and what it then means."""

import pytest

from control_plane.resources.security import (
    AuthorizationPolicy,
    PeerAuthentication,
    RequestAuthentication,
)
from tests.helpers.mesh import messages, security, source


def test_an_authorization_policy_allows_its_namespace_by_default() -> None:
    """And without rules it allows nothing: the empty one is "deny all", as in Istio."""
    made = source(security("AuthorizationPolicy", "")).resource
    assert isinstance(made, AuthorizationPolicy)
    spec = made.spec
    assert (spec.selector, spec.scope, spec.action, spec.rules) == (None, "Namespace", "ALLOW", ())


def test_a_rule_in_full() -> None:
    """Every field of the YAML, with the names that Istio's users know."""
    text = security(
        "AuthorizationPolicy",
        "selector: {matchLabels: {app: a}}, scope: Mesh, action: AUDIT, rules: [{name: r, "
        "from: [{source: {principals: [a], notPrincipals: [b], namespaces: [c], notNamespaces: [d], "
        "trustDomains: [e], notTrustDomains: [f], ipBlocks: [10.0.0.0/8], "
        "notIpBlocks: [10.1.0.0/16], requestPrincipals: [g], notRequestPrincipals: [h]}}], "
        "to: [{operation: {hosts: [a], notHosts: [b], methods: [GET], notMethods: [PUT], "
        "paths: [/c], notPaths: [/d], ports: [80], notPorts: [81]}}, "
        "{operation: {grpc: [{service: a.B, method: C}]}}], "
        "when: [{key: 'request.headers[x]', values: [a], notValues: [b]}]}]",
    )
    assert messages(text) == []
    made = source(text).resource
    assert isinstance(made, AuthorizationPolicy)
    (rule,) = made.spec.rules
    one = rule.sources[0].source
    assert [getattr(one, name) for name in one.__struct_fields__] == [
        ("a",), ("b",), ("c",), ("d",), ("e",), ("f",), ("10.0.0.0/8",), ("10.1.0.0/16",), ("g",),
        ("h",),
    ]  # fmt: skip
    first, second = (to.operation for to in rule.to)
    assert [getattr(first, name) for name in first.__struct_fields__] == [
        ("a",), ("b",), ("GET",), ("PUT",), ("/c",), ("/d",), (80,), (81,), (),
    ]  # fmt: skip
    assert (second.grpc[0].service, second.grpc[0].method) == ("a.B", "C")
    assert (rule.when[0].key, rule.when[0].values, rule.when[0].not_values) == (
        "request.headers[x]", ("a",), ("b",),
    )  # fmt: skip


def test_a_peer_authentication() -> None:
    """Ports are keys of a mapping, as in Istio."""
    text = "selector: {matchLabels: {app: a}}, portLevelMtls: {8080: {mode: PERMISSIVE}}"
    made = source(security("PeerAuthentication", text)).resource
    assert isinstance(made, PeerAuthentication)
    assert made.spec.mtls is None
    assert made.spec.port_level_mtls["8080"].mode == "PERMISSIVE"


def test_a_request_authentication() -> None:
    """The app does not see tokens, and clocks may differ by a minute, unless somebody says so."""
    made = source(
        security("RequestAuthentication", "jwtRules: [{issuer: i, jwksUri: 'https://i.example/k'}]")
    ).resource
    assert isinstance(made, RequestAuthentication)
    (rule,) = made.spec.jwt_rules
    assert (rule.forward_original_token, rule.leeway, rule.audiences) == (False, "1m", ())
    assert (rule.from_headers, rule.from_params, rule.output_claim_to_headers) == ((), (), ())


@pytest.mark.parametrize(
    ("kind", "spec", "expected"),
    [
        ("AuthorizationPolicy", "action: CUSTOM", 'spec.action: "CUSTOM" is not known, expected'),
        ("AuthorizationPolicy", "scope: Cluster", 'spec.scope: "Cluster" is not known, expected'),
        (
            "AuthorizationPolicy",
            "rules: [{from: [{principals: [a]}]}]",
            'spec.rules[0].from[0].principals: unknown field, did you mean "source.principals"',
        ),
        (
            "AuthorizationPolicy",
            "rules: [{to: [{operation: {path: [/a]}}]}]",
            'spec.rules[0].to[0].operation.path: unknown field, did you mean "paths"?',
        ),
        (
            "AuthorizationPolicy",
            "rules: [{to: [{operation: {ports: ['80']}}]}]",
            "spec.rules[0].to[0].operation.ports[0]: ",
        ),
        (
            "AuthorizationPolicy",
            "rules: [{to: [{operation: {ports: [0]}}]}]",
            "spec.rules[0].to[0].operation.ports[0]: 0 is out of range, expected an integer 1 to 65",
        ),
        (
            "RequestAuthentication",
            "",
            "spec.jwtRules: is missing",
        ),
        (
            "RequestAuthentication",
            "jwtRules: [{issuer: '', jwks: ''}]",
            "spec.jwtRules[0].issuer: ",
        ),
        (
            "RequestAuthentication",
            "jwtRules: [{issuer: i, jwksFile: k, leeway: -1s}]",
            'spec.jwtRules[0].leeway: "-1s" is not a duration',
        ),
    ],
)
def test_types(kind: str, spec: str, expected: str) -> None:
    """An unknown field would be a rule that holds more than its author meant: it is an error."""
    found = messages(security(kind, spec))
    assert found
    assert found[0].removeprefix(f"f.yaml:5: {kind}/default/p: ").startswith(expected)
