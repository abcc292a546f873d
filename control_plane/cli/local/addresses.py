"""
Which address belongs to whom, in a mesh whose workloads have network namespaces of their own.

    10.N.0.0/17             the workloads; .0.1 is ours, for the control plane, .0.2 the way out
    10.N.128.0/17           virtual addresses of services: nobody is there, all are captured
    fdXX:XXXX:XXXX:0::/64   the same two in IPv6
    fdXX:XXXX:XXXX:1::/64

N and the X come from the place of the run directory, so that a mesh has the same addresses each
time; where the machine knows the way to such a network already, the next N is taken.  Like ports,
addresses are handed out once and kept in the placements file.
"""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from hashlib import sha256
from ipaddress import IPv4Address, IPv4Network, IPv6Address
from pathlib import Path

from control_plane.cli.errors import CommandError
from control_plane.placement import Placement, Placements
from control_plane.resources.model import Service, Workload

FIRST, LAST = 64, 191
"""The N that are tried: both ends of 10.0.0.0/8 are what others like to take."""
_HALF = 1 << 15
_WIDE = 9
"""Routes to so much (a VPN's, to all of 10.0.0.0/8) lead to nobody in particular: ours go first."""
_OWN, _GATEWAY = 1, 2

OUTBOUND_PORT, INBOUND_PORT, ADMIN_PORT = 15001, 15006, 15000
"""Every sidecar has addresses of its own, hence the ports that operators know."""


@dataclass(frozen=True)
class Plan:
    """
    The addresses of one mesh.

    Attributes:
        network: All that it uses of IPv4.
        prefix: The first six bytes of all that it uses of IPv6.
        own: Ours, where workloads reach the control plane.
        gateway: Where they send what is not for their neighbours; IPv4 and IPv6.
    """

    network: IPv4Network
    prefix: bytes

    @property
    def own(self) -> str:
        return self.workload(_OWN)[0]

    @property
    def gateway(self) -> tuple[str, str]:
        return self.workload(_GATEWAY)

    def workload(self, number: int) -> tuple[str, str]:
        """Return the addresses of a workload, IPv4 and IPv6."""
        return self._pair(number, 0)

    def service(self, number: int) -> tuple[str, str]:
        """Return the virtual addresses of a service."""
        return self._pair(number, 1)

    def number(self, address: str) -> int | None:
        """Return the number that an IPv4 address of either half stands for; None for a stranger's."""
        found = IPv4Address(address)
        return int(found) % _HALF if found in self.network else None

    def _pair(self, number: int, half: int) -> tuple[str, str]:
        four = self.network.network_address + half * _HALF + number
        six = self.prefix + half.to_bytes(2, "big") + number.to_bytes(8, "big")
        return str(four), str(IPv6Address(six))


def plan(run_directory: Path, taken: Collection[IPv4Network]) -> Plan:
    """
    Choose the networks of a mesh.

    Args:
        run_directory: Of the mesh; two meshes at the same time have different ones.
        taken: Networks that the machine knows a way to.

    Raises:
        CommandError: All are taken.
    """
    seed = sha256(str(run_directory).encode()).digest()
    count = LAST - FIRST + 1
    for step in range(count):
        network = IPv4Network(f"10.{FIRST + (seed[0] + step) % count}.0.0/16")
        if not any(network.overlaps(other) for other in taken if other.prefixlen > _WIDE):
            return Plan(network, b"\xfd" + seed[1:6])
    raise CommandError(
        f"no free network: the machine has routes to all of 10.{FIRST}.0.0 to 10.{LAST}.0.0"
    )


def allocate(
    workloads: Mapping[str, Workload],
    services: Iterable[Service],
    previous: Placements,
    plan: Plan,
) -> Placements:
    """
    Give every workload and every service its addresses.

    Args:
        workloads: All workloads of the mesh, by ``namespace/name``.
        services: All services of the mesh.
        previous: The placements that were in force before.
        plan: Where addresses come from.
    """
    before = {
        name: placement.address
        for name, placement in previous.workloads.items()
        if placement.captured
    }
    places = _numbers(workloads, before, plan, {_OWN, _GATEWAY})
    virtual = {name: pair[0] for name, pair in previous.service_addresses.items() if pair}
    names = sorted(f"{one.metadata.namespace}/{one.metadata.name}" for one in services)
    numbers = _numbers(names, virtual, plan, set())
    return Placements(
        workloads={
            name: _placement(workload, *plan.workload(places[name]))
            for name, workload in workloads.items()
        },
        service_addresses={name: plan.service(numbers[name]) for name in names},
    )


def _numbers(
    names: Iterable[str], before: Mapping[str, str], plan: Plan, reserved: set[int]
) -> dict[str, int]:
    """Return a number for each name: the one it had, else the lowest that nobody has or had."""
    numbers = {name: plan.number(address) for name, address in before.items()}
    used = {number for number in numbers.values() if number is not None} | reserved
    free = (number for number in range(1, _HALF - 1) if number not in used)
    made: dict[str, int] = {}
    for name in names:
        kept = numbers.get(name)
        made[name] = next(free) if kept is None else kept
    return made


def _placement(workload: Workload, address: str, ipv6: str) -> Placement:
    # In a namespace of its own, an app has every port that it declares.
    ports = {port.port: port.port for port in workload.spec.ports}
    return Placement(
        address=address,
        ipv6=ipv6,
        captured=True,
        app_address="127.0.0.1",
        app_ports=ports,
        inbound_ports=ports,
        inbound_port=INBOUND_PORT,
        outbound_port=OUTBOUND_PORT,
        admin_port=ADMIN_PORT,
    )
