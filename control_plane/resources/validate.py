"""
What types cannot say about one resource: names, ranges, combinations.

Each kind has one generator of problems, (path, message) pairs, in the order of its fields; those of
routes fill files of their own, `http_route` and its like.
"""

from collections.abc import Iterable, Iterator

from . import (
    authorization_policy,
    fault_injection,
    grpc_route,
    http_route,
    peer_authentication,
    rate_limit_policy,
    request_authentication,
    syntax,
    tcp_route,
    tls_route,
    traffic_policy,
)
from .duration import milliseconds
from .finding import Finding, Path
from .gateway_api import GRPCRoute, HTTPRoute, TCPRoute, TLSRoute
from .model import MeshConfig, Service, Workload, WorkloadRun
from .parse import Source
from .policies import FaultInjection, Policy, RateLimitPolicy, TrafficPolicy
from .security import (
    AuthorizationPolicy,
    PeerAuthentication,
    RequestAuthentication,
    SecurityPolicy,
)

Problems = Iterator[tuple[Path, str]]

MIN_LIFETIME = 60_000
"""Milliseconds: below that, renewal at half-life would leave no time to try twice."""
MIN_REFRESH = 1_000
"""Milliseconds: an issuer is a service that others need, too."""


def validate(source: Source) -> Iterator[Finding]:
    """Yield what is wrong with a resource, whatever else is in the mesh."""
    for path, message in problems(source):
        yield source.finding(path, message)


def problems(source: Source) -> Problems:
    """Yield the path and the message of each thing wrong."""
    yield from _metadata(source)
    match source.resource:
        case Service() as service:
            yield from _service(service)
        case HTTPRoute() as route:
            yield from http_route.problems_of_route(route)
        case GRPCRoute() as route:
            yield from grpc_route.problems_of_route(route)
        case TLSRoute() as route:
            yield from tls_route.problems_of_route(route)
        case TCPRoute() as route:
            yield from tcp_route.problems_of_route(route)
        case TrafficPolicy() | RateLimitPolicy() | FaultInjection() as policy:
            yield from _policy(policy)
        case AuthorizationPolicy() | PeerAuthentication() | RequestAuthentication() as policy:
            yield from _security(policy)
        case Workload() as workload:
            yield from _workload(workload)
        case MeshConfig() as mesh:
            yield from _mesh_config(mesh)


def _policy(policy: Policy) -> Problems:
    match policy:
        case TrafficPolicy():
            yield from traffic_policy.problems_of_policy(policy)
        case RateLimitPolicy():
            yield from rate_limit_policy.problems_of_policy(policy)
        case FaultInjection():
            yield from fault_injection.problems_of_policy(policy)


def _security(policy: SecurityPolicy) -> Problems:
    match policy:
        case AuthorizationPolicy():
            yield from authorization_policy.problems_of_policy(policy)
        case PeerAuthentication():
            yield from peer_authentication.problems_of_policy(policy)
        case RequestAuthentication():
            yield from request_authentication.problems_of_policy(policy)


def _metadata(source: Source) -> Problems:
    metadata = source.resource.metadata
    match source.resource:
        case Service():
            wrong = syntax.service_name(metadata.name)
        case Workload():
            wrong = syntax.dns_label(metadata.name)
        case _:
            wrong = syntax.dns_name(metadata.name)
    if wrong:
        yield ("metadata", "name"), wrong
    if wrong := syntax.dns_label(metadata.namespace):
        yield ("metadata", "namespace"), wrong
    yield from _labels(("metadata", "labels"), metadata.labels)


def _labels(path: Path, labels: dict[str, str]) -> Problems:
    for key, value in labels.items():
        if wrong := syntax.label_key(key) or syntax.label_value(value):
            yield (*path, key), wrong


def _service(service: Service) -> Problems:
    spec = service.spec
    path: Path = ("spec", "ports")
    if not spec.ports:
        yield path, "is empty, expected at least one port"
    yield from _unique_ports(path, [(port.port, port.name) for port in spec.ports])
    for index, port in enumerate(spec.ports):
        # core/v1 ServicePort: "If only one port is specified, the name may be empty."
        if len(spec.ports) > 1 and port.name is None:
            yield (*path, index), "has no name, expected one where a Service has several ports"
        if port.name is not None and (wrong := syntax.dns_label(port.name)):
            yield (*path, index, "name"), wrong
        if isinstance(port.target_port, int) and not 1 <= port.target_port <= 65535:
            message = f"{port.target_port} is no port, expected 1 to 65535 or a port's name"
            yield (*path, index, "targetPort"), message
        elif isinstance(port.target_port, str) and (wrong := syntax.port_name(port.target_port)):
            yield (*path, index, "targetPort"), wrong
        # core/v1: "valid values are either un-prefixed protocol names … or … other prefixed names"
        if port.app_protocol is not None and (wrong := syntax.app_protocol(port.app_protocol)):
            yield (*path, index, "appProtocol"), wrong
    yield from _labels(("spec", "selector"), spec.selector)


def _workload(workload: Workload) -> Problems:
    spec = workload.spec
    if spec.service_account is not None and (wrong := syntax.dns_name(spec.service_account)):
        yield ("spec", "serviceAccount"), wrong
    path: Path = ("spec", "ports")
    yield from _unique_ports(path, [(port.port, port.name) for port in spec.ports])
    for index, port in enumerate(spec.ports):
        if port.name is not None and (wrong := syntax.port_name(port.name)):
            yield (*path, index, "name"), wrong
    if spec.run is not None:
        yield from _run(("spec", "run"), spec.run)


def _run(path: Path, run: WorkloadRun) -> Problems:
    if not run.command or not run.command[0]:
        yield (*path, "command"), "is empty, expected a program and its arguments"
    for index, argument in enumerate(run.command):
        if "\0" in argument:
            yield (*path, "command", index), "contains NUL, which no argument can"
    for name, value in run.env.items():
        if not name or "=" in name or "\0" in name:
            yield (*path, "env", name), f'"{name}" is not a name for a variable'
        elif "\0" in value:
            yield (*path, "env", name), "contains NUL, which no variable can"
    if not run.directory or "\0" in run.directory:
        yield (*path, "directory"), "is empty or contains NUL, expected a directory"


def _unique_ports(path: Path, ports: Iterable[tuple[int, str | None]]) -> Problems:
    numbers: dict[int, int] = {}
    names: dict[str, int] = {}
    for index, (number, name) in enumerate(ports):
        if numbers.setdefault(number, index) != index:
            first = f"ports[{numbers[number]}]"
            yield (*path, index, "port"), f"{number} is also the port of {first}, expected it once"
        if name is not None and names.setdefault(name, index) != index:
            first = f"ports[{names[name]}]"
            yield (*path, index, "name"), f'"{name}" is also the name of {first}, expected it once'


def _mesh_config(mesh: MeshConfig) -> Problems:
    # SPIFFE-ID §2.1 would allow "_" as well; a DNS name is what every tool around it expects.
    domain = mesh.spec.trust_domain
    if wrong := syntax.dns_name(domain):
        yield ("spec", "trustDomain"), wrong
    path: Path = ("spec", "certificates", "lifetime")
    if milliseconds(mesh.spec.certificates.lifetime) < MIN_LIFETIME:
        yield path, f'"{mesh.spec.certificates.lifetime}" is too short, expected at least 60s'
    for index, folder in enumerate(mesh.spec.jwks.allowed_folders):
        if not folder.startswith("/") or "\0" in folder:
            message = f'"{folder}" is no absolute path, expected such as /etc/mesh/keys'
            yield ("spec", "jwks", "allowedFolders", index), message
    if milliseconds(mesh.spec.jwks.refresh) < MIN_REFRESH:
        path = ("spec", "jwks", "refresh")
        yield path, f'"{mesh.spec.jwks.refresh}" is too short, expected at least 1s'
