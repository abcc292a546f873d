"""
Which free port belongs to whom.

Ports are handed out once and kept: the placements file is the memory, so a mesh that is started
again has the addresses that people wrote into their shell history.  A port that was kept but has
been taken by another program since is replaced.

New ports come from below the range from which Linux takes the source ports of outgoing
connections (32768 and up): a port from inside it may be gone a moment after it was found free.
"""

import random
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Protocol

from control_plane.cli.errors import CommandError
from control_plane.cli.local import reservation
from control_plane.cli.local.reservation import ADDRESS
from control_plane.placement import Placement, Placements
from control_plane.resources.model import Service, Workload

FIRST, LAST = 20_000, 31_999


class NoFreePortError(CommandError):
    """Every port of the range is taken."""


class Holder(Protocol):
    """What keeps a port ours."""

    def close(self) -> None: ...


class Reserve(Protocol):
    """Takes a port, or says None because somebody else has it (see `reservation.reserve`)."""

    def __call__(self, port: int, *, known: bool = False) -> Holder | None: ...


class Ports:
    """
    The ports of one mesh: each is in the books once, and held against the rest of the machine.

    Args:
        reserve: Takes a port from the operating system.
    """

    def __init__(self, reserve: Reserve = reservation.reserve) -> None:
        self._reserve = reserve
        self._books: dict[int, Holder | None] = {}

    def new(self) -> int:
        """Return a port that nobody has."""
        size = LAST - FIRST + 1
        # A random start keeps two meshes that start at the same moment apart.
        start = random.randrange(size)
        for step in range(size):
            port = FIRST + (start + step) % size
            if port not in self._books and (holder := self._reserve(port)) is not None:
                self._books[port] = holder
                return port
        raise NoFreePortError(f"no free port between {FIRST} and {LAST} on {ADDRESS}")

    def keep(self, port: int) -> bool:
        """Say whether a port that was ours before is ours still, or is so again from now on."""
        if port not in self._books:
            holder = self._reserve(port, known=True)
            if holder is None:
                return False
            self._books[port] = holder
        return True

    def lend(self, ports: Iterable[int]) -> None:
        """Let go of ports for a program that is about to listen on them; they stay in the books."""
        for port in ports:
            if (holder := self._books.get(port)) is not None:
                holder.close()
                self._books[port] = None

    def retain(self, ports: Collection[int]) -> None:
        """Give up all ports but these."""
        for port in self._books.keys() - set(ports):
            if (holder := self._books.pop(port)) is not None:
                holder.close()


def service_key(service: Service, port: int) -> str:
    """Return the name by which placements know a service's port: ``namespace/service:port``."""
    return f"{service.metadata.namespace}/{service.metadata.name}:{port}"


def allocate(
    workloads: Mapping[str, Workload],
    services: Collection[Service],
    previous: Placements,
    ports: Ports,
    *,
    others: Collection[int] = (),
) -> Placements:
    """
    Give every workload its ports.

    Each sidecar gets one local port for each port of each service of its namespace, the scope
    of the environment variables that lead to them; services of other namespaces are reached
    through the HTTP proxy.

    Args:
        workloads: All workloads of the mesh, by ``namespace/name``.
        services: All services of the mesh.
        previous: The placements that were in force before.
        ports: Where ports come from.
        others: Ports of the mesh that belong to no workload.
    """
    # Where each workload had a network namespace, its ports were not of this machine.
    before = {name: old for name, old in previous.workloads.items() if not old.captured}
    # All that was is claimed first: no new port may be one that another workload had.
    claimed = {
        port
        for name, old in before.items()
        if name in workloads
        for port in ports_of(old)
        if port not in others and ports.keep(port)
    }

    def place(port: int | None) -> int:
        if port not in claimed:
            return ports.new()
        claimed.remove(port)
        return port

    return Placements(
        workloads={
            name: _place(
                workload,
                [
                    service_key(service, port.port)
                    for service in services
                    if service.metadata.namespace == workload.metadata.namespace
                    for port in service.spec.ports
                ],
                before.get(name),
                place,
            )
            for name, workload in workloads.items()
        }
    )


def ports_of(placement: Placement) -> Iterable[int]:
    """Yield every port of a workload."""
    yield from placement.app_ports.values()
    yield from placement.inbound_ports.values()
    yield from placement.service_ports.values()
    yield placement.outbound_port
    yield placement.admin_port


def _place(
    workload: Workload,
    called: list[str],
    old: Placement | None,
    place: Callable[[int | None], int],
) -> Placement:
    declared = [port.port for port in workload.spec.ports]
    app = old.app_ports if old else {}
    inbound = old.inbound_ports if old else {}
    service = old.service_ports if old else {}
    return Placement(
        address=ADDRESS,
        app_ports={port: place(app.get(port)) for port in declared},
        inbound_ports={port: place(inbound.get(port)) for port in declared},
        outbound_port=place(old.outbound_port if old else None),
        service_ports={key: place(service.get(key)) for key in called},
        admin_port=place(old.admin_port if old else None),
    )
