import pytest

from control_plane.generate.authorization import authorization
from control_plane.resources.model import DEFAULT_MESH
from meshproxy.contract.authorization import (
    AuthorizationRuleSpec,
    AuthorizationSpec,
    FactSpec,
    OperationSpec,
    SourceSpec,
)
from tests.helpers.mesh import security, state, workload


def made(*texts: str, port: int = 8080) -> tuple[AuthorizationSpec, ...]:
    mesh = state(workload("a"), *texts)
    workloads, policies = mesh.workloads, mesh.security.values()
    return authorization(workloads["default/a"], port, policies, DEFAULT_MESH)


def only(rule: str, port: int = 8080) -> AuthorizationRuleSpec:
    """Return one rule, as the contract has it."""
    (policy,) = made(security("AuthorizationPolicy", f"rules: [{rule}]"), port=port)
    (found,) = policy.rules
    return found


def test_what_selects_nobody_is_not_there() -> None:
    """Empty means that everything is allowed."""
    assert made() == ()
    other = "selector: {matchLabels: {app: b}}"
    assert made(security("AuthorizationPolicy", other)) == ()


@pytest.mark.parametrize("action", ["ALLOW", "DENY", "AUDIT"])
def test_actions(action: str) -> None:
    """In lower case, under the name by which an operator finds the policy; oldest first."""
    old = ", creationTimestamp: '2020-01-01T00:00:00Z'"
    texts = [
        security("AuthorizationPolicy", f"action: {action}, rules: [{{}}]"),
        security("AuthorizationPolicy", f"action: {action}", "q", metadata=old),
    ]
    empty, full = made(*texts)
    assert (empty.name, empty.action, empty.rules) == ("default/q", action.lower(), ())
    assert (full.name, full.action) == ("default/p", action.lower())
    assert full.rules == (AuthorizationRuleSpec(name="0"),)


def test_rules_are_named() -> None:
    """By their name, or by their number in the file: also where those before are about other ports."""
    elsewhere = "{to: [{operation: {ports: [1]}}]}"
    (policy,) = made(security("AuthorizationPolicy", f"rules: [{elsewhere}, {{name: a}}, {{}}]"))
    assert [rule.name for rule in policy.rules] == ["a", "2"]


def test_callers() -> None:
    """As written; principals get the scheme that Istio's users leave out."""
    rule = only(
        "{from: [{source: {principals: [a.b/ns/c/sa/d, '*/sa/e'], "
        "notPrincipals: [spiffe://a.b/ns/f/*], namespaces: [n], notNamespaces: ['o*'], "
        "trustDomains: [t], notTrustDomains: [u], ipBlocks: [10.0.0.0/8], "
        "notIpBlocks: [10.0.0.1], requestPrincipals: [i/s], notRequestPrincipals: [j/*]}}, "
        "{source: {namespaces: [second]}}]}"
    )
    assert rule.sources == (
        SourceSpec(
            principals=("spiffe://a.b/ns/c/sa/d", "*/sa/e"),
            not_principals=("spiffe://a.b/ns/f/*",),
            namespaces=("n",),
            not_namespaces=("o*",),
            trust_domains=("t",),
            not_trust_domains=("u",),
            ip_blocks=("10.0.0.0/8",),
            not_ip_blocks=("10.0.0.1",),
            request_principals=("i/s",),
            not_request_principals=("j/*",),
        ),
        SourceSpec(namespaces=("second",)),
    )


def test_operations() -> None:
    """As written, without the ports: those are the listener's."""
    rule = only(
        "{to: [{operation: {hosts: [A.example], notHosts: [b], methods: [GET], notMethods: [PUT], "
        "paths: [/c, '/d/{*}'], notPaths: [/e], ports: [8080], notPorts: [9]}}]}"
    )
    assert rule.operations == (
        OperationSpec(
            hosts=("A.example",),
            not_hosts=("b",),
            methods=("GET",),
            not_methods=("PUT",),
            paths=("/c", "/d/{*}"),
            not_paths=("/e",),
        ),
    )


@pytest.mark.parametrize(
    ("call", "path"),
    [
        ("{service: shop.Cart, method: Add}", "/shop.Cart/Add"),
        ("{service: shop.Cart}", "/shop.Cart/*"),
        ("{service: shop.Cart, method: 'Get*'}", "/shop.Cart/Get*"),
        ("{service: 'shop.*'}", "/shop.*"),
        ("{method: Check}", "*/Check"),
    ],
)
def test_grpc_is_a_path_and_post(call: str, path: str) -> None:
    """So that the proxy has one way to compare."""
    rule = only(f"{{to: [{{operation: {{grpc: [{call}]}}}}]}}")
    assert rule.operations == (OperationSpec(methods=("POST",), paths=(path,)),)


def test_several_grpc_methods_are_one_operation() -> None:
    """One of them must match, and none of the others beside them."""
    rule = only(
        "{to: [{operation: {grpc: [{service: a, method: B}, {service: c}], notPaths: [/c/D], "
        "hosts: [h]}}]}"
    )
    assert rule.operations == (
        OperationSpec(methods=("POST",), paths=("/a/B", "/c/*"), not_paths=("/c/D",), hosts=("h",)),
    )


def test_conditions() -> None:
    """Headers by name; claims by the way to them."""
    rule = only(
        "{when: [{key: 'request.headers[x-role]', values: [a, 'b*'], notValues: [c]}, "
        "{key: 'request.auth.claims[realm][roles]', values: [d]}, "
        "{key: 'request.auth.claims[https://shop.example/role]', notValues: [e]}]}"
    )
    assert rule.facts == (
        FactSpec(kind="header", name="x-role", values=("a", "b*"), not_values=("c",)),
        FactSpec(kind="claim", path=("realm", "roles"), values=("d",)),
        FactSpec(kind="claim", path=("https://shop.example/role",), not_values=("e",)),
    )


# Ports --------------------------------------------------------------------------------------


def test_rules_for_other_ports_are_left_out() -> None:
    """And of a rule for several ports, the operations that are not this one's."""
    rule = (
        "{to: [{operation: {ports: [8080], paths: [/a]}}, {operation: {ports: [9], paths: [/b]}}]}"
    )
    assert only(rule).operations == (OperationSpec(paths=("/a",)),)
    assert only(rule, 9).operations == (OperationSpec(paths=("/b",)),)


@pytest.mark.parametrize("operation", ["ports: [9]", "notPorts: [8080]"])
def test_an_allow_policy_about_other_ports_still_closes_this_one(operation: str) -> None:
    """It selects the workload, and no rule of it allows anything here; as in Istio."""
    rules = f"rules: [{{to: [{{operation: {{{operation}}}}}]}}]"
    (policy,) = made(security("AuthorizationPolicy", rules))
    assert (policy.action, policy.rules) == ("allow", ())


def test_an_operation_about_this_port_alone_asks_nothing_more() -> None:
    """What the port said is known: every request to it is meant."""
    assert only("{to: [{operation: {ports: [8080]}}]}").operations == (OperationSpec(),)
