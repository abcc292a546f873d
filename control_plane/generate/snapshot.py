"""
THE STORYBOARD of configuration: from the mesh's state to all that one proxy must know.

A pure function: the same state gives the same bytes on every control plane, whatever the order in
which the files were read, so equal versions mean equal content.  Each step is one file here, and
sees what the steps before it made; a proxy is sent only what these steps refer to.
"""

import msgspec

from control_plane.resources.model import DEFAULT_MESH
from control_plane.resources.policy_attachment import by_target
from control_plane.store import State
from meshproxy.contract import wire
from meshproxy.contract.resources import DestinationSpec, Snapshot, TrustSpec

from . import clusters, destinations, endpoints, tcp_routes, virtual_hosts
from .authentication import NO_KEY_SETS, KeySets
from .called import called
from .destinations import Neighbours, neighbours
from .guard import Guard
from .listeners import listeners


def generate(
    state: State, workload: str, trust: TrustSpec, key_sets: KeySets = NO_KEY_SETS
) -> Snapshot:
    """
    Return the snapshot of the sidecar beside `workload` (``namespace/name``).

    Args:
        state: What the mesh should be.
        workload: One of its workloads.
        trust: Whom it believes.
        key_sets: Keys of token issuers that are not in the state itself.

    Raises:
        KeyError: There is no such workload.
    """
    own = state.workloads[workload]
    mesh = state.mesh_config or DEFAULT_MESH
    placement = state.placements.workloads.get(workload)

    routes = tuple(state.routes.values())
    targeted = by_target(state.policies.values())
    security = tuple(state.security.values())

    # §1 What its app can call: each service port, as the app's namespace sees it, by request …
    home = own.metadata.namespace
    ports = called(state.services, routes, home)
    hosts = virtual_hosts.outbound(ports, state.services, home, state.policies, targeted)
    # §2 … and by connection, where what comes is not HTTP …
    streams = tcp_routes.outbound(ports, state.services, home)
    # §3 … the servers that those routes lead to …
    outward = clusters.outbound(hosts, streams, state.services, routes, mesh, targeted)
    # §4 … and who they are.
    servers = endpoints.outbound(
        own, outward, state.services, state.workloads, state.placements, mesh
    )

    # §5 What callers reach: the app's own ports.
    guard = Guard(own, security, mesh, key_sets)
    own_hosts = virtual_hosts.inbound(own, state.services, targeted, guard)
    own_streams = tcp_routes.inbound(own, state.services, guard)
    app = clusters.inbound(own, state.services, routes, targeted)
    itself = endpoints.inbound(own, placement)

    # §6 What addresses mean, where connections come by redirection.
    meant: tuple[DestinationSpec, ...] = ()
    near = Neighbours()
    if placement is not None and placement.captured:
        near = neighbours(workload, state.workloads, state.services, state.placements, mesh)
        meant = (
            *destinations.services(ports, state.placements),
            *near.destinations,
            *destinations.inbound(own, state.services, security, mesh),
        )

    # §7 Where it listens for both, and whom it believes.
    snapshot = Snapshot(
        listeners=listeners(own, placement, mesh, ports, state.services, security),
        destinations=meant,
        virtual_hosts=(*hosts, *near.virtual_hosts, *own_hosts),
        tcp_routes=(*streams, *near.tcp_routes, *own_streams),
        clusters=(*outward, *near.clusters, *app),
        endpoints=(*servers, *near.endpoints, *itself),
        trust=(trust,),
    )
    return msgspec.structs.replace(snapshot, version=wire.version_of(snapshot))
