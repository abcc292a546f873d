from itertools import permutations

from control_plane.resources.policies import RateLimitPolicy
from control_plane.resources.policy_attachment import all_for, by_target, deciding
from control_plane.store import State
from tests.helpers.mesh import policy, service, state

OLD = ", creationTimestamp: '2020-01-01T00:00:00Z'"
NEW = ", creationTimestamp: '2025-01-01T00:00:00Z'"
PORTS = service("a").replace("{port: 80,", "{port: 81, name: other}, {port: 80, name: web,")


def decides(mesh: State, port: int = 80) -> str | None:
    found = mesh.services["default/a"]
    (meant,) = (one for one in found.spec.ports if one.port == port)
    policy = deciding(found, meant, by_target(mesh.policies.values()))
    return None if policy is None else policy.metadata.name


def test_none_without_a_target() -> None:
    """A policy is for the Services that it names, in its own namespace."""
    assert decides(state(service("a"))) is None
    assert decides(state(service("a"), service("b"), policy("p", "", target="b"))) is None
    elsewhere = policy("p", "", namespace="other")
    assert decides(state(service("a"), service("a", "other"), elsewhere)) is None


def test_the_older_decides_then_the_first_by_name() -> None:
    """Whatever the order of the files; one without an age is the youngest."""
    texts = [
        policy("c", "", metadata=OLD),
        policy("d", "", metadata=OLD),
        policy("b", "", metadata=NEW),
        policy("a", ""),
    ]
    for order in permutations(texts):
        assert decides(state(service("a"), *order)) == "c"
    assert decides(state(service("a"), *texts[1:])) == "d"
    assert decides(state(service("a"), *texts[2:])) == "b"


def test_one_that_names_the_port_goes_before() -> None:
    """Whatever its age, and for that port alone; it is not mixed with the other."""
    mesh = state(PORTS, policy("all", "", metadata=OLD), policy("one", "", section="web"))
    assert decides(mesh) == "one"
    assert decides(mesh, 81) == "all"


def test_other_kinds_add_up() -> None:
    """Oldest first, and only those that mean the port."""
    kind = "RateLimitPolicy"
    limit = "rules: [{requests: 1}]"
    mesh = state(
        PORTS,
        policy("young", limit, kind=kind),
        policy("old", limit, kind=kind, metadata=OLD),
        policy("other", limit, kind=kind, section="other"),
        policy("p", ""),
    )
    found = mesh.services["default/a"]
    (web,) = (port for port in found.spec.ports if port.port == 80)
    limits = all_for(RateLimitPolicy, found, web, by_target(mesh.policies.values()))
    assert [one.metadata.name for one in limits] == ["old", "young"]
