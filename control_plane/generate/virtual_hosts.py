"""What the authorities of requests lead to: one virtual host for each port of each service."""

from collections.abc import Iterable

from control_plane.resources.model import HTTPRoute, Service, Workload
from meshproxy.contract.resources import BackendSpec, MatchSpec, RouteSpec, VirtualHostSpec

from .listeners import inbound_name
from .routes import attached, by_parent, cluster_name, compiled


def outbound(
    services: dict[str, Service], routes: Iterable[HTTPRoute], namespace: str
) -> tuple[VirtualHostSpec, ...]:
    """Return the virtual hosts that a client in `namespace` can call."""
    candidates = by_parent(routes)
    made: list[VirtualHostSpec] = []
    for name, service in sorted(services.items()):
        for port in sorted(service.spec.ports, key=lambda port: port.port):
            deciding = attached(service, port, namespace, candidates.get(name, ()), services)
            cluster = cluster_name(name, port.port)
            made.append(
                VirtualHostSpec(
                    name=cluster,
                    domains=domains(service, port.port, namespace),
                    routes=compiled(deciding, services)
                    if deciding
                    else (_all_to(f"Service/{name}", cluster),),
                )
            )
    return tuple(made)


def inbound(workload: Workload) -> tuple[VirtualHostSpec, ...]:
    """Return the virtual hosts of the workload's own ports: whatever the authority, to the app."""
    return tuple(
        VirtualHostSpec(
            name=inbound_name(port.port),
            domains=("*",),
            routes=(_all_to(inbound_name(port.port), inbound_name(port.port)),),
        )
        for port in sorted(workload.spec.ports, key=lambda port: port.port)
    )


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
