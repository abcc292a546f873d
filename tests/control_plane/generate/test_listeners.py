import pytest

from control_plane.generate.listeners import listeners
from control_plane.generate.snapshot import generate
from control_plane.placement import Placement
from meshproxy.contract.resources import ListenerSpec
from tests.helpers.mesh import TRUST, service, state, workload

PLACED = Placement(
    address="127.0.0.2",
    inbound_ports={8080: 2000},
    outbound_port=3000,
    service_ports={"default/b:80": 4000, "default/gone:80": 4001},
)


def made(mesh: str = "") -> dict[str, ListenerSpec]:
    texts = [service("b"), workload("a"), *([mesh] if mesh else [])]
    snapshot = generate(state(*texts, placements={"default/a": PLACED}), "default/a", TRUST)
    return {listener.name: listener for listener in snapshot.listeners}


def test_one_for_the_app_one_a_service_one_a_port() -> None:
    """A local port whose service is gone has none: nothing would serve it."""
    found = made()
    assert list(found) == ["outbound", "service/default/b:80", "inbound:8080"]
    assert (found["outbound"].port, found["outbound"].virtual_host) == (3000, None)
    assert found["service/default/b:80"].virtual_host == "default/b:80"
    assert found["inbound:8080"] == ListenerSpec(
        name="inbound:8080",
        direction="inbound",
        address="127.0.0.2",
        port=2000,
        virtual_host="inbound:8080",
        mtls="strict",
    )


@pytest.mark.parametrize("mtls", ["STRICT", "PERMISSIVE", "DISABLED"])
def test_mtls_is_the_meshs(mtls: str) -> None:
    """In the contract's lower case; STRICT when nobody says."""
    mesh = (
        "apiVersion: meshproxy.io/v1alpha1\nkind: MeshConfig\nmetadata: {name: m}\n"
        f"spec: {{mtls: {mtls}}}"
    )
    assert made(mesh)["inbound:8080"].mtls == mtls.lower()


def test_not_placed_means_no_sockets() -> None:
    """There is no port to listen on."""
    alone = state(workload("a"))
    from control_plane.resources.model import MeshConfig, Metadata

    mesh = MeshConfig(
        api_version="meshproxy.io/v1alpha1", kind="MeshConfig", metadata=Metadata(name="m")
    )
    assert listeners(alone.workloads["default/a"], None, mesh, ()) == ()
