"""What the authorities of requests lead to: one virtual host for each port where HTTP may come."""

from collections.abc import Iterable

from control_plane.resources.attachment import Services
from control_plane.resources.model import GRPCRoute, HTTPRoute, Service, Workload
from meshproxy.contract.matching import MatchSpec
from meshproxy.contract.resources import BackendSpec, RouteSpec, VirtualHostSpec

from . import grpc_routes, http_routes
from .called import Called
from .listeners import inbound_name, inbound_protocol


def outbound(
    called: Iterable[Called], services: Services, namespace: str
) -> tuple[VirtualHostSpec, ...]:
    """Return the virtual hosts that a client in `namespace` can call."""
    return tuple(
        VirtualHostSpec(
            name=one.name,
            domains=domains(one.resource, one.port.port, namespace),
            routes=_routes(one, services),
        )
        for one in called
        if one.is_http
    )


def inbound(workload: Workload, services: Services) -> tuple[VirtualHostSpec, ...]:
    """Return the virtual hosts of the workload's own ports: whatever the authority, to the app."""
    return tuple(
        VirtualHostSpec(
            name=inbound_name(port.port),
            domains=("*",),
            routes=(_all_to(inbound_name(port.port), inbound_name(port.port)),),
        )
        for port in sorted(workload.spec.ports, key=lambda port: port.port)
        if inbound_protocol(port.port, workload, services) != "tcp"
    )


def _routes(called: Called, services: Services) -> tuple[RouteSpec, ...]:
    deciding = called.decision.routes
    match called.decision.kind:
        case "GRPCRoute":
            grpc = [route for route in deciding if isinstance(route, GRPCRoute)]
            return grpc_routes.compiled(grpc, services)
        case "HTTPRoute":
            http = [route for route in deciding if isinstance(route, HTTPRoute)]
            return http_routes.compiled(http, services)
        case _:
            return (_all_to(f"Service/{called.service}", called.name),)


def domains(service: Service, port: int, namespace: str) -> tuple[str, ...]:
    """
    Return the names that cluster DNS gives a Service, as seen from `namespace`, with the port.

    The bare name belongs to the caller's own namespace, as with the `search` line of a Pod's
    resolv.conf.
    """
    name, home = service.metadata.name, service.metadata.namespace
    hosts = [f"{name}.{home}", f"{name}.{home}.svc", f"{name}.{home}.svc.cluster.local"]
    if home == namespace:
        hosts.insert(0, name)
    return tuple(f"{host}:{port}" for host in hosts)


def _all_to(name: str, cluster: str) -> RouteSpec:
    return RouteSpec(name=name, match=MatchSpec(), backends=(BackendSpec(cluster=cluster),))
