"""Who may come to a workload, in words."""

import msgspec
import pytest

from control_plane.cli.access import mtls_of, rows
from control_plane.generate.snapshot import generate
from control_plane.placement import Placement
from meshproxy.contract.resources import Snapshot
from tests.helpers.mesh import TRUST, security, service, state, workload

TWO_PORTS = workload("a").replace("[{port: 8080, name: http}]", "[{port: 8080}, {port: 5432}]")
SQL = service("a", app_protocol="postgresql").replace("targetPort: http", "targetPort: 5432")
PLACED = Placement(inbound_ports={8080: 1, 5432: 2}, app_ports={8080: 3, 5432: 4})


def snapshot(*texts: str, placement: Placement = PLACED) -> Snapshot:
    mesh = state(TWO_PORTS, SQL, *texts, placements={"default/a": placement})
    return generate(mesh, "default/a", TRUST)


def said(what: str, *texts: str) -> list[tuple[str, str]]:
    return [(port, text) for port, name, text in rows(snapshot(*texts)) if name == what]


def rule(text: str, action: str = "ALLOW") -> list[str]:
    """Return what is said of one rule, at the port of HTTP."""
    policy = security("AuthorizationPolicy", f"action: {action}, rules: [{text}]")
    begin = f"{action} default/p rule 0: "
    found = [said for port, said in said("authorization", policy) if port == "inbound:8080"]
    return [one.removeprefix(begin) for one in found]


def test_mutual_tls_port_by_port() -> None:
    """As PeerAuthentications and the mesh have it."""
    assert said("mtls") == [("inbound:5432", "strict"), ("inbound:8080", "strict")]
    spec = "selector: {matchLabels: {app: a}}, portLevelMtls: {5432: {mode: PERMISSIVE}}"
    assert said("mtls", security("PeerAuthentication", spec)) == [
        ("inbound:5432", "permissive"),
        ("inbound:8080", "strict"),
    ]


def test_captured_ports() -> None:
    """Each by itself, and what nobody has declared as `inbound`."""
    captured = Placement(address="10.0.0.1", captured=True, inbound_ports={8080: 8080, 5432: 5432})
    spec = "selector: {matchLabels: {app: a}}, portLevelMtls: {5432: {mode: PERMISSIVE}}"
    made = snapshot(security("PeerAuthentication", spec), placement=captured)
    expected = {"inbound": "strict", "inbound:5432": "permissive", "inbound:8080": "strict"}
    assert mtls_of(made) == expected
    bare = tuple(msgspec.structs.replace(one, mtls=None) for one in made.destinations)
    made = msgspec.structs.replace(made, destinations=bare)
    assert set(mtls_of(made).values()) == {"strict"}


def test_what_nobody_guards_has_no_rows() -> None:
    """Everything is allowed."""
    assert said("authorization") == []
    assert said("tokens") == []


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{}", "everything"),
        ("{to: [{operation: {ports: [8080]}}]}", "everything"),
        (
            "{from: [{source: {principals: [m/a], notNamespaces: [x, y]}}, {source: {ipBlocks: ['::1']}}]}",
            "from principals spiffe://m/a and no namespaces x or y or ip blocks ::1",
        ),
        (
            "{to: [{operation: {methods: [GET], paths: [/a, '/b/*']}}, {operation: {notHosts: [h]}}]}",
            "to methods GET and paths /a or /b/* or no hosts h",
        ),
        (
            (
                "{from: [{source: {requestPrincipals: ['*']}}], to: [{operation: {paths: [/a]}}], when: "
                "[{key: 'request.headers[x-a]', values: [b, c]}, "
                "{key: 'request.auth.claims[r][s]', notValues: [t]}]}"
            ),
            "from request principals *, to paths /a, when header x-a b or c and claim r.s not t",
        ),
    ],
)
def test_rules(text: str, words: str) -> None:
    """With the fields of the policy, in the order in which they are written."""
    for action in ("ALLOW", "DENY", "AUDIT"):
        assert rule(text, action) == [words]


def test_policies_without_rules() -> None:
    """The two mean opposite things, which the word says."""
    policies = [
        security("AuthorizationPolicy", f"action: {action}", name)
        for name, action in (("p", "ALLOW"), ("q", "DENY"))
    ]
    assert said("authorization", *policies) == [
        (port, text)
        for port in ("inbound:5432", "inbound:8080")
        for text in ("ALLOW default/p: nothing is allowed", "DENY default/q: no rule")
    ]


def test_issuers_of_tokens() -> None:
    """Where requests come, with all that is not as usual; without keys it says so loudly."""
    text = security(
        "RequestAuthentication",
        "jwtRules: [{issuer: i, jwksFile: k}, {issuer: j, jwksFile: k, audiences: [b, c], "
        "fromHeaders: [{name: x-t}], fromParams: [t], forwardOriginalToken: true, "
        "outputClaimToHeaders: [{header: x-u, claim: sub}]}]",
    )
    missing = "NO KEYS YET: none of its tokens is right"
    assert said("tokens", text) == [
        ("inbound:8080", f"i of RequestAuthentication default/p, {missing}"),
        (
            "inbound:8080",
            (
                "j of RequestAuthentication default/p, for b or c, in header x-t or parameter t, handed on, "
                f"x-u from sub, {missing}"
            ),
        ),
    ]
