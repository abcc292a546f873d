"""
How to reach the services of a local mesh from outside of it.

A request enters the mesh through somebody's sidecar, and with its identity: best through a
workload without an app, which is there for that, else as any other.
"""

from collections.abc import Collection, Mapping

from control_plane.cli.local.allocation import service_key
from control_plane.cli.local.workload import LocalWorkload
from control_plane.resources.model import Service


def directions(
    workloads: Mapping[str, LocalWorkload], services: Collection[Service]
) -> tuple[str, list[tuple[str, str]]]:
    """Return whose sidecar is the door, and for each service the command that calls it."""
    if not workloads or not services:
        return "", []
    door = min(workloads, key=lambda name: (workloads[name].unit.app is not None, name))
    workload = workloads[door]
    return door, [
        (
            f"{service.metadata.namespace}/{service.metadata.name}",
            _call(workload, service, port.port),
        )
        for service in sorted(services, key=lambda one: (one.metadata.namespace, one.metadata.name))
        for port in service.spec.ports
    ]


def _call(door: LocalWorkload, service: Service, port: int) -> str:
    place = door.placement
    name, home = service.metadata.name, service.metadata.namespace
    host = name if home == door.unit.workload.metadata.namespace else f"{name}.{home}"
    authority = host if port == 80 else f"{host}:{port}"
    if door.namespace is not None:
        return f"ip netns exec {door.namespace} curl http://{authority}/"
    local = place.service_ports.get(service_key(service, port))
    if door.unit.app is None and local is not None:
        return f"curl http://{place.address}:{local}/"
    return f"curl -x http://{place.address}:{place.outbound_port} http://{authority}/"
