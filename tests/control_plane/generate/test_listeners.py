import pytest

from control_plane.generate.listeners import inbound_protocol, listeners
from control_plane.generate.snapshot import generate
from control_plane.placement import Placement
from control_plane.resources.fields import Metadata
from control_plane.resources.model import MeshConfig
from meshproxy.contract.resources import ListenerSpec
from tests.helpers.mesh import TRUST, route, service, state, tcp_route, workload

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
        tcp_route="inbound:8080",
        mtls="strict",
    )


@pytest.mark.parametrize(
    ("texts", "protocol", "virtual_host", "tcp_route"),
    [
        ([service("b")], "detect", "default/b:80", "default/b:80"),
        ([service("b", app_protocol="http")], "http", "default/b:80", None),
        ([service("b", app_protocol="tcp")], "tcp", None, "default/b:80"),
        ([service("b"), route("r", "b", "[{}]")], "http", "default/b:80", None),
        ([service("b"), tcp_route("r", "b", "b")], "tcp", None, "default/b:80"),
    ],
)
def test_the_port_of_a_service_leads_where_its_protocol_says(
    texts: list[str], protocol: str, virtual_host: str | None, tcp_route: str | None
) -> None:
    """To a virtual host, to a route of connections, or to both while the first bytes decide."""
    mesh = state(*texts, workload("a"), placements={"default/a": PLACED})
    found = {one.name: one for one in generate(mesh, "default/a", TRUST).listeners}
    door = found["service/default/b:80"]
    assert (door.protocol, door.virtual_host, door.tcp_route) == (protocol, virtual_host, tcp_route)


@pytest.mark.parametrize(
    ("services", "protocol"),
    [
        ([], "detect"),
        ([service("a")], "detect"),
        ([service("a", app_protocol="grpc")], "http"),
        ([service("a", app_protocol="mysql")], "tcp"),
        ([service("a", app_protocol="tcp"), service("a", app_protocol="http", port=81)], "detect"),
        ([service("a", namespace="other", app_protocol="tcp")], "detect"),
    ],
)
def test_what_comes_to_the_app_is_what_the_services_in_front_of_it_say(
    services: list[str], protocol: str
) -> None:
    """Where they differ, or say nothing, the first bytes decide."""
    texts = [text.replace("name: a,", f"name: a{n},") for n, text in enumerate(services)]
    mesh = state(*texts, workload("a"), placements={"default/a": PLACED})
    assert inbound_protocol(8080, mesh.workloads["default/a"], mesh.services) == protocol
    found = {one.name: one for one in generate(mesh, "default/a", TRUST).listeners}
    inbound = found["inbound:8080"]
    assert inbound.protocol == protocol
    assert (inbound.virtual_host is None) == (protocol == "tcp")
    assert (inbound.tcp_route is None) == (protocol == "http")


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
    mesh = MeshConfig(
        api_version="meshproxy.io/v1alpha1", kind="MeshConfig", metadata=Metadata(name="m")
    )
    assert listeners(alone.workloads["default/a"], None, mesh, (), {}) == ()
