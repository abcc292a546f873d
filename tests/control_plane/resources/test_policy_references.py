import pytest

from tests.helpers.mesh import policy, route, service, state, tcp_route

OLD = ", creationTimestamp: '2020-01-01T00:00:00Z'"
PORTS = service("a").replace("{port: 80,", "{port: 80, name: web,")


def found(*texts: str) -> list[str]:
    mesh = state(*texts)
    assert all(finding.severity == "unresolved" for finding in mesh.findings)
    return [str(finding) for finding in mesh.findings]


def test_what_resolves_is_silent() -> None:
    """One policy for a Service, one for a port of it."""
    assert found(PORTS, policy("p", "", section="web")) == []


def test_a_service_that_does_not_exist() -> None:
    """No error: the policy holds as soon as there is one; until then it says so."""
    assert found(policy("p", "", target="aa"), service("a")) == [
        (
            "0.yaml:5: TrafficPolicy/default/p: spec.targetRefs[0]: Accepted=False (TargetNotFound): "
            'Service default/aa does not exist, did you mean "default/a"?'
        )
    ]


def test_a_port_that_does_not_exist() -> None:
    """By name, so the names are told."""
    (only,) = found(PORTS, policy("p", "", section="wep"))
    assert only.endswith(
        '(TargetNotFound): Service default/a has no port of the name "wep", expected one of web'
    )
    (only,) = found(service("a"), policy("p", "", section="web"))
    assert only.endswith('has no port of the name "web", its port has no name')


def test_two_for_one_service() -> None:
    """The younger is told which one goes before."""
    assert found(service("a"), policy("p", "", metadata=OLD), policy("q", "")) == [
        (
            "2.yaml:5: TrafficPolicy/default/q: spec.targetRefs[0]: Accepted=False (Conflicted): "
            "port 80 of Service default/a follows TrafficPolicy default/p alone: it is the older one"
        )
    ]


def test_one_for_all_ports_of_which_each_has_its_own() -> None:
    """Nothing is left for it; but as long as there is a port, that is no conflict."""
    (only,) = found(PORTS, policy("p", "", metadata=OLD), policy("q", "", section="web"))
    assert only.endswith(
        "Accepted=False (Overridden): each port of Service default/a has a TrafficPolicy that names it"
    )
    two = PORTS.replace("{port: 80,", "{port: 81, name: other}, {port: 80,")
    assert found(two, policy("p", "", metadata=OLD), policy("q", "", section="web")) == []


def test_other_kinds_never_conflict() -> None:
    """They add up."""
    limit = "rules: [{requests: 1}]"
    kind = "RateLimitPolicy"
    assert found(service("a"), policy("p", limit, kind=kind), policy("q", limit, kind=kind)) == []


LIMIT = "rules: [{requests: 1}]"


@pytest.mark.parametrize("kind", ["RateLimitPolicy", "FaultInjection"])
def test_what_is_about_requests_needs_requests(kind: str) -> None:
    """On a port of opaque connections it would do nothing, and nobody would know."""
    rules = LIMIT if kind == "RateLimitPolicy" else "rules: [{abort: {httpStatus: 503}}]"
    (only,) = found(service("a", app_protocol="redis"), policy("p", rules, kind=kind))
    assert only.endswith(
        "spec.targetRefs[0]: Accepted=False (Invalid): port 80 of Service default/a takes opaque "
        "connections; this kind is about requests of HTTP"
    )
    (only,) = found(
        service("a"), service("b"), tcp_route("r", "a", "b"), policy("p", rules, kind=kind)
    )
    assert "port 80 of Service default/a takes opaque connections" in only
    assert found(service("a"), policy("p", rules, kind=kind)) == []
    both = PORTS.replace("{port: 80,", "{port: 81, name: db, appProtocol: redis}, {port: 80,")
    assert found(both, policy("p", rules, kind=kind)) == []
    (only,) = found(both, policy("p", rules, kind=kind, section="db"))
    assert "port 81" in only


@pytest.mark.parametrize(
    ("said", "route_kind", "checked"),
    [("", "", False), ("http", "", False), ("grpc", "", True), ("", "GRPCRoute", True)],
)
def test_grpc_health_needs_http2(said: str, route_kind: str, checked: bool) -> None:
    """Asked in HTTP/1.1, every endpoint would seem to be ill."""
    texts = [service("a", app_protocol=said), policy("p", "healthCheck: {grpc: {}}")]
    if route_kind:
        texts.append(route("r", "a", "[{backendRefs: [{name: a, port: 80}]}]", kind=route_kind))
    told = found(*texts)
    assert (told == []) == checked
    if not checked:
        assert told[0].endswith(
            "spec.healthCheck.grpc: Accepted=False (Invalid): port 80 of Service default/a is spoken "
            "to in HTTP/1.1, so it is not checked: gRPC needs HTTP/2 (appProtocol: grpc on the "
            "Service's port)"
        )
