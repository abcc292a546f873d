"""
What should run: the state of the files, seen as processes.

Two units of a workload are compared field by field, so that nothing restarts that did not change:
a route edit touches no unit, a new command restarts an app and leaves its sidecar alone.
"""

from dataclasses import dataclass
from pathlib import Path

from control_plane.resources.model import MeshConfigSpec, Workload
from control_plane.store import State


@dataclass(frozen=True)
class SidecarUnit:
    """What a sidecar's process depends on; all else it learns from the control plane."""

    identity: str
    version: str


@dataclass(frozen=True)
class AppUnit:
    """What an app's process depends on."""

    command: tuple[str, ...]
    env: tuple[tuple[str, str], ...]
    directory: Path
    ports: tuple[tuple[str | None, int], ...]


@dataclass(frozen=True)
class Unit:
    """One workload: its sidecar, and its app where the mesh is to start it."""

    name: str
    workload: Workload
    sidecar: SidecarUnit
    app: AppUnit | None


@dataclass(frozen=True)
class Changes:
    """The way from what runs to what should, by names of units."""

    removed: tuple[str, ...]
    added: tuple[str, ...]
    sidecars: tuple[str, ...]
    """Of units that stay: whose sidecar is to be restarted."""
    apps: tuple[str, ...]
    """Of units that stay: whose app is to be started, stopped or restarted."""


def desire(state: State, trust_domain: str) -> dict[str, Unit]:
    """Return the units that a state asks for, by ``namespace/name``."""
    return {
        name: _unit(name, workload, Path(state.locations[f"Workload/{name}"].file), trust_domain)
        for name, workload in state.workloads.items()
    }


def trust_domain_of(state: State) -> str:
    """Return the trust domain that a mesh which starts from this state has, for good."""
    return (state.mesh_config.spec if state.mesh_config else MeshConfigSpec()).trust_domain


def changes(running: dict[str, Unit], wanted: dict[str, Unit]) -> Changes:
    """Compare what runs with what should."""
    stay = [name for name in running if name in wanted]
    return Changes(
        removed=tuple(name for name in running if name not in wanted),
        added=tuple(name for name in wanted if name not in running),
        sidecars=tuple(name for name in stay if running[name].sidecar != wanted[name].sidecar),
        apps=tuple(name for name in stay if running[name].app != wanted[name].app),
    )


def _unit(name: str, workload: Workload, file: Path, trust_domain: str) -> Unit:
    metadata, spec = workload.metadata, workload.spec
    account = spec.service_account or metadata.name
    app = None
    if spec.run is not None:
        app = AppUnit(
            command=spec.run.command,
            env=tuple(spec.run.env.items()),
            directory=(file.parent / spec.run.directory).resolve(),
            ports=tuple((port.name, port.port) for port in spec.ports),
        )
    return Unit(
        name=name,
        workload=workload,
        sidecar=SidecarUnit(
            identity=f"spiffe://{trust_domain}/ns/{metadata.namespace}/sa/{account}",
            version=metadata.labels.get("version", ""),
        ),
        app=app,
    )
