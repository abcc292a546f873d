"""Which free port belongs to whom."""

import asyncio
import sys
from asyncio.subprocess import PIPE

import pytest

from control_plane.cli.local.allocation import (
    FIRST,
    LAST,
    NoFreePortError,
    Ports,
    allocate,
    ports_of,
)
from control_plane.placement import Placement, Placements
from tests.control_plane.cli.local.machine import Machine
from tests.control_plane.cli.local.meshes import service, state, workload


def every_port(placements: Placements) -> list[int]:
    return [port for place in placements.workloads.values() for port in ports_of(place)]


def ports(*free: int) -> Ports:
    return Ports(Machine(free or None).reserve)


WORKLOADS = {
    "default/shop": workload("shop", 8080),
    "other/shop": workload("shop", namespace="other"),
}
SERVICES = [service("catalog", 80), service("catalog", 80, namespace="other")]


def test_every_use_has_a_port_of_its_own() -> None:
    """No two listeners are given the same port, and all are from the range."""
    placed = every_port(allocate(WORKLOADS, SERVICES, Placements(), ports()))

    assert len(placed) == len(set(placed)) == 8
    assert all(FIRST <= port <= LAST for port in placed)


def test_services_of_the_own_namespace_get_local_ports() -> None:
    """A sidecar leads to the services that its app's environment names, no others."""
    placements = allocate(WORKLOADS, SERVICES, Placements(), ports())

    assert list(placements.workloads["default/shop"].service_ports) == ["default/catalog:80"]
    assert list(placements.workloads["other/shop"].service_ports) == ["other/catalog:80"]


def test_what_was_placed_stays_where_it_is() -> None:
    """The same mesh has the same ports, while it runs and when it is started again."""
    books = ports()
    first = allocate(WORKLOADS, SERVICES, Placements(), books)

    assert allocate(WORKLOADS, SERVICES, first, books) == first
    assert allocate(WORKLOADS, SERVICES, first, ports()) == first


def test_a_kept_port_that_another_program_took_is_replaced() -> None:
    """Before a start, ports are checked; only the taken one changes."""
    first = allocate(WORKLOADS, SERVICES, Placements(), ports())
    taken = first.workloads["default/shop"].admin_port

    free = set(range(FIRST, LAST)) - {taken}
    second = allocate(WORKLOADS, SERVICES, first, Ports(Machine(free).reserve))

    assert second.workloads["default/shop"].admin_port != taken
    assert second.workloads["other/shop"] == first.workloads["other/shop"]


def test_a_port_is_placed_once() -> None:
    """Also where the memory has it twice, or where it has become the control plane's."""
    old = Placement(outbound_port=FIRST, admin_port=FIRST, app_ports={8080: FIRST + 1})

    placements = allocate(
        {"default/shop": workload("shop", 8080)},
        [],
        Placements(workloads={"default/shop": old}),
        ports(),
        others=[FIRST + 1],
    )

    placed = every_port(placements)
    assert len(placed) == len(set(placed)) == 4
    assert FIRST + 1 not in placed


def test_a_new_workload_gets_nobody_elses_port() -> None:
    """Ports that another workload keeps are not handed out, even where it comes later."""
    old = Placement(outbound_port=FIRST, admin_port=FIRST + 1)

    placements = allocate(
        {"default/door": workload("door"), "default/shop": workload("shop")},
        [],
        Placements(workloads={"default/shop": old}),
        ports(*range(FIRST, FIRST + 4)),
    )

    door = placements.workloads["default/door"]
    assert {door.outbound_port, door.admin_port} == {FIRST + 2, FIRST + 3}
    assert placements.workloads["default/shop"] == old


def test_a_lent_port_stays_in_the_books() -> None:
    """Whoever listens on it now, this mesh gives it to nobody else."""
    machine = Machine(range(FIRST, FIRST + 2))
    books = Ports(machine.reserve)
    lent = books.new()
    books.lend([lent])

    assert machine.held == set()
    assert books.new() != lent
    assert books.keep(lent)


def test_what_is_not_retained_is_free_again() -> None:
    """The ports of a workload that is gone can be another's."""
    machine = Machine()
    books = Ports(machine.reserve)
    kept, gone = books.new(), books.new()
    books.retain([kept])

    assert machine.held == {kept}
    books.retain(())
    assert machine.held == set()
    assert gone != kept


def test_a_full_range_is_said() -> None:
    """Rather an error than a port that is taken."""
    with pytest.raises(NoFreePortError, match="no free port between"):
        Ports(lambda *_, **__: None).new()


MANY = 150
ALLOCATOR = f"""
import sys
from control_plane.cli.local import allocation
allocation.FIRST, allocation.LAST = 31_000, 31_999
ports = allocation.Ports()
print("ready", flush=True)
sys.stdin.readline()
print(*[ports.new() for _ in range({MANY})], flush=True)
sys.stdin.readline()
"""


async def test_meshes_that_start_at_the_same_moment_share_no_port() -> None:
    """Four processes take 600 ports out of 1000 at once; each port has one owner."""
    processes = [
        await asyncio.create_subprocess_exec(
            sys.executable, "-c", ALLOCATOR, stdin=PIPE, stdout=PIPE
        )
        for _ in range(4)
    ]
    found: list[int] = []
    try:
        for process in processes:
            assert process.stdout is not None
            assert await process.stdout.readline() == b"ready\n"
        for process in processes:
            assert process.stdin is not None
            process.stdin.write(b"go\n")
        for process in processes:
            assert process.stdout is not None
            found += map(int, (await process.stdout.readline()).split())
    finally:
        for process in processes:
            await process.communicate(b"enough\n")

    assert len(found) == len(set(found)) == 4 * MANY


def test_ports_of_a_captured_workload_were_never_this_machines() -> None:
    """Each had an address of its own; here, all would want the same."""
    captured = Placement(
        address="10.77.0.3", captured=True, app_ports={8080: 8080}, inbound_ports={8080: 8080}
    )
    mesh = state(workload("one", 8080), workload("two", 8080))
    previous = Placements(workloads=dict.fromkeys(mesh.workloads, captured))
    placed = allocate(mesh.workloads, [], previous, ports())
    assert not {8080, 15000, 15001} & {*every_port(placed)}
    assert len(set(every_port(placed))) == len(every_port(placed))
