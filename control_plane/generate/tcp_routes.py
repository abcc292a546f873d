"""
Where connections go that are not HTTP: TLSRoutes, TCPRoutes, and without either the service itself.

`hostnames` of a TLSRoute are matched with the server name (SNI) of the ClientHello, also in the
mesh: GEP-1294's "SHOULD NOT infer any functionality from the `hostnames` field" would leave a
TLSRoute nothing to tell connections apart by.  As for HTTP, what no rule matches is refused: there
is no fall-through to the Service's own endpoints.
"""

from collections.abc import Iterable

import msgspec

from control_plane.resources.attachment import Services
from control_plane.resources.gateway_api import TCPRoute, TLSRoute
from control_plane.resources.model import Workload
from meshproxy.contract.resources import TcpBackendSpec, TcpRouteSpec, TcpRuleSpec

from .backends import tcp_backend
from .called import Called
from .guard import Guard
from .listeners import inbound_name, inbound_protocol
from .virtual_hosts import domains


def outbound(
    called: Iterable[Called], services: Services, namespace: str
) -> tuple[TcpRouteSpec, ...]:
    """
    Return a route for each service port on which something else than HTTP may come.

    It has the service's names, as seen from `namespace`, where no virtual host has them.
    """
    return tuple(
        TcpRouteSpec(
            name=one.name,
            domains=() if one.is_http else domains(one.resource, one.port.port, namespace),
            rules=_rules(one, services),
        )
        for one in called
        if one.is_tcp
    )


def inbound(
    workload: Workload, services: Services, guard: Guard | None = None
) -> tuple[TcpRouteSpec, ...]:
    """Return the routes of the workload's own ports: to the app."""
    return tuple(
        msgspec.structs.replace(
            _all_to(inbound_name(port.port), inbound_name(port.port)),
            authorization=() if guard is None else guard.authorization(port.port),
        )
        for port in sorted(workload.spec.ports, key=lambda port: port.port)
        if inbound_protocol(port.port, workload, services) != "http"
    )


def _rules(called: Called, services: Services) -> tuple[TcpRuleSpec, ...]:
    if called.decision.kind is None:
        return _all_to(f"Service/{called.service}", called.name).rules
    return tuple(
        TcpRuleSpec(
            name=f"{route.kind}/{route.metadata.namespace}/{route.metadata.name}/{rule.name or number}",
            server_names=route.spec.hostnames if isinstance(route, TLSRoute) else (),
            backends=tuple(tcp_backend(ref, route, services) for ref in rule.backend_refs),
        )
        for route in called.decision.routes
        if isinstance(route, TLSRoute | TCPRoute)
        for number, rule in enumerate(route.spec.rules)
    )


def _all_to(name: str, cluster: str) -> TcpRouteSpec:
    rule = TcpRuleSpec(name=name, backends=(TcpBackendSpec(cluster=cluster),))
    return TcpRouteSpec(name=cluster, rules=(rule,))
