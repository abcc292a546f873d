"""Three sidecar processes in a row, and two apps between them that know nothing of deadlines."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from meshproxy.contract.resources import (
    BackendSpec,
    ClusterSpec,
    EndpointSpec,
    EndpointsSpec,
    ListenerSpec,
    RouteSpec,
    Snapshot,
    TrustSpec,
    VirtualHostSpec,
)
from tests.helpers.certificates import TestAuthority
from tests.helpers.pair import DOMAIN, Sidecar, spiffe
from tests.helpers.ports import free_port

NAMES = ("storefront", "cart", "stock")


@dataclass
class Link:
    """
    One sidecar of the chain.

    Attributes:
        door: Port for its app, that leads to the next one.
        inbound: Port for peers.
        app: Port of the app beside it; 0 without one.
    """

    name: str
    app: int
    door: int = field(default_factory=free_port)
    inbound: int = field(default_factory=free_port)


def _listener(name: str, direction: Any, port: int, host: str, mtls: Any) -> ListenerSpec:
    return ListenerSpec(
        name=name, direction=direction, address="127.0.0.1", port=port, virtual_host=host, mtls=mtls
    )


def _way(link: Link, cluster: str, **said: Any) -> VirtualHostSpec:
    route = RouteSpec(name=cluster, backends=(BackendSpec(cluster=cluster),), **said)
    return VirtualHostSpec(name=cluster, domains=(f"{cluster}.default:80",), routes=(route,))


def snapshot_of(link: Link, following: Link | None, root: str, **route: Any) -> Snapshot:
    """
    Return what one sidecar obeys.

    Args:
        link: The sidecar.
        following: The one that its door leads to.
        root: The authority's certificate.
        route: More of the route through its door.
    """
    hosts, clusters, endpoints, listeners = [], [], [], []
    if following is not None:
        hosts.append(_way(link, following.name, **route))
        clusters.append(
            ClusterSpec(name=following.name, service=f"default/{following.name}", mtls=True)
        )
        peer = EndpointSpec(
            address="127.0.0.1", port=following.inbound, identities=(spiffe(following.name),)
        )
        endpoints.append(EndpointsSpec(cluster=following.name, endpoints=(peer,)))
        listeners.append(_listener("door", "outbound", link.door, following.name, "disabled"))
    if link.app:
        hosts.append(_way(link, "app"))
        clusters.append(ClusterSpec(name="app"))
        app = EndpointSpec(address="127.0.0.1", port=link.app)
        endpoints.append(EndpointsSpec(cluster="app", endpoints=(app,)))
        listeners.append(_listener("inbound", "inbound", link.inbound, "app", "strict"))
    return Snapshot(
        trust=(TrustSpec(trust_domain=DOMAIN, roots=(root,)),),
        clusters=tuple(clusters),
        endpoints=tuple(endpoints),
        virtual_hosts=tuple(hosts),
        listeners=tuple(listeners),
    )


@asynccontextmanager
async def chain(
    directory: Path, apps: Sequence[int], doors: Sequence[int], **route: Any
) -> AsyncIterator[list[Sidecar]]:
    """
    Start the sidecars: a client speaks to the first door, and each app to that of its own sidecar.

    Args:
        directory: For their files.
        apps: Ports of the second and the third sidecar's apps.
        doors: Ports of the first and the second sidecar's doors.
        route: More of the route through the first door.
    """
    authority = TestAuthority()
    ports = (*doors, free_port())
    links = [
        Link(name, app, door) for name, app, door in zip(NAMES, (0, *apps), ports, strict=True)
    ]
    sidecars = []
    for number, link in enumerate(links):
        following = links[number + 1] if number + 1 < len(links) else None
        said = route if number == 0 else {}
        sidecars.append(
            Sidecar(
                directory,
                link.name,
                snapshot_of(link, following, authority.pem, **said),
                authority.issue(spiffe(link.name), directory, link.name),
            )
        )
    started = []
    try:
        for sidecar in reversed(sidecars):
            await asyncio.to_thread(sidecar.__enter__)
            started.append(sidecar)
        yield sidecars
    finally:
        for sidecar in started:
            await asyncio.to_thread(sidecar.__exit__)
