import pytest

from control_plane.generate.endpoints import inbound
from control_plane.generate.snapshot import generate
from control_plane.placement import Placement
from meshproxy.contract.resources import EndpointSpec
from tests.helpers.mesh import TRUST, service, state, workload

PLACED = {"default/a": Placement(inbound_ports={8080: 2000}, app_ports={8080: 3000})}
A = EndpointSpec(
    address="127.0.0.1",
    port=2000,
    identities=("spiffe://mesh.local/ns/default/sa/a",),
    workload="default/a",
    version="v1",
)


def endpoints(
    service_text: str, workload_text: str, placed: dict[str, Placement] = PLACED
) -> tuple[EndpointSpec, ...]:
    mesh = state(service_text, workload_text, placements=placed)
    (name,) = mesh.workloads
    snapshot = generate(mesh, name, TRUST)
    return next(one.endpoints for one in snapshot.endpoints if one.cluster == "default/a:80")


def test_a_workload_that_is_selected_and_placed() -> None:
    """Its sidecar's address, its identity, its version label."""
    assert endpoints(service("a"), workload("a")) == (A,)


@pytest.mark.parametrize("target", ["targetPort: 8080", "targetPort: http"])
def test_the_target_port_is_a_number_or_a_name(target: str) -> None:
    """Both lead to the workload's port."""
    assert endpoints(service("a").replace("targetPort: http", target), workload("a")) == (A,)


def test_the_service_account_names_the_identity() -> None:
    """The workload's name is only its default."""
    text = workload("a").replace("spec:", "spec:\n  serviceAccount: shared")
    (found,) = endpoints(service("a"), text)
    assert found.identities == ("spiffe://mesh.local/ns/default/sa/shared",)


def test_a_workload_has_its_weight() -> None:
    """Relative to those of the others; one that is drained by hand has none."""
    for weight in (3, 0):
        text = workload("a").replace("spec:", f"spec:\n  weight: {weight}")
        (found,) = endpoints(service("a"), text)
        assert found.weight == weight


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("selector: {app: a}", "selector: {app: b}"),
        ("selector: {app: a}", "selector: {app: a, version: v2}"),
        ("selector: {app: a}", "selector: {}"),
        ("targetPort: http", "targetPort: 9"),
        ("targetPort: http", "targetPort: grpc"),
        (", targetPort: http", ""),
    ],
)
def test_who_is_not_chosen(old: str, new: str) -> None:
    """Other labels, no selector, no such port (80 itself, when no target port is given)."""
    assert endpoints(service("a").replace(old, new), workload("a")) == ()


def test_other_namespaces_and_the_unplaced_have_no_part() -> None:
    """A selector looks at its own namespace; an address is needed to answer."""
    other = workload("a", namespace="other")
    assert endpoints(service("a"), other, {"other/a": PLACED["default/a"]}) == ()
    assert endpoints(service("a"), workload("a"), {}) == ()
    assert endpoints(service("a"), workload("a"), {"default/a": Placement()}) == ()


def test_the_own_app_is_where_it_was_placed() -> None:
    """Without identity: it is on our side."""
    own = state(workload("a")).workloads["default/a"]
    (found,) = inbound(own, PLACED["default/a"])
    assert found.endpoints == (EndpointSpec(address="127.0.0.1", port=3000),)
    assert inbound(own, None)[0].endpoints == ()


def test_where_it_runs_and_how_near_that_is() -> None:
    """The zone is the endpoint's own; the priority is as the asking proxy sees it."""
    label = "topology.kubernetes.io/zone: "
    texts = [
        workload(name).replace("labels: {", f"labels: {{{label}{zone}, ")
        for name, zone in (("a", "z1"), ("b", "z2"))
    ]
    mesh = state(service("a"), *texts, placements=PLACED)
    seen = {}
    for name in ("a", "b"):
        snapshot = generate(mesh, f"default/{name}", TRUST)
        (found,) = next(
            one.endpoints for one in snapshot.endpoints if one.cluster == "default/a:80"
        )
        seen[name] = (found.zone, found.priority)
    assert seen == {"a": ("z1", 0), "b": ("z1", 2)}
