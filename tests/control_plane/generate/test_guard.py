from control_plane.generate.guard import Guard
from control_plane.generate.snapshot import generate
from control_plane.placement import Placement
from control_plane.resources.model import DEFAULT_MESH
from tests.helpers.mesh import TRUST, security, service, state, workload

POLICIES = (
    security("AuthorizationPolicy", "rules: [{to: [{operation: {ports: [8080]}}]}]"),
    security("RequestAuthentication", "jwtRules: [{issuer: i, jwksFile: k}]"),
)
TWO_PORTS = workload("a").replace("[{port: 8080, name: http}]", "[{port: 8080}, {port: 5432}]")
SQL = service("a", app_protocol="postgresql").replace("targetPort: http", "targetPort: 5432")
PLACED = Placement(inbound_ports={8080: 1, 5432: 2}, app_ports={8080: 3, 5432: 4})


def test_port_by_port() -> None:
    """Tokens are the workload's, what is allowed is the port's."""
    mesh = state(workload("a"), *POLICIES)
    guard = Guard(mesh.workloads["default/a"], mesh.security.values(), DEFAULT_MESH)
    assert [one.issuer for one in guard.jwt] == ["i"]
    assert [len(one.rules) for one in guard.authorization(8080)] == [1]
    assert [len(one.rules) for one in guard.authorization(9)] == [0]


def test_keys_are_handed_on() -> None:
    """What the policies do not hold themselves."""
    mesh = state(workload("a"), *POLICIES)
    workloads, policies = mesh.workloads, mesh.security.values()
    guard = Guard(workloads["default/a"], policies, DEFAULT_MESH, {("default/p", "i"): "keys"})
    assert guard.jwt[0].keys == "keys"


def test_every_inbound_port_of_a_sidecar_is_guarded() -> None:
    """Where requests come, and where connections come; what its app calls is others' business."""
    mesh = state(TWO_PORTS, SQL, *POLICIES, placements={"default/a": PLACED})
    made = generate(mesh, "default/a", TRUST)
    for host in made.virtual_hosts:
        inbound = host.name.startswith("inbound:")
        assert bool(host.authorization) == bool(host.jwt) == inbound, host.name
    for route in made.tcp_routes:
        assert bool(route.authorization) == route.name.startswith("inbound:"), route.name
    assert {host.name for host in made.virtual_hosts if host.authorization} == {"inbound:8080"}
    assert {route.name for route in made.tcp_routes if route.authorization} == {
        "inbound:8080",
        "inbound:5432",
    }
