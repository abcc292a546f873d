"""
Which free port belongs to whom.

Ports are handed out once and kept: the placements file is the memory, so a mesh that is started
again has the addresses that people wrote into their shell history.  A port that was kept but has
been taken by another program since is replaced, unless its owner is running: then it is ours.

New ports come from below the range from which Linux takes the source ports of outgoing
connections (32768 and up): a port from inside it may be gone a moment after it was found free.
"""

import random
import socket
from collections.abc import Callable, Collection, Iterable, Mapping

from control_plane.placement import Placement, Placements
from control_plane.resources.model import Service, Workload

ADDRESS = "127.0.0.1"
FIRST, LAST = 20_000, 31_999


class NoFreePortError(RuntimeError):
    """Every port of the range is taken."""


def is_free(port: int) -> bool:
    """Say whether a server could listen on `port` now; connections in TIME_WAIT do not count."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((ADDRESS, port))
        except OSError:
            return False
    return True


class Ports:
    """
    Hands out ports, each once.

    Args:
        kept: Ports that have an owner already and must not be given to another.
        free: Says whether a port can be listened on; the operating system in real life.
    """

    def __init__(self, kept: Iterable[int] = (), free: Callable[[int], bool] = is_free) -> None:
        self._taken = set(kept)
        self._free = free

    def new(self) -> int:
        """Return a port that nobody has."""
        size = LAST - FIRST + 1
        # A random start keeps two meshes that start at the same moment apart.
        start = random.randrange(size)
        for step in range(size):
            port = FIRST + (start + step) % size
            if port not in self._taken and self._free(port):
                self._taken.add(port)
                return port
        raise NoFreePortError(f"no free port between {FIRST} and {LAST} on {ADDRESS}")

    def keep(self, port: int | None, *, running: bool) -> int:
        """Return `port` if it is still ours to use, otherwise a new one."""
        if port is not None and (running or self._free(port)):
            return port
        return self.new()


def service_key(service: Service, port: int) -> str:
    """Return the name by which placements know a service's port: ``namespace/service:port``."""
    return f"{service.metadata.namespace}/{service.metadata.name}:{port}"


def allocate(
    workloads: Mapping[str, Workload],
    services: Collection[Service],
    previous: Placements,
    *,
    reserved: Iterable[int] = (),
    running: Collection[str] = (),
    free: Callable[[int], bool] = is_free,
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
        reserved: Ports with other owners, such as the control plane.
        running: ``namespace/name`` of the workloads that listen on their ports at this moment.
        free: Says whether a port can be listened on.
    """
    kept = {port for old in previous.workloads.values() for port in _ports_of(old)}
    ports = Ports({*kept, *reserved}, free)
    placements: dict[str, Placement] = {}
    for name, workload in workloads.items():
        called = [
            service_key(service, port.port)
            for service in services
            if service.metadata.namespace == workload.metadata.namespace
            for port in service.spec.ports
        ]
        placements[name] = _place(
            workload, called, previous.workloads.get(name), ports, running=name in running
        )
    return Placements(workloads=placements)


def _place(
    workload: Workload, called: list[str], old: Placement | None, ports: Ports, *, running: bool
) -> Placement:
    declared = [port.port for port in workload.spec.ports]
    app = old.app_ports if old else {}
    inbound = old.inbound_ports if old else {}
    service = old.service_ports if old else {}
    return Placement(
        address=ADDRESS,
        app_ports={p: ports.keep(app.get(p), running=running) for p in declared},
        inbound_ports={p: ports.keep(inbound.get(p), running=running) for p in declared},
        outbound_port=ports.keep(old.outbound_port if old else None, running=running),
        service_ports={key: ports.keep(service.get(key), running=running) for key in called},
        admin_port=ports.keep(old.admin_port if old else None, running=running),
    )


def _ports_of(placement: Placement) -> Iterable[int]:
    yield from placement.app_ports.values()
    yield from placement.inbound_ports.values()
    yield from placement.service_ports.values()
    yield placement.outbound_port
    yield placement.admin_port
