import pytest

from control_plane.resources.model import MeshConfig
from control_plane.resources.security_references import allowed
from tests.helpers.mesh import mesh_config, security, service, source, state, workload

SELECTED = "selector: {matchLabels: {app: a}}"
TWO_PORTS = workload("a").replace("[{port: 8080, name: http}]", "[{port: 8080}, {port: 5432}]")
SQL = service("a", app_protocol="postgresql").replace("targetPort: http", "targetPort: 5432")


def found(*texts: str) -> list[str]:
    mesh = state(*texts)
    assert all(finding.severity == "unresolved" for finding in mesh.findings)
    return [str(finding) for finding in mesh.findings]


def rules(action: str, rule: str, spec: str = SELECTED) -> str:
    return security("AuthorizationPolicy", f"{spec}, action: {action}, rules: [{rule}]")


# Whom it selects ----------------------------------------------------------------------------


def test_what_has_an_effect_is_silent() -> None:
    """Of every kind, with and without a selector."""
    assert (
        found(
            workload("a"),
            service("a"),
            mesh_config("jwks: {allowedHosts: [id.example]}"),
            security("PeerAuthentication", "mtls: {mode: STRICT}"),
            security(
                "PeerAuthentication",
                f"{SELECTED}, portLevelMtls: {{8080: {{mode: PERMISSIVE}}}}",
                "q",
            ),
            rules("DENY", "{to: [{operation: {paths: [/admin*]}}]}"),
            security(
                "RequestAuthentication",
                f"{SELECTED}, jwtRules: [{{issuer: i, jwksUri: 'https://id.example/k'}}]",
            ),
        )
        == []
    )


@pytest.mark.parametrize(
    ("kind", "spec"),
    [
        ("PeerAuthentication", "mtls: {mode: STRICT}"),
        ("AuthorizationPolicy", "action: DENY"),
        ("RequestAuthentication", "jwtRules: [{issuer: i, jwksFile: k}]"),
    ],
)
def test_nobody_is_selected(kind: str, spec: str) -> None:
    """By labels, or because the namespace is empty; while there are no workloads, nothing is said."""
    other = "selector: {matchLabels: {app: b}}"
    assert found(workload("a"), security(kind, f"{other}, {spec}")) == [
        (
            f"1.yaml:5: {kind}/default/p: spec.selector: Accepted=False (TargetNotFound): "
            "no workload of namespace default is selected by these labels"
        )
    ]
    assert found(workload("a"), security(kind, spec, namespace="other")) == [
        (
            f"1.yaml:5: {kind}/other/p: spec: Accepted=False (TargetNotFound): "
            "no workload of namespace other is selected"
        )
    ]
    assert found(security(kind, f"{other}, {spec}")) == []


def test_scope_mesh_elsewhere() -> None:
    """It would be the whole mesh's policy, written by one namespace: it stays in its own."""
    spec = "scope: Mesh, action: DENY"
    wide = security("AuthorizationPolicy", spec, namespace="shop")
    home = mesh_config("", "mesh-system")
    assert found(workload("a", "shop"), home, wide) == [
        (
            "2.yaml:5: AuthorizationPolicy/shop/p: spec.scope: Accepted=False (Invalid): scope Mesh is "
            "for policies in namespace mesh-system, where the MeshConfig is: this one holds in its own"
        )
    ]
    assert (
        found(
            workload("a", "shop"),
            home,
            security("AuthorizationPolicy", spec, namespace="mesh-system"),
        )
        == []
    )


# PeerAuthentication -------------------------------------------------------------------------


def test_a_port_that_nobody_has() -> None:
    """The ports that there are, in the order of their numbers."""
    text = security("PeerAuthentication", f"{SELECTED}, portLevelMtls: {{8081: {{mode: STRICT}}}}")
    assert found(TWO_PORTS, text) == [
        (
            "1.yaml:5: PeerAuthentication/default/p: spec.portLevelMtls.8081: Accepted=False (Invalid): "
            "no selected workload has port 8081, expected one of 5432, 8080"
        )
    ]


# AuthorizationPolicy ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("action", "effect"),
    [
        ("ALLOW", "the rule allows nothing there"),
        ("DENY", "the rule denies every connection of its callers there"),
        ("AUDIT", "the rule counts every connection of its callers there"),
    ],
)
def test_rules_about_requests_on_an_opaque_port(action: str, effect: str) -> None:
    """Said with what becomes of it, rather than ignored in silence."""
    text = rules(action, "{}, {to: [{operation: {methods: [GET]}}]}")
    assert found(TWO_PORTS, SQL, text) == [
        (
            "2.yaml:5: AuthorizationPolicy/default/p: spec.rules[1].to[0].operation: Accepted=False "
            "(Invalid): asks about requests, but port 5432 of default/a is opaque TCP: "
            f"{effect}; expected `ports` that say which ports are meant"
        )
    ]


@pytest.mark.parametrize(
    ("rule", "field"),
    [
        ("{to: [{operation: {hosts: [a]}}]}", "to[0].operation"),
        ("{to: [{operation: {ports: [5432]}}, {operation: {notPaths: [/a]}}]}", "to[1].operation"),
        ("{to: [{operation: {ports: [5432], notMethods: [GET]}}]}", "to[0].operation"),
        ("{to: [{operation: {notPorts: [8080], grpc: [{method: A}]}}]}", "to[0].operation"),
        ("{from: [{source: {requestPrincipals: ['*']}}]}", "from[0].source"),
        ("{from: [{source: {notRequestPrincipals: ['*']}}]}", "from[0].source"),
        ("{when: [{key: 'request.headers[a]', values: [b]}]}", "when[0]"),
        ("{when: [{key: 'request.auth.claims[a]', values: [b]}]}", "when[0]"),
    ],
)
def test_everything_that_is_about_requests(rule: str, field: str) -> None:
    """With the field that makes it so."""
    (only,) = found(TWO_PORTS, SQL, rules("DENY", rule))
    assert f"spec.rules[0].{field}: Accepted=False" in only


@pytest.mark.parametrize(
    "rule",
    [
        "{}",
        "{from: [{source: {principals: [a]}}, {source: {ipBlocks: [10.0.0.0/8]}}]}",
        "{to: [{operation: {ports: [5432]}}]}",
        "{to: [{operation: {ports: [8080], paths: [/a]}}]}",
        "{to: [{operation: {notPorts: [5432], paths: [/a]}}]}",
    ],
)
def test_what_holds_on_an_opaque_port(rule: str) -> None:
    """Callers and ports are known there; rules for other ports do not count."""
    assert found(TWO_PORTS, SQL, rules("DENY", rule)) == []


def test_a_port_whose_first_bytes_decide() -> None:
    """Requests may come there, so nothing is wrong."""
    plain = service("a").replace("targetPort: http", "targetPort: 5432")
    assert found(TWO_PORTS, plain, rules("DENY", "{to: [{operation: {paths: [/a]}}]}")) == []


# RequestAuthentication ----------------------------------------------------------------------


def test_keys_from_a_host_that_is_not_allowed() -> None:
    """Nothing is fetched, and it says so: tokens of that issuer would all be wrong."""
    rule = "jwtRules: [{issuer: i, jwksFile: k}, {issuer: j, jwksUri: 'https://id.example:8443/k'}]"
    text = security("RequestAuthentication", rule)
    assert found(workload("a"), text) == [
        (
            "1.yaml:5: RequestAuthentication/default/p: spec.jwtRules[1].jwksUri: Accepted=False "
            "(Invalid): id.example:8443 is not among spec.jwks.allowedHosts of the MeshConfig, so "
            "nothing is fetched, and no token of this issuer is right"
        )
    ]
    config = mesh_config("jwks: {allowedHosts: ['id.example:8443']}")
    assert found(workload("a"), config, text) == []


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("https://id.example/k", True),
        ("https://id.example:8443/k", True),
        ("https://other.example:9/k", True),
        ("https://other.example/k", False),
        ("https://id.example.evil.example/k", False),
        ("https://evil.example/id.example", False),
        ("https://ID.example/k", True),
    ],
)
def test_hosts(address: str, expected: bool) -> None:
    """With or without a port, and the whole name."""
    config = source(mesh_config("jwks: {allowedHosts: [id.example, 'other.example:9']}")).resource
    assert isinstance(config, MeshConfig)
    assert allowed(address, config) == expected
