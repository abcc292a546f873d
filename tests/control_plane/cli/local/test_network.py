import os
import shutil
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from control_plane.cli.errors import CommandError
from control_plane.cli.local import launch, namespace
from control_plane.cli.local.addresses import allocate
from control_plane.cli.local.network import Network, app_user, check, hosts_file, mark_of, name_of
from control_plane.cli.local.process import User
from control_plane.placement import Placements
from tests.control_plane.cli.local.meshes import service, state, workload
from tests.helpers.namespaces import needs_namespaces


def test_names() -> None:
    """A mesh has one mark, its workloads are known by it; the default namespace is not said."""
    mark = mark_of(Path("/home/me/.mesh"))
    assert mark == mark_of(Path("/home/me/.mesh")) != mark_of(Path("/home/you/.mesh"))
    assert len(mark) < 16, "it is the name of an interface, too"
    assert name_of("mesh-1", "default/shop") == "mesh-1-shop"
    assert name_of("mesh-1", "blue/shop") == "mesh-1-blue.shop"
    long, other = (name_of("mesh-1", f"blue/{'x' * 250}{end}") for end in "ab")
    assert long != other
    assert len(long) < 255


def test_only_root_can(monkeypatch: pytest.MonkeyPatch) -> None:
    """Said before anything is started, with what can be done without."""
    with pytest.raises(CommandError, match=r"needs root.*without it"):
        check(1000)
    monkeypatch.setattr(shutil, "which", lambda _program: None)
    with pytest.raises(CommandError, match="apt install iproute2 and iptables"):
        check(0)
    monkeypatch.setattr(shutil, "which", lambda program: f"/bin/{program}")
    check(0)


@pytest.mark.parametrize(
    ("environment", "user"),
    [
        ({}, None),
        ({"SUDO_UID": "1000", "SUDO_GID": "1001"}, User(1000, 1001)),
        ({"SUDO_UID": "0", "SUDO_GID": "0"}, None),
        ({"SUDO_UID": "nobody", "SUDO_GID": "1"}, None),
    ],
)
def test_apps_run_as_who_called_sudo(environment: dict[str, str], user: User | None) -> None:
    """Root's rights are for the network, not for the apps."""
    assert app_user(environment) == user


def test_apps_do_not_run_as_the_sidecars_user() -> None:
    """Nothing that they say would be captured."""
    with pytest.raises(CommandError, match="user 1337"):
        app_user({"SUDO_UID": "1337", "SUDO_GID": "1"})


def test_the_names_of_services() -> None:
    """As cluster DNS has them, for both families; the bare name is that of one's own namespace."""
    services = [service("shop", 80), service("pay", 80, namespace="bank"), service("lost", 80)]
    addresses = {"default/shop": ("10.0.0.1", "fd00::1"), "bank/pay": ("10.0.0.2",)}
    assert hosts_file("default", services, addresses).splitlines() == [
        "127.0.0.1 localhost",
        "::1 localhost ip6-localhost ip6-loopback",
        "10.0.0.1 shop shop.default shop.default.svc shop.default.svc.cluster.local",
        "fd00::1 shop shop.default shop.default.svc shop.default.svc.cluster.local",
        "10.0.0.2 pay.bank pay.bank.svc pay.bank.svc.cluster.local",
    ]


@pytest.fixture
async def network(tmp_path: Path) -> AsyncIterator[Network]:
    made = Network(tmp_path, None)
    yield made
    await made.close()


@needs_namespaces
async def test_a_network_and_its_end(network: Network) -> None:
    """Workloads reach each other and us, nothing else; in the end nothing is left of it."""
    made: list[str] = []
    network.on_made = made.append
    await network.open()
    mesh = state(workload("one", 80), workload("two", 80))
    placements = allocate(mesh.workloads, [], Placements(), network.plan)
    for name, placement in placements.workloads.items():
        await network.add(name, placement, f"{placement.address} me\n")
    one, two = (network.namespace(name) for name in mesh.workloads)
    assert made == namespace.named(network.mark) == [network.mark, one, two]

    async def inside(name: str, *command: str) -> str:
        return await namespace.run(*namespace.enter(name), *command)

    other = placements.workloads["default/two"]
    # A way there and none elsewhere: the kernel knows at once, also in IPv6.
    assert "dev eth0" in await inside(one, "ip", "route", "get", other.address)
    assert other.ipv6 is not None
    assert "dev eth0" in await inside(one, "ip", "route", "get", other.ipv6)
    connect = "import socket, sys; socket.create_connection((sys.argv[1], int(sys.argv[2])), 5)"
    for address, port, error in (
        (network.plan.own, 1, "ConnectionRefusedError"),
        ("203.0.113.1", 1, "OSError: [Errno 113]|OSError: [Errno 101]"),
        ("2001:db8::1", 1, "OSError: [Errno 113]|OSError: [Errno 101]"),
        (other.address, 15000, "ConnectionRefusedError"),
    ):
        with pytest.raises(namespace.NamespaceError) as failed:
            # As the sidecar does, whose own traffic is not captured.
            await inside(one, *as_sidecar("python3", "-c", connect, address, str(port)))
        assert any(one in str(failed.value) for one in error.split("|")), failed.value
    assert (
        await inside(one, "cat", "/etc/hosts")
    ) == f"{placements.workloads['default/one'].address} me\n"
    assert "MESH_OUTBOUND" in await inside(one, "iptables-save")
    assert "MESH_OUTBOUND" in await inside(one, "ip6tables-save")

    await network.remove("default/one")
    assert namespace.named(network.mark) == [network.mark, two]
    await network.close()
    assert namespace.named(network.mark) == []
    assert not list(namespace.FILES.glob(f"{network.mark}*"))
    assert network.mark not in await namespace.run("ip", "link")


@needs_namespaces
async def test_what_a_killed_run_left_is_removed(network: Network, tmp_path: Path) -> None:
    """The next network of the same run directory begins with nothing."""
    mesh = state(workload("one", 80))
    await network.open()
    placements = allocate(mesh.workloads, [], Placements(), network.plan)
    await network.add("default/one", placements.workloads["default/one"], "")
    again = Network(tmp_path, None)
    await again.open()
    try:
        assert again.plan == network.plan
        assert namespace.named(network.mark) == [network.mark]
        await again.add("default/one", placements.workloads["default/one"], "")
    finally:
        await again.close()


def as_sidecar(*command: str) -> tuple[str, ...]:
    program = (sys.executable, *command[1:])
    return (
        sys.executable, "-I", "-S", launch.__file__, "--user", "1337:1337", "--read-all",
        str(os.getpid()), *program,
    )  # fmt: skip
