from control_plane.resources.selection import in_front, selects, target
from tests.helpers.mesh import service, state, workload

MESH = state(service("a"), service("b"), service("a", namespace="other"), workload("a"))
OWN = MESH.workloads["default/a"]


def test_a_selector_chooses_within_its_namespace() -> None:
    """All of its labels are there; a Service without a selector chooses nobody."""
    assert selects(MESH.services["default/a"], OWN)
    assert not selects(MESH.services["default/b"], OWN)
    assert not selects(MESH.services["other/a"], OWN)
    bare = state(service("a").replace("{app: a}", "{}"))
    assert not selects(bare.services["default/a"], OWN)


def test_a_target_port_is_a_number_or_a_name() -> None:
    """The service's own number when left out; None where the workload does not have it."""
    for text, expected in (
        ("port: 80, targetPort: http", 8080),
        ("port: 80, targetPort: 8080", 8080),
        ("port: 8080", 8080),
        ("port: 80", None),
    ):
        found = state(service("a").replace("port: 80, targetPort: http", text)).services
        assert target(found["default/a"].spec.ports[0], OWN) == expected


def test_what_stands_in_front_of_a_port() -> None:
    """Every service port that leads there, and no other."""
    assert [(name, port.port) for name, port in in_front(8080, OWN, MESH.services)] == [
        ("default/a", 80)
    ]
    assert in_front(9090, OWN, MESH.services) == []
