"""What a mesh consists of, in short: enough to say who is meant by a name, and where it was written."""

from msgspec import Struct

from .resources.model import DEFAULT_MESH
from .resources.selection import selects, target
from .store import Location, State


class Behind(Struct, frozen=True, order=True):
    """A port of a workload, behind a port of a service."""

    workload: str
    port: int


class Outline(Struct, frozen=True, kw_only=True):
    """
    Attributes:
        identities: Of the workloads, by ``namespace/name``.
        ports: Of the workloads.
        services: ``namespace/name:port`` → what their selectors choose.
        locations: By ``Kind/namespace/name``.
    """

    identities: dict[str, str] = {}
    ports: dict[str, tuple[int, ...]] = {}
    services: dict[str, tuple[Behind, ...]] = {}
    locations: dict[str, Location] = {}


def outline(state: State) -> Outline:
    """Return the outline of a state."""
    from .generate.endpoints import identity  # who only reads outlines starts without all that

    mesh = state.mesh_config or DEFAULT_MESH
    workloads = dict(sorted(state.workloads.items()))
    return Outline(
        identities={name: identity(one, mesh) for name, one in workloads.items()},
        ports={
            name: tuple(sorted(port.port for port in one.spec.ports))
            for name, one in workloads.items()
        },
        services={
            f"{name}:{port.port}": tuple(
                Behind(key, at)
                for key, workload in workloads.items()
                if selects(service, workload) and (at := target(port, workload)) is not None
            )
            for name, service in sorted(state.services.items())
            for port in service.spec.ports
        },
        locations=state.locations,
    )
