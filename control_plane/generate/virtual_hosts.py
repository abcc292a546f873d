"""What the authorities of requests lead to: one virtual host for each port where HTTP may come."""

from collections.abc import Iterable

import msgspec

from control_plane.resources.attachment import Services, age
from control_plane.resources.gateway_api import GRPCRoute, HTTPRoute
from control_plane.resources.model import Service, Workload
from control_plane.resources.policies import FaultInjection, RateLimitPolicy
from control_plane.resources.policy_attachment import Targeted, all_for
from control_plane.resources.references import Policies
from control_plane.resources.selection import in_front
from meshproxy.contract.matching import MatchSpec
from meshproxy.contract.policies import RateLimitSpec
from meshproxy.contract.resources import BackendSpec, RouteSpec, VirtualHostSpec

from . import grpc_routes, http_routes
from .called import Called
from .guard import Guard
from .listeners import inbound_name, inbound_protocol
from .traffic_shaping import faults, rate_limits


def outbound(
    called: Iterable[Called],
    services: Services,
    namespace: str,
    policies: Policies,
    targeted: Targeted,
) -> tuple[VirtualHostSpec, ...]:
    """Return the virtual hosts that a client in `namespace` can call."""
    return tuple(
        VirtualHostSpec(
            name=one.name,
            domains=domains(one.resource, one.port.port, namespace),
            routes=_with_faults(one, _routes(one, services, policies), targeted),
        )
        for one in called
        if one.is_http
    )


def inbound(
    workload: Workload, services: Services, targeted: Targeted, guard: Guard | None = None
) -> tuple[VirtualHostSpec, ...]:
    """
    Return the virtual hosts of the workload's own ports: whatever the authority, to the app.

    The rate limits of the Services in front hold here, where all their callers come together.
    """
    return tuple(
        VirtualHostSpec(
            name=inbound_name(port.port),
            domains=("*",),
            routes=(_all_to(inbound_name(port.port), inbound_name(port.port)),),
            rate_limits=_rate_limits(port.port, workload, services, targeted),
            authorization=() if guard is None else guard.authorization(port.port),
            jwt=() if guard is None else guard.jwt,
        )
        for port in sorted(workload.spec.ports, key=lambda port: port.port)
        if inbound_protocol(port.port, workload, services) != "tcp"
    )


def _routes(called: Called, services: Services, policies: Policies) -> tuple[RouteSpec, ...]:
    deciding = called.decision.routes
    match called.decision.kind:
        case "GRPCRoute":
            grpc = [route for route in deciding if isinstance(route, GRPCRoute)]
            return grpc_routes.compiled(grpc, services, policies)
        case "HTTPRoute":
            http = [route for route in deciding if isinstance(route, HTTPRoute)]
            return http_routes.compiled(http, services, policies)
        case _:
            return (_all_to(f"Service/{called.service}", called.name),)


def _with_faults(
    called: Called, routes: tuple[RouteSpec, ...], targeted: Targeted
) -> tuple[RouteSpec, ...]:
    """Return routes with the faults of the Service that is called, after those of their own."""
    found = tuple(
        fault
        for policy in all_for(FaultInjection, called.resource, called.port, targeted)
        for fault in faults(policy)
    )
    if not found:
        return routes
    return tuple(msgspec.structs.replace(route, faults=(*route.faults, *found)) for route in routes)


def _rate_limits(
    number: int, workload: Workload, services: Services, targeted: Targeted
) -> tuple[RateLimitSpec, ...]:
    policies = {
        policy.metadata.name: policy
        for name, port in in_front(number, workload, services)
        for policy in all_for(RateLimitPolicy, services[name], port, targeted)
    }
    return tuple(
        limit for policy in sorted(policies.values(), key=age) for limit in rate_limits(policy)
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
