"""Small meshes to test with."""

from collections.abc import Sequence
from pathlib import Path

from control_plane.resources.fields import Metadata
from control_plane.resources.model import (
    Service,
    ServicePort,
    ServiceSpec,
    Workload,
    WorkloadPort,
    WorkloadRun,
    WorkloadSpec,
)
from control_plane.store import Location, State


def workload(
    name: str,
    *ports: int,
    namespace: str = "default",
    command: Sequence[str] = (),
    env: dict[str, str] | None = None,
    account: str | None = None,
    version: str = "v1",
    directory: str = ".",
) -> Workload:
    run = WorkloadRun(command=tuple(command), env=env or {}, directory=directory)
    return Workload(
        api_version="meshproxy.io/v1alpha1",
        kind="Workload",
        metadata=Metadata(name=name, namespace=namespace, labels={"version": version}),
        spec=WorkloadSpec(
            service_account=account,
            ports=tuple(WorkloadPort(port=port, name=f"port-{port}") for port in ports),
            run=run if command else None,
        ),
    )


def service(name: str, *ports: int, namespace: str = "default") -> Service:
    return Service(
        api_version="v1",
        kind="Service",
        metadata=Metadata(name=name, namespace=namespace),
        spec=ServiceSpec(
            ports=tuple(ServicePort(port=port, name=f"port-{port}") for port in ports),
            selector={"app": name},
        ),
    )


def state(*workloads: Workload, file: Path = Path("mesh.yaml")) -> State:
    named = {f"{one.metadata.namespace}/{one.metadata.name}": one for one in workloads}
    return State(
        workloads=named,
        locations={f"Workload/{name}": Location(str(file), 1) for name in named},
    )
