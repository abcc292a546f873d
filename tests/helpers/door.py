"""One sidecar between a port and an app, in plaintext: the least that serves."""

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


class Door:
    """
    Attributes:
        port: Leads to the app, whatever the authority.
        proxy: Serves the HTTP proxy form; `catalog` is the app.
    """

    def __init__(
        self, directory: Path, app: int, *, settings: dict[str, Any] | None = None
    ) -> None:
        self.port, self.proxy = free_port(), free_port()
        route = RouteSpec(name="all", backends=(BackendSpec(cluster="app"),))
        endpoint = EndpointSpec(address="127.0.0.1", port=app)
        snapshot = Snapshot(
            clusters=(ClusterSpec(name="app", service="default/catalog"),),
            endpoints=(EndpointsSpec(cluster="app", endpoints=(endpoint,)),),
            virtual_hosts=(VirtualHostSpec(name="app", domains=("catalog",), routes=(route,)),),
            listeners=(
                ListenerSpec(
                    name="in",
                    direction="inbound",
                    address="127.0.0.1",
                    port=self.port,
                    virtual_host="app",
                ),
                ListenerSpec(
                    name="out", direction="outbound", address="127.0.0.1", port=self.proxy
                ),
            ),
        )
        self.sidecar = Sidecar(directory, "catalog", snapshot, None, settings)
