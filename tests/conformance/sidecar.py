"""The proxy under test: one sidecar, inbound, plaintext, everything to one app."""

from pathlib import Path
from typing import Any

from meshproxy.contract.resources import (
    BackendSpec,
    ClusterSpec,
    EndpointSpec,
    EndpointsSpec,
    ListenerSpec,
    RouteSpec,
    Snapshot,
    VirtualHostSpec,
)
from tests.helpers.pair import Sidecar
from tests.helpers.ports import free_port


def sidecar_before(
    directory: Path, app: int, settings: dict[str, Any] | None = None, *, port: int | None = None
) -> tuple[Sidecar, int]:
    """Return a sidecar, not started, and the port that leads through it to the app."""
    port = port or free_port()
    route = RouteSpec(name="all", backends=(BackendSpec(cluster="app"),))
    endpoint = EndpointSpec(address="127.0.0.1", port=app)
    listener = ListenerSpec(
        name="in", direction="inbound", address="127.0.0.1", port=port, virtual_host="app"
    )
    snapshot = Snapshot(
        clusters=(ClusterSpec(name="app"),),
        endpoints=(EndpointsSpec(cluster="app", endpoints=(endpoint,)),),
        virtual_hosts=(VirtualHostSpec(name="app", routes=(route,)),),
        listeners=(listener,),
    )
    return Sidecar(directory, "catalog", snapshot, None, settings), port
