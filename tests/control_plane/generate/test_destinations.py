from pathlib import Path

import msgspec
import pytest

from control_plane.generate.snapshot import generate
from control_plane.placement import Placement, Placements
from control_plane.store import State
from meshproxy.contract.resources import DestinationSpec, Snapshot
from tests.helpers.golden import assert_golden
from tests.helpers.mesh import TRUST, route, service, state, workload

GOLDEN = Path(__file__).parent / "golden"


def captured(number: int) -> Placement:
    return Placement(
        address=f"10.77.0.{number}",
        ipv6=f"fd00::{number}",
        captured=True,
        app_address="127.0.0.1",
        app_ports={8080: 8080},
        inbound_ports={8080: 8080},
    )


def mesh(*texts: str) -> State:
    made = state(
        service("shop"),
        service("db", app_protocol="mysql"),
        workload("shop"),
        workload("db"),
        *texts,
    )
    placements = Placements(
        workloads={"default/shop": captured(3), "default/db": captured(4)},
        service_addresses={
            "default/shop": ("10.77.128.1", "fd00:1::1"),
            "default/db": ("10.77.128.2", "fd00:1::2"),
        },
    )
    return msgspec.structs.replace(made, placements=placements)


def of(snapshot: Snapshot) -> dict[str, DestinationSpec]:
    return {destination.name: destination for destination in snapshot.destinations}


def test_a_captured_workload() -> None:
    """All that its sidecar is told, as a file to read."""
    assert_golden(generate(mesh(), "default/shop", TRUST), GOLDEN / "captured.json")


def test_services_neighbours_and_own_ports() -> None:
    """Each by the address that a client calls; the app's own ports by any."""
    found = of(generate(mesh(), "default/shop", TRUST))
    assert list(found) == [
        "default/db:80",
        "default/shop:80",
        "workload/default/db:8080",
        "inbound:8080",
    ]
    assert found["default/shop:80"].addresses == ("10.77.128.1", "fd00:1::1")
    assert found["default/shop:80"].port == 80
    assert found["workload/default/db:8080"].addresses == ("10.77.0.4", "fd00::4")
    assert found["inbound:8080"].addresses == ()


def test_a_neighbour_is_called_by_itself() -> None:
    """Over mutual TLS, and only if it proves to be who it is."""
    snapshot = generate(mesh(), "default/shop", TRUST)
    [cluster] = [one for one in snapshot.clusters if one.name == "workload/default/db:8080"]
    assert cluster.mtls
    assert cluster.service == "default/db"
    [endpoints] = [one for one in snapshot.endpoints if one.cluster == cluster.name]
    [endpoint] = endpoints.endpoints
    assert (endpoint.address, endpoint.port) == ("10.77.0.4", 8080)
    assert endpoint.identities == ("spiffe://mesh.local/ns/default/sa/db",)


def test_what_a_port_speaks_decides_where_it_leads() -> None:
    """To routes of requests, of connections, or to both while the first bytes decide."""
    found = of(generate(mesh(route("r", "shop", "[{}]")), "default/shop", TRUST))
    database, shop = found["default/db:80"], found["default/shop:80"]
    assert (database.protocol, database.virtual_host, database.tcp_route) == (
        "tcp",
        None,
        database.name,
    )
    assert (shop.protocol, shop.virtual_host, shop.tcp_route) == ("http", shop.name, None)
    own = found["inbound:8080"]
    assert (own.protocol, own.virtual_host, own.tcp_route) == ("detect", own.name, own.name)


def test_everything_that_is_named_is_there() -> None:
    """A destination leads nowhere that the proxy is not told of."""
    snapshot = generate(mesh(), "default/shop", TRUST)
    hosts = {host.name for host in snapshot.virtual_hosts}
    routes = {route.name for route in snapshot.tcp_routes}
    for destination in snapshot.destinations:
        assert destination.virtual_host is None or destination.virtual_host in hosts
        assert destination.tcp_route is None or destination.tcp_route in routes


def test_who_is_not_captured_needs_no_destinations() -> None:
    """It has a listener for each of them."""
    loopback = mesh()
    placements = msgspec.structs.replace(
        loopback.placements,
        workloads={**loopback.placements.workloads, "default/shop": Placement()},
    )
    snapshot = generate(
        msgspec.structs.replace(loopback, placements=placements), "default/shop", TRUST
    )
    assert snapshot.destinations == ()


@pytest.mark.parametrize(
    ("spec", "outbound", "inbound"),
    [
        ("{}", "pass", "refuse"),
        ("{mtls: PERMISSIVE}", "pass", "pass"),
        ("{outboundTrafficPolicy: {mode: REGISTRY_ONLY}}", "refuse", "refuse"),
    ],
)
def test_two_places_to_be_captured_to(spec: str, outbound: str, inbound: str) -> None:
    """In both families; what is unknown is refused or passed on as the mesh has it."""
    config = f"{{apiVersion: meshproxy.io/v1alpha1, kind: MeshConfig, metadata: {{name: m}}, spec: {spec}}}"
    listeners = generate(mesh(config), "default/shop", TRUST).listeners
    assert [(one.name, one.address, one.port, one.captured, one.unknown) for one in listeners] == [
        ("outbound", "127.0.0.1", 15001, True, outbound),
        ("outbound/ipv6", "::1", 15001, True, outbound),
        ("inbound", "0.0.0.0", 15006, True, inbound),
        ("inbound/ipv6", "::", 15006, True, inbound),
    ]


def test_the_app_is_reached_where_it_listens() -> None:
    """On its loopback, unless it says otherwise: the workload's address is where peers call."""
    snapshot = generate(mesh(), "default/shop", TRUST)
    [own] = [one for one in snapshot.endpoints if one.cluster == "inbound:8080"]
    assert [(one.address, one.port) for one in own.endpoints] == [("127.0.0.1", 8080)]
