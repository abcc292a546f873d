"""Which free port belongs to whom."""

import socket

import pytest

from control_plane.cli.local.allocation import (
    ADDRESS,
    FIRST,
    LAST,
    NoFreePortError,
    Ports,
    allocate,
    is_free,
)
from control_plane.placement import Placement, Placements
from tests.control_plane.cli.local.meshes import service, workload


def every_port(placements: Placements) -> list[int]:
    return [
        port
        for place in placements.workloads.values()
        for port in (
            *place.app_ports.values(),
            *place.inbound_ports.values(),
            *place.service_ports.values(),
            place.outbound_port,
            place.admin_port,
        )
    ]


WORKLOADS = {
    "default/shop": workload("shop", 8080),
    "other/shop": workload("shop", namespace="other"),
}
SERVICES = [service("catalog", 80), service("catalog", 80, namespace="other")]


def test_every_use_has_a_port_of_its_own() -> None:
    """No two listeners are given the same port, and all are from the range."""
    ports = every_port(allocate(WORKLOADS, SERVICES, Placements(), free=lambda _: True))

    assert len(ports) == len(set(ports)) == 8
    assert all(FIRST <= port <= LAST for port in ports)


def test_services_of_the_own_namespace_get_local_ports() -> None:
    """A sidecar leads to the services that its app's environment names, no others."""
    placements = allocate(WORKLOADS, SERVICES, Placements(), free=lambda _: True)

    assert list(placements.workloads["default/shop"].service_ports) == ["default/catalog:80"]
    assert list(placements.workloads["other/shop"].service_ports) == ["other/catalog:80"]


def test_what_was_placed_stays_where_it_is() -> None:
    """The same mesh, started again, has the same ports."""
    first = allocate(WORKLOADS, SERVICES, Placements(), free=lambda _: True)

    assert allocate(WORKLOADS, SERVICES, first, free=lambda _: True) == first


def test_a_kept_port_that_another_program_took_is_replaced() -> None:
    """Before a start, ports are checked; only the taken one changes."""
    first = allocate(WORKLOADS, SERVICES, Placements(), free=lambda _: True)
    taken = first.workloads["default/shop"].admin_port

    second = allocate(WORKLOADS, SERVICES, first, free=lambda port: port != taken)

    assert second.workloads["default/shop"].admin_port != taken
    assert second.workloads["other/shop"] == first.workloads["other/shop"]


def test_ports_of_a_running_workload_are_not_doubted() -> None:
    """A port that is not free because its owner listens on it is kept."""
    first = allocate(WORKLOADS, SERVICES, Placements(), free=lambda _: True)

    second = allocate(
        WORKLOADS,
        SERVICES,
        first,
        running=WORKLOADS.keys(),
        free=lambda port: port not in every_port(first),
    )

    assert second == first


def test_a_new_workload_gets_nobody_elses_port() -> None:
    """Ports that are kept or reserved are not handed out, even while nobody listens on them."""
    old = Placements(
        workloads={"default/shop": Placement(outbound_port=FIRST, admin_port=FIRST + 1)}
    )
    few = range(FIRST, FIRST + 5)

    placements = allocate(
        {"default/shop": workload("shop"), "default/door": workload("door")},
        [],
        old,
        reserved=[FIRST + 2],
        free=lambda port: port in few,
    )

    door = placements.workloads["default/door"]
    assert {door.outbound_port, door.admin_port} == {FIRST + 3, FIRST + 4}


def test_a_full_range_is_said() -> None:
    """Rather an error than a port that is taken."""
    with pytest.raises(NoFreePortError, match="no free port between"):
        Ports(free=lambda _: False).new()


def test_is_free_asks_the_system() -> None:
    """A port that somebody listens on is not free."""
    with socket.socket() as listener:
        listener.bind((ADDRESS, 0))
        listener.listen()
        assert not is_free(listener.getsockname()[1])
