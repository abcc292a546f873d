from ipaddress import IPv4Network, ip_address
from pathlib import Path

import pytest

from control_plane.cli.errors import CommandError
from control_plane.cli.local.addresses import FIRST, LAST, Plan, allocate, plan
from control_plane.placement import Placement, Placements
from tests.control_plane.cli.local.meshes import service, state, workload

HERE = Path("/home/me/.mesh")
PLAN = Plan(IPv4Network("10.77.0.0/16"), b"\xfd\1\2\3\4\5")


def test_a_mesh_has_the_same_networks_each_time() -> None:
    """They come from the place of its run directory, and two meshes have different ones."""
    assert plan(HERE, []) == plan(HERE, [])
    assert plan(HERE, []).prefix != plan(Path("/home/you/.mesh"), []).prefix


def test_a_network_that_the_machine_uses_is_left_alone() -> None:
    """The next one that is free is taken; a route to nearly everything takes nothing."""
    first = plan(HERE, []).network
    taken = [IPv4Network("10.0.0.0/8"), first]
    second = plan(HERE, taken).network
    assert second != first
    assert second.is_private
    inside = IPv4Network(f"{second.network_address + 7}/32")
    assert plan(HERE, [*taken, inside]).network not in (first, second)


def test_no_network_is_free() -> None:
    """This is an error that names the range."""
    with pytest.raises(CommandError, match=rf"10\.{FIRST}\.0\.0 to 10\.{LAST}\.0\.0"):
        plan(HERE, [IPv4Network(f"10.{n}.0.0/16") for n in range(FIRST, LAST + 1)])


def test_the_two_halves() -> None:
    """Workloads and virtual addresses are told apart by the network; both have both families."""
    assert PLAN.own == "10.77.0.1"
    assert PLAN.gateway == ("10.77.0.2", "fd01:203:405::2")
    assert PLAN.workload(300) == ("10.77.1.44", "fd01:203:405::12c")
    assert PLAN.service(300) == ("10.77.129.44", "fd01:203:405:1::12c")
    assert PLAN.number("10.77.1.44") == PLAN.number("10.77.129.44") == 300
    assert PLAN.number("10.78.1.44") is None
    assert all(ip_address(address).is_private for address in PLAN.service(1))


def test_every_workload_and_every_service_has_addresses() -> None:
    """A captured workload listens on the ports that operators know, and its app on its own."""
    mesh = state(workload("shop", 8080, 9090), workload("door"))
    placements = allocate(
        mesh.workloads, [service("shop", 80), service("pay", 443)], Placements(), PLAN
    )

    assert placements.workloads["default/shop"] == Placement(
        address="10.77.0.3",
        ipv6="fd01:203:405::3",
        captured=True,
        app_address="127.0.0.1",
        app_ports={8080: 8080, 9090: 9090},
        inbound_ports={8080: 8080, 9090: 9090},
        outbound_port=15001,
        inbound_port=15006,
        admin_port=15000,
    )
    assert placements.workloads["default/door"].address == "10.77.0.4"
    assert placements.service_addresses == {
        "default/pay": ("10.77.128.1", "fd01:203:405:1::1"),
        "default/shop": ("10.77.128.2", "fd01:203:405:1::2"),
    }


def test_addresses_are_kept() -> None:
    """Whoever stays keeps its own; who comes gets none that anybody had the time before."""
    before = allocate(
        state(workload("a"), workload("b")).workloads,
        [service("a", 80), service("b", 80)],
        Placements(),
        PLAN,
    )
    after = allocate(
        state(workload("b"), workload("c")).workloads,
        [service("b", 80), service("c", 80)],
        before,
        PLAN,
    )
    assert after.workloads["default/b"] == before.workloads["default/b"]
    assert after.service_addresses["default/b"] == before.service_addresses["default/b"]
    assert after.workloads["default/c"].address == "10.77.0.5"
    assert after.service_addresses["default/c"][0] == "10.77.128.3"
    assert (
        allocate(state(workload("b"), workload("c")).workloads, [], after, PLAN).workloads
        == after.workloads
    )


def test_addresses_of_another_network_are_not_kept() -> None:
    """The machine has found another use for it, or the mesh ran on the loopback the last time."""
    mesh = state(workload("a"), workload("b"))
    elsewhere = allocate(
        mesh.workloads,
        [service("a", 80)],
        Placements(),
        Plan(IPv4Network("10.99.0.0/16"), b"\xfd55555"),
    )
    loopback = Placements(workloads={"default/a": Placement()})
    fresh = allocate(mesh.workloads, [service("a", 80)], Placements(), PLAN)
    assert allocate(mesh.workloads, [service("a", 80)], elsewhere, PLAN) == fresh
    assert allocate(mesh.workloads, [service("a", 80)], loopback, PLAN) == fresh
