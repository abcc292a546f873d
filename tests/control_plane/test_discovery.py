"""The conversations end to end: a sidecar's client against the control plane, real sockets, real TLS."""

from pathlib import Path

from control_plane.snapshots import State
from meshproxy.contract.resources import ClusterSpec, EndpointSpec, EndpointsSpec, Snapshot
from tests.helpers.plane import CATALOG, Plane, Sidecar, free_port, until

WORKLOAD = "default/catalog-v1"


def mesh(port: int = 8080, *clusters: str) -> Snapshot:
    names = clusters or ("reviews",)
    return Snapshot(
        clusters=tuple(ClusterSpec(name=name) for name in names),
        endpoints=tuple(
            EndpointsSpec(cluster=name, endpoints=(EndpointSpec(address="127.0.0.1", port=port),))
            for name in names
        ),
    )


async def test_first_contact_by_token_then_update_and_ack(tmp_path: Path) -> None:
    """A token becomes a certificate, the certificate a stream, the stream a snapshot in force."""
    async with Plane(tmp_path / "plane", free_port()).running() as plane:
        wanted = plane.want(WORKLOAD, mesh())
        token, _expires = plane.tokens.issue(WORKLOAD, CATALOG)
        async with Sidecar(plane, tmp_path / "sidecar", token=token).running() as sidecar:
            await until(lambda: sidecar.client.snapshot.version == wanted.version)
            proxy = plane.discovery.proxies[WORKLOAD]
            await until(lambda: proxy.state is State.SYNCED)

            assert sidecar.applied == [wanted]
            assert sidecar.certificates.ready
            assert proxy.acked_version == wanted.version
            assert proxy.identity == str(CATALOG)
            assert len(plane.tokens) == 0

            wanted = plane.want(WORKLOAD, mesh(9090))
            await until(lambda: proxy.acked_version == wanted.version)
            assert sidecar.applied[-1] == wanted
        await until(lambda: proxy.state is State.DISCONNECTED)
