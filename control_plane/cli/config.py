"""
`meshctl config PROXY [SECTION]`: what one proxy has been told.

The answer is the control plane's.  While that is away, a proxy of a local mesh is asked itself:
it goes on with what it has.
"""

import argparse
import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import msgspec

from control_plane import placement
from control_plane.cli import certificates, policies
from control_plane.cli.arguments import Verbs, add_context, add_output, client_of
from control_plane.cli.client import Client, NotFoundError, UnreachableError, request
from control_plane.cli.errors import OK
from control_plane.cli.matching import described
from control_plane.cli.names import qualified, resolved
from control_plane.cli.output import percent, show, table, terminal_width
from meshproxy.contract import wire
from meshproxy.contract.resources import (
    BackendSpec,
    HeaderModifierSpec,
    RouteSpec,
    Snapshot,
    TcpBackendSpec,
)


def register(verbs: "Verbs[argparse.ArgumentParser]") -> None:
    """Add the verb to the command line."""
    parser = verbs.add_parser(
        "config",
        help="what one proxy has been told",
        description="Show the configuration of one proxy, whole or in part.",
    )
    parser.add_argument("proxy", metavar="PROXY", help="name or namespace/name of the workload")
    parser.add_argument(
        "section",
        nargs="?",
        choices=(*SECTIONS, CERTIFICATES),
        metavar="SECTION",
        help="only this part: " + ", ".join((*SECTIONS, CERTIFICATES)),
    )
    add_context(parser)
    add_output(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Show a proxy's configuration."""
    client = client_of(arguments)
    name, snapshot = fetch(client, arguments.proxy)
    width = terminal_width()
    data = _data(snapshot, arguments.section)
    texts = []
    everything = [name for name in (*SECTIONS, CERTIFICATES) if name not in _without(snapshot)]
    for section in [arguments.section] if arguments.section else everything:
        if section == CERTIFICATES:
            facts = certificates.known(client, name, snapshot)
            texts.append(certificates.render(facts, time.time(), width))
            if arguments.section:
                data = facts
        else:
            texts.append(SECTIONS[section](snapshot, width))
    text = "\n\n".join(texts)
    if not arguments.section:
        text = f"version {snapshot.version or '-'}\n\n{text}"
    show(data, arguments.output, text)
    return OK


def fetch(client: Client, typed: str) -> tuple[str, Snapshot]:
    """
    Return the full name of the proxy that was meant, and its snapshot.

    Raises:
        CommandError: There is none of that name, or nobody to ask.
    """
    name = qualified(typed)
    try:
        return name, _snapshot(client.get(f"/api/v1/proxies/{name}/snapshot"))
    except NotFoundError:
        name = resolved(typed, [proxy["workload"] for proxy in client.get("/api/v1/proxies")])
        return name, _snapshot(client.get(f"/api/v1/proxies/{name}/snapshot"))
    except UnreachableError as error:
        return _from_the_proxy(client, name, error)


def _from_the_proxy(client: Client, name: str, error: UnreachableError) -> tuple[str, Snapshot]:
    if client.context.run_dir is None:
        raise error
    placements = placement.read(Path(client.context.run_dir, "placements.json")).workloads
    name = resolved(name, placements)
    place = placements[name]
    _, body = request(f"{place.address}:{place.admin_port}", "GET", "/config")
    return name, _snapshot(json.loads(body))


def _snapshot(data: Any) -> Snapshot:
    return wire.convert(data, Snapshot)


def _data(snapshot: Snapshot, section: str | None) -> Any:
    data = msgspec.to_builtins(snapshot)
    if section is None:
        return data
    if section == "policies":
        return policies.data(snapshot)
    if section == "routes":
        return {key: data.get(key, []) for key in ("virtual_hosts", "tcp_routes")}
    return data.get(section, [])


def _without(snapshot: Snapshot) -> set[str]:
    """Return the sections that there is no use in showing unasked."""
    return set() if snapshot.destinations else {"destinations"}


# The sections, as tables --------------------------------------------------------------------------


def _listeners(snapshot: Snapshot, width: int | None) -> str:
    rows = [
        (
            one.name,
            one.direction,
            f"{one.address}:{one.port}",
            # What arrives from the app beside it is never TLS; what leaves is, by the cluster.
            one.mtls if one.direction == "inbound" else None,
            one.protocol,
            one.virtual_host or one.tcp_route,
        )
        for one in snapshot.listeners
    ]
    headers = ("LISTENER", "DIRECTION", "ADDRESS", "MTLS", "PROTOCOL", "LEADS TO")
    return table(headers, rows, width=width)


def _destinations(snapshot: Snapshot, width: int | None) -> str:
    rows = [
        (
            one.name,
            one.direction,
            ", ".join(one.addresses) or "any",
            one.port,
            one.protocol,
            one.virtual_host or one.tcp_route,
        )
        for one in snapshot.destinations
    ]
    headers = ("DESTINATION", "DIRECTION", "ADDRESSES", "PORT", "PROTOCOL", "LEADS TO")
    return table(headers, rows, width=width)


def _routes(snapshot: Snapshot, width: int | None) -> str:
    rows = [
        (host.name, described(route.match), action(route), route.name)
        for host in snapshot.virtual_hosts
        for route in host.routes
    ]
    texts = [table(("VIRTUAL HOST", "MATCH", "ACTION", "ROUTE"), rows, width=width)]
    streams = [
        (one.name, ", ".join(rule.server_names) or "any", shares(rule.backends), rule.name)
        for one in snapshot.tcp_routes
        for rule in one.rules
    ]
    if streams:
        headers = ("CONNECTIONS TO", "SERVER NAME", "ACTION", "ROUTE")
        texts.append(table(headers, streams, width=width))
    return "\n\n".join(texts)


def _clusters(snapshot: Snapshot, width: int | None) -> str:
    servers = {one.cluster: len(one.endpoints) for one in snapshot.endpoints}
    rows = [
        (
            one.name,
            one.service,
            "yes" if one.mtls else "no",
            servers.get(one.name, 0),
            f"{one.connect_timeout}ms",
            f"{one.idle_timeout}ms",
        )
        for one in snapshot.clusters
    ]
    headers = ("CLUSTER", "SERVICE", "MTLS", "ENDPOINTS", "CONNECT TIMEOUT", "IDLE TIMEOUT")
    return table(headers, rows, width=width)


def _endpoints(snapshot: Snapshot, width: int | None) -> str:
    rows = [
        (
            group.cluster,
            f"{one.address}:{one.port}",
            one.weight,
            one.workload,
            one.version,
            ", ".join(one.identities),
        )
        for group in snapshot.endpoints
        for one in group.endpoints
    ]
    headers = ("CLUSTER", "ADDRESS", "WEIGHT", "WORKLOAD", "VERSION", "IDENTITIES")
    return table(headers, rows, width=width)


SECTIONS: dict[str, Callable[[Snapshot, int | None], str]] = {
    "listeners": _listeners,
    "destinations": _destinations,
    "routes": _routes,
    "clusters": _clusters,
    "endpoints": _endpoints,
    "policies": policies.as_table,
}


CERTIFICATES = "certs"
"""The one section that the snapshot does not tell."""


# Routes in words ----------------------------------------------------------------------------------


def action(route: RouteSpec) -> str:
    """Return what a route does in one line."""
    if route.redirect is not None:
        to = route.redirect
        where = f"{to.scheme or ''}{'://' if to.scheme else ''}{to.hostname or ''}"
        return f"redirect {to.status} {where}{to.path.value if to.path else ''}".rstrip()
    if not any(backend.weight for backend in route.backends):
        return "500 (nothing to forward to)"
    forwarded = shares(route.backends)
    changed = [
        name
        for name, value in (
            ("rewrite", route.rewrite),
            ("request headers", _or_none(route.request_headers)),
            ("response headers", _or_none(route.response_headers)),
        )
        if value is not None
    ]
    return f"{forwarded} ({', '.join(changed)})" if changed else forwarded


def shares(backends: Sequence[BackendSpec] | Sequence[TcpBackendSpec]) -> str:
    """Return which part goes to which cluster."""
    total = sum(backend.weight for backend in backends)
    if not total:
        return "refused (nothing to forward to)"
    return ", ".join(_share(backend, total) for backend in backends)


def _share(backend: BackendSpec | TcpBackendSpec, total: int) -> str:
    missing = "500 (unresolved)" if isinstance(backend, BackendSpec) else "refused (unresolved)"
    return f"{backend.cluster or missing} {percent(backend.weight / total)}"


def _or_none(modifier: HeaderModifierSpec | None) -> HeaderModifierSpec | None:
    return modifier if modifier is not None and modifier != HeaderModifierSpec() else None
