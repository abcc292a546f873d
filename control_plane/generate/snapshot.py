"""
THE STORYBOARD of configuration: from the mesh's state to all that one proxy must know.

A pure function: the same state gives the same bytes on every control plane, whatever the order in
which the files were read, so equal versions mean equal content.  Each step is one file here, and
sees what the steps before it made; a proxy is sent only what these steps refer to.
"""

import msgspec

from control_plane.resources.model import MeshConfig, Metadata
from control_plane.store import State
from meshproxy.contract import wire
from meshproxy.contract.resources import Snapshot, TrustSpec

from . import clusters, endpoints, virtual_hosts
from .listeners import listeners

_DEFAULTS = MeshConfig(
    api_version="meshproxy.io/v1alpha1", kind="MeshConfig", metadata=Metadata(name="default")
)


def generate(state: State, workload: str, trust: TrustSpec) -> Snapshot:
    """
    Return the snapshot of the sidecar beside `workload` (``namespace/name``).

    Raises:
        KeyError: There is no such workload.
    """
    own = state.workloads[workload]
    mesh = state.mesh_config or _DEFAULTS
    placement = state.placements.workloads.get(workload)

    # §1 What its app can call: each service port, as the app's namespace sees it …
    called = virtual_hosts.outbound(state.services, state.routes.values(), own.metadata.namespace)
    # §2 … the servers that those routes lead to …
    outward = clusters.outbound(called, state.services, mesh)
    # §3 … and who they are.
    servers = endpoints.outbound(outward, state.services, state.workloads, state.placements, mesh)

    # §4 What callers reach: the app's own ports.
    reached = virtual_hosts.inbound(own)
    app = clusters.inbound(own, state.services.values())
    itself = endpoints.inbound(own, placement)

    # §5 Where it listens for both, and whom it believes.
    snapshot = Snapshot(
        listeners=listeners(own, placement, mesh, {host.name for host in called}),
        virtual_hosts=(*called, *reached),
        clusters=(*outward, *app),
        endpoints=(*servers, *itself),
        trust=(trust,),
    )
    return msgspec.structs.replace(snapshot, version=wire.version_of(snapshot))
