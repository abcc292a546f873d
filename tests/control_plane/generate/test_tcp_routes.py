from control_plane.generate.called import called
from control_plane.generate.tcp_routes import inbound, outbound
from control_plane.store import State
from meshproxy.contract.resources import TcpBackendSpec, TcpRouteSpec, TcpRuleSpec
from tests.helpers.mesh import route, service, state, tcp_route, tls_route, workload


def routes(mesh: State) -> dict[str, TcpRouteSpec]:
    ports = called(mesh.services, mesh.routes.values(), "default")
    return {one.name: one for one in outbound(ports, mesh.services, "default")}


def to(name: str, *clusters: str | None, server_names: tuple[str, ...] = ()) -> TcpRuleSpec:
    backends = tuple(TcpBackendSpec(cluster=cluster) for cluster in clusters)
    return TcpRuleSpec(name=name, server_names=server_names, backends=backends)


def test_without_a_route_every_connection_goes_to_the_service() -> None:
    """On ports that may be anything, and on those that are no HTTP; none on those that are."""
    mesh = state(service("a"), service("b", app_protocol="tcp"), service("c", app_protocol="http"))
    assert {name: route.rules for name, route in routes(mesh).items()} == {
        f"default/{name}:80": (to(f"Service/default/{name}", f"default/{name}:80"),)
        for name in ("a", "b")
    }


def test_a_tcp_route_splits_by_weight() -> None:
    """A backend that is not there keeps its share."""
    mesh = state(service("a"), service("b"), tcp_route("t", "a", "a", "b", "missing"))
    rule = to("TCPRoute/default/t/0", "default/a:80", "default/b:80", None)
    assert routes(mesh)["default/a:80"].rules == (rule,)


def test_tls_routes_decide_by_server_name() -> None:
    """Each with its names; there is no rule for what none of them wants."""
    mesh = state(
        service("a"),
        service("b"),
        tls_route("x", "a", "['*.example', example]", "a"),
        tls_route("y", "a", "[special.example]", "b"),
    )
    assert routes(mesh)["default/a:80"].rules == (
        to("TLSRoute/default/x/0", "default/a:80", server_names=("*.example", "example")),
        to("TLSRoute/default/y/0", "default/b:80", server_names=("special.example",)),
    )


def test_an_http_route_leaves_nothing_for_other_connections() -> None:
    """Its port speaks HTTP: GEP-1294 lets one kind decide."""
    assert routes(state(service("a"), route("r", "a", "[{}]"))) == {}


def test_inbound_leads_to_the_app() -> None:
    """Unless the services in front of it say that it speaks HTTP."""
    mesh = state(service("a"), workload("a"))
    own = mesh.workloads["default/a"]
    assert inbound(own, mesh.services) == (
        TcpRouteSpec(name="inbound:8080", rules=(to("inbound:8080", "inbound:8080"),)),
    )
    assert inbound(own, state(service("a", app_protocol="grpc")).services) == ()


def test_names_stand_in_one_place() -> None:
    """A port of bytes alone is asked for by its route's names; another by its virtual host's."""
    mesh = state(service("a"), service("b", app_protocol="tcp"))
    assert routes(mesh)["default/a:80"].domains == ()
    assert routes(mesh)["default/b:80"].domains == (
        "b:80", "b.default:80", "b.default.svc:80", "b.default.svc.cluster.local:80",
    )  # fmt: skip
