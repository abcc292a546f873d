import pytest
from hypothesis import given
from hypothesis import strategies as st

from control_plane.resources.attachment import SPECIFICITY, Decision, by_parent, decide
from control_plane.store import State
from tests.helpers.mesh import route, service, state, tcp_route, tls_route


def decision(mesh: State, namespace: str = "default", port: int = 80) -> Decision:
    own = mesh.services["default/a"]
    (found,) = (one for one in own.spec.ports if one.port == port)
    return decide(own, found, namespace, by_parent(mesh.routes.values()).get("default/a", ()))


def deciding(mesh: State, namespace: str = "default", port: int = 80) -> list[str]:
    return [route.metadata.name for route in decision(mesh, namespace, port).routes]


def test_consumer_routes_replace_producer_routes() -> None:
    """For their own namespace alone; inside a group, all count."""
    mesh = state(
        service("a"),
        route("producer-1", "a", "[{}]"),
        route("producer-2", "a", "[{}]"),
        route("consumer", "a", "[{}]", namespace="other"),
    )
    assert deciding(mesh, "default") == ["producer-1", "producer-2"]
    assert deciding(mesh, "other") == ["consumer"]
    assert deciding(mesh, "third") == ["producer-1", "producer-2"]


def test_a_route_attaches_to_all_ports_or_to_one() -> None:
    """By number or by name."""
    two = service("a").replace(
        "[{port: 80, targetPort: http}]", "[{port: 80, name: x}, {port: 81, name: y}]"
    )
    by_port = route("number", "a", "[{}]").replace("name: a", "name: a, port: 81")
    by_name = route("section", "a", "[{}]").replace("name: a", "name: a, sectionName: x")
    mesh = state(two, route("both", "a", "[{}]"), by_port, by_name)
    assert deciding(mesh, "default", 80) == ["both", "section"]
    assert deciding(mesh, "default", 81) == ["both", "number"]


def test_a_parent_that_does_not_resolve_attaches_nothing() -> None:
    """A route for a Gateway of the same name is not for the Service."""
    text = route("r", "a", "[{}]").replace("kind: Service", "kind: Gateway")
    assert deciding(state(service("a"), text)) == []


ONE_OF_EACH = (
    route("grpc", "a", "[{}]", kind="GRPCRoute"),
    route("http", "a", "[{}]"),
    tls_route("tls", "a", "[x.example]", "a"),
    tcp_route("tcp", "a", "a"),
)


@given(st.permutations(range(4)))
def test_only_one_kind_decides(order: list[int]) -> None:
    """GEP-1294: GRPCRoute, HTTPRoute, TLSRoute, TCPRoute; the first one wins."""
    for least in range(4):
        mesh = state(service("a"), *(ONE_OF_EACH[n] for n in order if n >= least))
        found = decision(mesh)
        assert found.kind == SPECIFICITY[least]
        assert [one.kind for one in found.routes] == [SPECIFICITY[least]]
        assert found.protocol == ("http" if least < 2 else "tcp")


def test_groups_come_before_kinds() -> None:
    """Consumer routes replace producer routes also of a kind that would win."""
    mesh = state(service("a"), route("r", "a", "[{}]"), tcp_route("t", "a", "a", namespace="other"))
    assert decision(mesh, "default").kind == "HTTPRoute"
    assert decision(mesh, "other").kind == "TCPRoute"


@pytest.mark.parametrize(
    ("said", "protocol", "kind"),
    [
        ("", "http", "GRPCRoute"),
        ("http", "http", "GRPCRoute"),
        ("tcp", "tcp", "TLSRoute"),
        ("https", "tcp", "TLSRoute"),
    ],
)
def test_a_port_takes_no_route_of_another_layer(said: str, protocol: str, kind: str) -> None:
    """Nobody can look for a path in bytes that are said to be none of ours."""
    found = decision(state(service("a", app_protocol=said), *ONE_OF_EACH))
    assert (found.protocol, found.kind) == (protocol, kind)


@pytest.mark.parametrize(("said", "protocol"), [("", "detect"), ("grpc", "http"), ("tls", "tcp")])
def test_without_routes_app_protocol_decides(said: str, protocol: str) -> None:
    """And without that, the first bytes."""
    assert decision(state(service("a", app_protocol=said))) == Decision(protocol)  # type: ignore[arg-type]


def dated(text: str, year: int) -> str:
    return text.replace(
        "default}\n", f"default, creationTimestamp: '{year}-01-01T00:00:00Z'}}\n", 1
    )


def test_the_oldest_tcp_route_takes_every_connection() -> None:
    """Nothing is left for another; of TLSRoutes all count, each for its names."""
    young, old = dated(tcp_route("a", "a", "a"), 2025), dated(tcp_route("b", "a", "a"), 2020)
    assert deciding(state(service("a"), young, old)) == ["b"]
    tls = (tls_route("x", "a", "[x]", "a"), dated(tls_route("y", "a", "[y]", "a"), 2020))
    assert deciding(state(service("a"), *tls)) == ["y", "x"]
