"""What an app can call: each port of each service, with what holds for it."""

from collections.abc import Iterable

from msgspec import Struct

from control_plane.resources.attachment import Decision, Services, by_parent, decide
from control_plane.resources.gateway_api import Route
from control_plane.resources.model import Service, ServicePort

from .backends import cluster_name


class Called(Struct, frozen=True):
    """
    One service port, as one namespace sees it.

    Attributes:
        name: Of its virtual host, its TCP route and its own cluster.
        service: ``namespace/name``.
        decision: What its clients speak, and which routes decide.
    """

    name: str
    service: str
    resource: Service
    port: ServicePort
    decision: Decision

    @property
    def is_http(self) -> bool:
        """Some of what comes may be HTTP."""
        return self.decision.protocol != "tcp"

    @property
    def is_tcp(self) -> bool:
        """Some of what comes may be no HTTP."""
        return self.decision.protocol != "http"


def called(services: Services, routes: Iterable[Route], namespace: str) -> tuple[Called, ...]:
    """Return all service ports, by name and port, as a client in `namespace` sees them."""
    candidates = by_parent(routes)
    return tuple(
        Called(
            cluster_name(name, port.port),
            name,
            service,
            port,
            decide(service, port, namespace, candidates.get(name, ())),
        )
        for name, service in sorted(services.items())
        for port in sorted(service.spec.ports, key=lambda port: port.port)
    )
