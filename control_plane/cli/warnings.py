"""
What is allowed, and yet surely not meant: said, but no reason to refuse anything.

A Service whose selector chooses no workload may come before its workloads, or outlive them; a typo
in a label looks the same, and its callers get 503 ``no-healthy-endpoint``.  An `appProtocol` of
nobody's may be another program's word; it may as well be a slip, and then says nothing to us.  A
policy that nothing leads to may be kept for later.
"""

from collections.abc import Iterator, Sequence

from control_plane.resources.app_protocol import HTTP, TCP, protocol_of
from control_plane.resources.gateway_api import (
    GRPCRoute,
    GRPCRouteFilter,
    HTTPRoute,
    HTTPRouteFilter,
)
from control_plane.resources.meant import nearest
from control_plane.resources.model import Service, ServicePort, Workload
from control_plane.store import State


def warnings(state: State) -> list[str]:
    """Return a line for each thing that is odd, in the form of findings."""
    return [
        f"{_where(state, f'Service/{name}')}Service/{name}: {message}"
        for name, service in sorted(state.services.items())
        for message in _of_service(service, state)
    ] + [
        f"{_where(state, key)}{key}: spec.targetRefs: is missing, and no route refers to it"
        for key, policy in sorted(state.policies.items())
        if not policy.spec.target_refs and key not in _extensions(state)
    ]


def _extensions(state: State) -> set[str]:
    """Return the keys of the policies that routes refer to."""
    return {
        f"{ref.kind}/{route.metadata.namespace}/{ref.name}"
        for route in state.routes.values()
        if isinstance(route, HTTPRoute | GRPCRoute)
        for filters in _filters(route)
        for item in filters
        if (ref := item.extension_ref) is not None
    }


def _filters(route: HTTPRoute | GRPCRoute) -> list[Sequence[HTTPRouteFilter | GRPCRouteFilter]]:
    return [rule.filters for rule in route.spec.rules]


def _of_service(service: Service, state: State) -> Iterator[str]:
    for index, port in enumerate(service.spec.ports):
        yield from _of_protocol(index, port)
    selector = service.spec.selector
    if not selector:
        yield "spec.selector: is missing, no workload answers for this service"
        return
    chosen = [
        workload
        for workload in state.workloads.values()
        if workload.metadata.namespace == service.metadata.namespace
        and selector.items() <= workload.metadata.labels.items()
    ]
    if not chosen:
        labels = ", ".join(f"{name}: {value}" for name, value in selector.items())
        yield f"spec.selector: no workload of this namespace has the labels {labels}"
        return
    for index, port in enumerate(service.spec.ports):
        wanted = port.port if port.target_port is None else port.target_port
        if not any(_has(workload, wanted) for workload in chosen):
            field = "port" if port.target_port is None else "targetPort"
            yield f"spec.ports[{index}].{field}: no selected workload has the port {wanted}"


def _of_protocol(index: int, port: ServicePort) -> Iterator[str]:
    said = port.app_protocol
    # One with a prefix is somebody's on purpose.
    if said is not None and protocol_of(port) == "detect" and "/" not in said:
        known = nearest(said, HTTP | TCP)
        yield f'spec.ports[{index}].appProtocol: "{said}" says nothing to the mesh, {known}'


def _has(workload: Workload, wanted: int | str) -> bool:
    return any(wanted in (port.port, port.name) for port in workload.spec.ports)


def _where(state: State, key: str) -> str:
    location = state.locations.get(key)
    return f"{location.file}:{location.line}: " if location is not None else ""
