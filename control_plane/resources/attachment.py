"""
Which routes decide for a service port, as one namespace sees it.

The Gateway API's rules for a mesh (GEP-1294, GEP-1324):

* A route attaches to a Service through `parentRefs`, to all of its ports or to one.
* A *producer* route (in the Service's namespace) holds for every client; a *consumer* route (in
  another) only for clients in its own namespace, where the consumer routes *replace* the producer
  routes.
* "If multiple routes with different types both bind to the same Service and Port pair, only a
  single route type should be applied", in the order GRPCRoute, HTTPRoute, TLSRoute, TCPRoute.
* A port whose `appProtocol` says what it speaks takes no route of another layer, as a Gateway's
  TCP listener takes no HTTPRoute.

`generate` and the findings ask the same functions, so what is said and what is done cannot differ.
"""

from collections.abc import Iterable, Mapping

from msgspec import Struct

from meshproxy.contract.resources import Protocol

from .app_protocol import is_prior_knowledge, protocol_of
from .gateway_api import GRPCRoute, ParentRef, Route
from .model import Service, ServicePort
from .policies import Policy
from .security import SecurityPolicy

Services = Mapping[str, Service]
Parented = Mapping[str, list[Route]]
"""``namespace/name`` of a Service → the routes that name it as a parent."""

SPECIFICITY = ("GRPCRoute", "HTTPRoute", "TLSRoute", "TCPRoute")
"""GEP-1294, "Route types": the first one wins."""

_LAYER: dict[str, Protocol] = {
    "GRPCRoute": "http",
    "HTTPRoute": "http",
    "TLSRoute": "tcp",
    "TCPRoute": "tcp",
}


class Decision(Struct, frozen=True):
    """
    What holds for one service port.

    Attributes:
        protocol: What its clients speak: as `appProtocol` says, else as the routes mean it.
        kind: Of the routes that decide; None where there is no route.
        routes: Those that decide, the oldest first.
    """

    protocol: Protocol
    kind: str | None = None
    routes: tuple[Route, ...] = ()


def by_parent(routes: Iterable[Route]) -> dict[str, list[Route]]:
    """Return the routes that name each Service, so that not every route is asked for each one."""
    found: dict[str, list[Route]] = {}
    for route in routes:
        names = {parent_name(ref, route.metadata.namespace) for ref in route.spec.parent_refs}
        for name in names:
            found.setdefault(name, []).append(route)
    return found


def decide(
    service: Service, port: ServicePort, namespace: str, candidates: Iterable[Route]
) -> Decision:
    """Return what holds for clients in `namespace`, of `candidates` that name the Service."""
    producers: list[Route] = []
    consumers: list[Route] = []
    for route in candidates:
        if not attaches(route, service, port):
            continue
        if route.metadata.namespace == service.metadata.namespace:
            producers.append(route)
        elif route.metadata.namespace == namespace:
            consumers.append(route)
    attached = consumers or producers
    said = protocol_of(port)
    if not attached:
        return Decision(said)
    kind = min((route.kind for route in attached), key=SPECIFICITY.index)
    routes = sorted((route for route in attached if route.kind == kind), key=age)
    if kind == "TCPRoute":
        del routes[1:]  # it takes every connection: there is nothing left for the next
    return Decision(_LAYER[kind], kind, tuple(routes))


def age(resource: Route | Policy | SecurityPolicy) -> tuple[bool, str, str]:
    """
    Return a key that sorts the older first.

    "If ties still exist across multiple Routes: the oldest Route based on creation timestamp; the
    Route appearing first in alphabetical order by '{namespace}/{name}'."  GEP-713 says the same of
    policies.

    A resource out of a file has no timestamp; it counts as younger than one that has.
    """
    metadata = resource.metadata
    created = metadata.creation_timestamp
    return created is None, created or "", f"{metadata.namespace}/{metadata.name}"


def attaches(route: Route, service: Service, port: ServicePort) -> bool:
    """Say whether one of the route's parents is this port, and the port takes such a route."""
    here = f"{service.metadata.namespace}/{service.metadata.name}"
    return takes(port, route.kind) and any(
        (ref.group, ref.kind) == ("", "Service")
        and parent_name(ref, route.metadata.namespace) == here
        and selects(ref, port)
        for ref in route.spec.parent_refs
    )


def parent_name(ref: ParentRef, namespace: str) -> str:
    """Return ``namespace/name`` of the Service that a route in `namespace` means."""
    return f"{ref.namespace or namespace}/{ref.name}"


def selects(ref: ParentRef, port: ServicePort) -> bool:
    """
    "When both Port and SectionName are specified, the name and port of the selected port must
    match both specified values."
    """
    return ref.port in (None, port.port) and ref.section_name in (None, port.name)


def takes(port: ServicePort, kind: str) -> bool:
    """Say whether a port that speaks what its `appProtocol` says takes routes of a kind."""
    return protocol_of(port) in ("detect", _LAYER[kind])


# What an app speaks -------------------------------------------------------------------------------


def grpc_backends(routes: Iterable[Route]) -> set[tuple[str, int]]:
    """
    Return the service ports that GRPCRoutes lead to, each as ``namespace/name`` and number.

    "If a Service appProtocol isn't specified, an implementation MAY infer the backend protocol
    through its own means.  Implementations MAY infer the protocol from the Route type referring to
    the backend Service."  gRPC is HTTP/2, so a backend of a GRPCRoute speaks it.
    """
    return {
        (f"{ref.namespace or route.metadata.namespace}/{ref.name}", ref.port)
        for route in routes
        if isinstance(route, GRPCRoute)
        for rule in route.spec.rules
        for ref in rule.backend_refs
        if ref.port is not None
    }


def speaks_http2(name: str, port: ServicePort, called_by_grpc: set[tuple[str, int]]) -> bool:
    """Say whether the app behind a port of the Service `name` is spoken to in HTTP/2."""
    if is_prior_knowledge(port):
        return True
    return port.app_protocol is None and (name, port.port) in called_by_grpc
