from control_plane.generate.called import called
from control_plane.generate.virtual_hosts import domains, inbound, outbound
from control_plane.store import State
from meshproxy.contract.resources import BackendSpec, RouteSpec, VirtualHostSpec
from tests.helpers.mesh import route, service, state, workload


def hosts(mesh: State) -> tuple[VirtualHostSpec, ...]:
    ports = called(mesh.services, mesh.routes.values(), "default")
    return outbound(ports, mesh.services, "default")


def test_names_as_cluster_dns_gives_them() -> None:
    """Always with the port; the bare name only to callers of the same namespace."""
    (catalog,) = state(service("catalog", "shop", 8080)).services.values()
    full = ("catalog.shop:80", "catalog.shop.svc:80", "catalog.shop.svc.cluster.local:80")
    assert domains(catalog, 80, "other") == full
    assert domains(catalog, 80, "shop") == ("catalog:80", *full)


def test_without_a_route_everything_goes_to_the_service() -> None:
    """One route that matches every request."""
    mesh = state(service("a"))
    (host,) = hosts(mesh)
    assert host.name == "default/a:80"
    assert host.routes == (
        RouteSpec(name="Service/default/a", backends=(BackendSpec(cluster="default/a:80"),)),
    )


def test_an_attached_route_ends_fall_through() -> None:
    """Only its rules are left: what none matches is answered 404."""
    mesh = state(
        service("a"), route("r", "a", "[{matches: [{path: {type: Exact, value: /only}}]}]")
    )
    (host,) = hosts(mesh)
    assert [one.name for one in host.routes] == ["HTTPRoute/default/r/0"]


def test_a_grpc_route_makes_grpc_routes() -> None:
    """Through its own rules, not those of HTTPRoute."""
    mesh = state(service("a"), route("r", "a", "[{}]", kind="GRPCRoute"))
    (host,) = hosts(mesh)
    assert [(one.name, one.match.grpc) for one in host.routes] == [("GRPCRoute/default/r/0", True)]


def test_what_is_no_http_has_no_virtual_host() -> None:
    """Neither a service's port nor the app's own."""
    mesh = state(service("a", app_protocol="tcp"), workload("a"))
    assert hosts(mesh) == ()
    assert inbound(mesh.workloads["default/a"], mesh.services) == ()


def test_inbound_serves_every_authority() -> None:
    """Whatever name the caller used, the app gets the request."""
    mesh = state(workload("a"))
    assert inbound(mesh.workloads["default/a"], {}) == (
        VirtualHostSpec(
            name="inbound:8080",
            domains=("*",),
            routes=(
                RouteSpec(name="inbound:8080", backends=(BackendSpec(cluster="inbound:8080"),)),
            ),
        ),
    )
