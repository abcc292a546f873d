from control_plane.generate.called import called
from control_plane.generate.virtual_hosts import domains, inbound, outbound
from control_plane.resources.policy_attachment import by_target
from control_plane.store import State
from meshproxy.contract.resources import BackendSpec, RouteSpec, VirtualHostSpec
from tests.helpers.mesh import policy, route, service, state, workload


def hosts(mesh: State) -> tuple[VirtualHostSpec, ...]:
    ports = called(mesh.services, mesh.routes.values(), "default")
    return outbound(
        ports, mesh.services, "default", mesh.policies, by_target(mesh.policies.values())
    )


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
    assert inbound(mesh.workloads["default/a"], mesh.services, {}) == ()


def test_inbound_serves_every_authority() -> None:
    """Whatever name the caller used, the app gets the request."""
    mesh = state(workload("a"))
    assert inbound(mesh.workloads["default/a"], {}, {}) == (
        VirtualHostSpec(
            name="inbound:8080",
            domains=("*",),
            routes=(
                RouteSpec(name="inbound:8080", backends=(BackendSpec(cluster="inbound:8080"),)),
            ),
        ),
    )


def test_faults_of_a_service_meet_all_its_callers() -> None:
    """In every route, after those that the route refers to itself; in the order of their age."""
    old = ", creationTimestamp: '2020-01-01T00:00:00Z'"
    abort = "rules: [{abort: {httpStatus: 500}}]"
    kind = "FaultInjection"
    extension = (
        "{type: ExtensionRef, extensionRef: {group: meshproxy.io, kind: FaultInjection, name: own}}"
    )
    mesh = state(
        service("a"),
        service("b"),
        route("r", "a", f"[{{matches: [{{method: GET}}], filters: [{extension}]}}, {{}}]"),
        policy("own", abort, "z", kind=kind),
        policy("young", abort, kind=kind),
        policy("old", abort, kind=kind, metadata=old),
        service("z"),
    )
    found = {host.name: host.routes for host in hosts(mesh)}
    names = [[fault.name.split("/")[2] for fault in one.faults] for one in found["default/a:80"]]
    assert names == [["own", "old", "young"], ["old", "young"]]
    assert found["default/b:80"][0].faults == ()


def test_rate_limits_of_a_service_are_kept_where_its_callers_meet() -> None:
    """At the port of the workload, of all Services in front of it; each policy once."""
    limit = "rules: [{requests: 1}, {requests: 9}]"
    kind = "RateLimitPolicy"
    mesh = state(
        workload("a"),
        service("a"),
        service("b").replace("app: b", "app: a"),
        service("c"),
        policy("p", limit, "a", kind=kind),
        policy("q", limit, "c", kind=kind),
        policy("r", limit, "a", kind=kind).replace("}], rules", "}, {name: b}], rules"),
    )
    (host,) = inbound(mesh.workloads["default/a"], mesh.services, by_target(mesh.policies.values()))
    names = [limit.name.removeprefix("RateLimitPolicy/default/") for limit in host.rate_limits]
    assert names == ["p/0", "p/1", "r/0", "r/1"]
    assert all(not limit.rate_limits for limit in hosts(mesh)[0].routes)
