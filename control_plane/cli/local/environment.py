"""
What an app is told about its mesh.

An app needs no library and no change: most HTTP clients obey ``HTTP_PROXY``, and the rest can use
the variables that Kubernetes made customary, which lead to one local port per service.  Values may
refer to others as ``$(NAME)``, by the rules of a Pod's `command` and `env`:

    Variable references $(VAR_NAME) are expanded using the container's environment.  If a
    variable cannot be resolved, the reference in the input string will be unchanged.  Double
    $$ are reduced to a single $, which allows for escaping the $(VAR_NAME) syntax: i.e.
    "$$(VAR_NAME)" will produce the string literal "$(VAR_NAME)".
"""

import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType

from control_plane.cli.local.allocation import service_key
from control_plane.placement import Placement
from control_plane.resources.model import Service, Workload

NOT_PROXIED = "localhost,127.0.0.1,::1"
"""Names of services go through the sidecar; what is plainly this machine does not."""

PROXIES = ("HTTP_PROXY", "http_proxy", "NO_PROXY", "no_proxy")

_REFERENCE = re.compile(r"\$\$|\$\((?P<name>[A-Za-z_][A-Za-z0-9_.-]*)\)")


def app_environment(
    workload: Workload,
    placement: Placement,
    services: Iterable[Service],
    inherited: Mapping[str, str],
    service_addresses: Mapping[str, Sequence[str]] = MappingProxyType({}),
) -> dict[str, str]:
    """
    Return the whole environment of a workload's app.

    An app whose traffic is captured has no proxy to know of, and calls services by their own
    addresses and ports.

    Args:
        workload: Whose app it is.
        placement: Its ports.
        services: All services of the mesh; those of the workload's namespace are handed over.
        inherited: The environment of whoever starts the mesh; the mesh's own words win over it,
            the workload's `env` over both.
        service_addresses: ``namespace/service`` → its virtual addresses, where it has some.
    """
    metadata, run = workload.metadata, workload.spec.run
    environment = {
        "PYTHONUNBUFFERED": "1",  # a log line is wanted now, not when 8 KiB have gathered
        **{name: value for name, value in inherited.items() if name not in PROXIES},
        **({} if placement.captured else _proxy_variables(placement)),
        "MESH_WORKLOAD": metadata.name,
        "MESH_NAMESPACE": metadata.namespace,
        # The interpreter that runs the mesh, for apps in Python that bring none of their own.
        "MESH_PYTHON": sys.executable,
    }
    for index, port in enumerate(workload.spec.ports):
        app_port = str(placement.app_ports[port.port])
        if index == 0:
            environment["PORT"] = app_port
        if port.name is not None:
            environment[f"PORT_{_variable(port.name)}"] = app_port
    for service in services:
        if service.metadata.namespace == metadata.namespace:
            key = f"{metadata.namespace}/{service.metadata.name}"
            virtual = service_addresses.get(key, ()) if placement.captured else ()
            environment.update(_service_variables(service, placement, virtual))
    for name, value in (run.env if run else {}).items():
        environment[name] = expand(value, environment)
    return environment


def expand(text: str, environment: Mapping[str, str]) -> str:
    """Replace ``$(NAME)`` by what the environment says; ``$$`` is a dollar sign."""

    def replacement(match: re.Match[str]) -> str:
        if match.group() == "$$":
            return "$"
        return environment.get(match["name"], match.group())

    return _REFERENCE.sub(replacement, text)


def _proxy_variables(placement: Placement) -> dict[str, str]:
    proxy = f"http://{placement.address}:{placement.outbound_port}"
    # curl obeys the lower-case name only, others the upper-case one only.
    values = (proxy, proxy, NOT_PROXIED, NOT_PROXIED)
    return dict(zip(PROXIES, values, strict=True))


def _service_variables(
    service: Service, placement: Placement, virtual: Sequence[str]
) -> dict[str, str]:
    # https://kubernetes.io/docs/concepts/services-networking/service/#environment-variables
    name = _variable(service.metadata.name)
    variables: dict[str, str] = {}
    for port in service.spec.ports:
        local = placement.service_ports.get(service_key(service, port.port))
        address = placement.address
        if virtual:
            address, local = virtual[0], port.port
        if local is None:
            continue
        variables.setdefault(f"{name}_SERVICE_HOST", address)
        variables.setdefault(f"{name}_SERVICE_PORT", str(local))
        if port.name is not None:
            variables[f"{name}_SERVICE_PORT_{_variable(port.name)}"] = str(local)
    return variables


def _variable(name: str) -> str:
    """``catalog-v1`` → ``CATALOG_V1``; a dot, legal in a name, is not legal in a variable."""
    return re.sub(r"[^A-Z0-9_]", "_", name.upper())
