"""
How to reach the services of a local mesh from outside of it.

A request enters the mesh through somebody's sidecar, and with its identity: best through a
workload without an app, which is there for that, else as any other.

The command is one that speaks what the port does: `curl` to a port that takes no HTTP would be
refused, and a gRPC server has nothing for it.
"""

from collections.abc import Collection, Iterable, Mapping

from control_plane.cli.local.allocation import service_key
from control_plane.cli.local.workload import LocalWorkload
from control_plane.generate.called import Called, called
from control_plane.resources.gateway_api import Route, TLSRoute
from control_plane.resources.model import Service


def directions(
    workloads: Mapping[str, LocalWorkload],
    services: Collection[Service],
    routes: Iterable[Route] = (),
) -> tuple[str, list[tuple[str, str]]]:
    """Return whose sidecar is the door, and for each service port the command that calls it."""
    if not workloads or not services:
        return "", []
    door = min(workloads, key=lambda name: (workloads[name].unit.app is not None, name))
    workload = workloads[door]
    named = {f"{one.metadata.namespace}/{one.metadata.name}": one for one in services}
    ports = called(named, routes, workload.unit.workload.metadata.namespace)
    return door, [(port.name, _call(workload, port)) for port in ports]


def _call(door: LocalWorkload, called: Called) -> str:
    place = door.placement
    service, port = called.resource.metadata, called.port.port
    home = door.unit.workload.metadata.namespace
    host = service.name if service.namespace == home else f"{service.name}.{service.namespace}"
    if door.namespace is not None:
        return f"ip netns exec {door.namespace} {_command(called, host, port)}"
    local = place.service_ports.get(service_key(called.resource, port))
    proxy = f"http://{place.address}:{place.outbound_port}"
    if local is not None and (door.unit.app is None or not called.is_http or _is_grpc(called)):
        return _command(called, place.address, local)
    if not called.is_http:
        return f"curl -p -x {proxy} telnet://{host}:{port}"
    return f"curl -x {proxy} {_url(host, port)}"


def _command(called: Called, host: str, port: int) -> str:
    names = [name for route in called.decision.routes for name in _server_names(route)]
    if names:
        return f"openssl s_client -connect {host}:{port} -servername {names[0]}"
    if not called.is_http:
        return f"nc {host} {port}"
    if _is_grpc(called):
        return f"grpcurl -plaintext {host}:{port} SERVICE/METHOD"
    return f"curl {_url(host, port)}"


def _server_names(route: Route) -> tuple[str, ...]:
    return route.spec.hostnames if isinstance(route, TLSRoute) else ()


def _url(host: str, port: int) -> str:
    return f"http://{host}/" if port == 80 else f"http://{host}:{port}/"


def _is_grpc(called: Called) -> bool:
    return called.decision.kind == "GRPCRoute" or called.port.app_protocol == "grpc"
