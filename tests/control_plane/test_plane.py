"""The whole control plane in this process: files in, certificates and configuration out."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from msgspec import structs

from control_plane.cli.client import Client
from control_plane.cli.context import Context
from control_plane.cli.errors import CommandError
from control_plane.config import ApiAccess, Config, Listen, OwnAuthority
from control_plane.plane import Plane, StartError
from control_plane.snapshots import State
from meshproxy import private_file
from meshproxy.config.bootstrap import Bootstrap, ControlPlane
from meshproxy.config.discovery_client import DiscoveryClient
from meshproxy.contract.resources import Snapshot
from meshproxy.contract.spiffe import SpiffeId
from meshproxy.identity.certificates import Certificates
from tests.control_plane.test_authority import CSR
from tests.helpers.certificates import TestAuthority, key_pem
from tests.helpers.plane import until
from tests.helpers.ports import free_port

MESH = """
apiVersion: meshproxy.io/v1alpha1
kind: Workload
metadata: {name: catalog-v1, labels: {app: catalog}}
spec: {serviceAccount: catalog, ports: [{port: 80}]}
---
apiVersion: v1
kind: Service
metadata: {name: catalog}
spec: {selector: {app: catalog}, ports: [{port: 80}]}
"""
REVIEWS = """---
apiVersion: v1
kind: Service
metadata: {name: reviews}
spec: {selector: {app: reviews}, ports: [{port: 80}]}
"""
CATALOG = "spiffe://mesh.local/ns/default/sa/catalog"


def settings(folder: Path) -> Config:
    return Config(
        state=folder / "plane",
        files=(folder / "mesh.yaml",),
        discovery=Listen(port=0),
        api=Listen(port=0),
    )


@asynccontextmanager
async def running(plane: Plane) -> AsyncIterator[aiohttp.ClientSession]:
    """Run `plane`, and yield a client of its API with the operator's token."""
    stop = asyncio.Event()
    task = asyncio.create_task(plane.run(stop))
    await until(lambda: plane.ports or task.done())
    assert plane.ports is not None
    token = (plane._config.state / "operator.token").read_text()
    try:
        async with aiohttp.ClientSession(
            f"http://127.0.0.1:{plane.ports[1]}", headers={"Authorization": f"Bearer {token}"}
        ) as session:
            yield session
    finally:
        stop.set()
        await task


async def test_over_tls_certificates_of_listed_identities_are_as_good_as_tokens(
    tmp_path: Path,
) -> None:
    """meshctl acts with one, another may only look, a third nothing; revoked, it is over at once."""
    (tmp_path / "mesh.yaml").write_text(MESH)
    alice, bob, eve = (SpiffeId.of("mesh.local", "people", who) for who in ("alice", "bob", "eve"))
    access = ApiAccess(tls=True, operators=(str(alice),), viewers=(str(bob),))
    plane = Plane(structs.replace(settings(tmp_path), access=access))
    (tmp_path / "roots.pem").write_text("".join(plane._authority.roots()))

    def client(who: SpiffeId, plane_is: str = "mesh-system/sa/control-plane") -> Client:
        path = tmp_path / f"{who.path.rpartition('/')[2]}.pem"
        key, signed = plane._authority.issue(who, timedelta(hours=1))
        private_file.write(path, (key + signed.chain).encode())
        assert plane.ports is not None
        return Client(
            Context(
                api=f"https://127.0.0.1:{plane.ports[1]}",
                certificate=str(path),
                roots=str(tmp_path / "roots.pem"),
                identity=f"spiffe://mesh.local/ns/{plane_is}",
            )
        )

    async def refused(who: SpiffeId, verb: str, *words: object, plane_is: str = "") -> str:
        asked = client(who, plane_is) if plane_is else client(who)
        with pytest.raises(CommandError) as caught:
            await asyncio.to_thread(getattr(asked, verb), *words)
        return str(caught.value)

    issue = ("/api/v1/tokens", {"workload": "default/catalog-v1"})
    async with running(plane):
        answer = await asyncio.to_thread(client(alice).post, *issue)
        assert answer["identity"] == CATALOG
        assert (await asyncio.to_thread(client(bob).get, "/api/v1/status"))["revision"] == 1
        assert "role operate" in await refused(bob, "post", *issue)
        assert "does not accept" in await refused(eve, "get", "/api/v1/status")
        impostor = await refused(alice, "get", "/api/v1/status", plane_is="x/sa/y")
        assert "expected spiffe://mesh.local/ns/x/sa/y" in impostor
        plane._revocations.revoke(alice, "gone")
        assert "does not accept" in await refused(alice, "get", "/api/v1/status")


async def test_a_file_becomes_what_a_proxy_obeys(tmp_path: Path) -> None:
    """Token from the API, certificate, snapshot; then an edit of the file reaches the proxy."""
    (tmp_path / "mesh.yaml").write_text(MESH)
    plane = Plane(settings(tmp_path))
    async with running(plane) as api:
        assert plane.ports is not None
        async with api.post("/api/v1/tokens", json={"workload": "default/catalog-v1"}) as answer:
            granted = await answer.json()
        assert granted["identity"] == CATALOG
        async with api.get("/api/v1/roots") as answer:
            (tmp_path / "roots.pem").write_text(await answer.text())
        (tmp_path / "token").write_text(granted["token"])
        applied: list[Snapshot] = []
        bootstrap = Bootstrap(
            workload="default/catalog-v1",
            identity=CATALOG,
            state=tmp_path / "sidecar",
            control_plane=ControlPlane(
                address="127.0.0.1",
                port=plane.ports[0],
                identity="spiffe://mesh.local/ns/mesh-system/sa/control-plane",
                roots=tmp_path / "roots.pem",
                token=tmp_path / "token",
            ),
        )

        async def apply(snapshot: Snapshot) -> None:
            applied.append(snapshot)

        client = DiscoveryClient(bootstrap, Certificates(CATALOG, bootstrap.state), apply)
        sidecar = asyncio.create_task(client.run())
        try:
            await until(lambda: applied)
            (tmp_path / "mesh.yaml").write_text(MESH + REVIEWS)
            await until(lambda: len(applied) == 2)
            assert "default/reviews:80" in {c.name for c in applied[1].clusters}
            proxies: list[dict[str, Any]] = []
            while not proxies or proxies[0]["state"] != State.SYNCED:
                async with api.get("/api/v1/proxies") as answer:
                    proxies = await answer.json()
            assert proxies[0]["acked_version"] == applied[1].version
            async with api.get("/api/v1/proxies/default/catalog-v1/snapshot") as answer:
                shown = await answer.json()
            assert shown["version"] == applied[1].version
            # Proxies share a secret with each other, not with who looks at their configuration.
            secrets = {trust.session_secret for one in applied for trust in one.trust}
            assert [len(secret) for secret in secrets] == [64]
            assert [trust["session_secret"] for trust in shown["trust"]] == ["hidden"]
        finally:
            sidecar.cancel()
            await asyncio.gather(sidecar, return_exceptions=True)


async def test_an_operators_root_is_that_of_the_mesh(tmp_path: Path) -> None:
    """A sidecar joins with it; `authority` in the configuration is all that is needed."""
    (tmp_path / "mesh.yaml").write_text(MESH)
    root = TestAuthority("corporate")
    issuing = TestAuthority("issuing", signed_by=root)
    (tmp_path / "root.pem").write_text(root.pem)
    (tmp_path / "issuing.pem").write_text(issuing.pem)
    private_file.write(tmp_path / "issuing.key", key_pem(issuing.key).encode())
    own = OwnAuthority(
        root=tmp_path / "root.pem",
        certificate=tmp_path / "issuing.pem",
        key=tmp_path / "issuing.key",
    )
    plane = Plane(structs.replace(settings(tmp_path), authority=own))
    async with running(plane) as api:
        async with api.post("/api/v1/tokens", json={"workload": "default/catalog-v1"}) as answer:
            (tmp_path / "token").write_text((await answer.json())["token"])
        assert plane.ports is not None
        bootstrap = Bootstrap(
            workload="default/catalog-v1",
            identity=CATALOG,
            state=tmp_path / "sidecar",
            control_plane=ControlPlane(
                address="127.0.0.1",
                port=plane.ports[0],
                identity="spiffe://mesh.local/ns/mesh-system/sa/control-plane",
                roots=tmp_path / "root.pem",
                token=tmp_path / "token",
            ),
        )
        applied: list[Snapshot] = []

        async def apply(snapshot: Snapshot) -> None:
            applied.append(snapshot)

        certificates = Certificates(CATALOG, bootstrap.state)
        sidecar = asyncio.create_task(DiscoveryClient(bootstrap, certificates, apply).run())
        try:
            await until(lambda: applied)
            assert [trust.roots for trust in applied[0].trust] == [(root.pem,)]
            assert certificates.described()["certificate"]["issuer"] == "CN=issuing"
            async with api.get("/api/v1/certificates") as answer:
                facts = await answer.json()
            (holder,) = facts["proxies"]
            assert (holder["of_current_issuer"], holder["connected"]) == (True, True)
        finally:
            sidecar.cancel()
            await asyncio.gather(sidecar, return_exceptions=True)

    own.key.chmod(0o644)
    for path in (tmp_path / "plane" / "authority").iterdir():
        path.unlink()
    with pytest.raises(StartError, match=r"issuing\.key: has mode 0644"):
        Plane(structs.replace(settings(tmp_path), authority=own))


def test_a_rotation_does_not_wait_for_who_is_revoked(tmp_path: Path) -> None:
    """It could not acknowledge anything if it wanted to; it is shown all the same."""
    (tmp_path / "mesh.yaml").write_text(MESH)
    plane = Plane(settings(tmp_path))
    identity = SpiffeId.parse(CATALOG)
    plane._authority.sign(CSR, identity, timedelta(hours=1), "default/catalog-v1")
    plane._guide.begin("root")
    assert [lag.workload for lag in plane._guide.lagging()] == ["default/catalog-v1"]
    plane._revocations.revoke(identity)
    assert plane._guide.lagging() == []
    assert [holder.workload for holder in plane._holders()] == ["default/catalog-v1"]


async def test_no_workload_gets_the_control_planes_identity(tmp_path: Path) -> None:
    """Sidecars obey whoever proves that identity, so a Workload of that account gets none."""
    (tmp_path / "mesh.yaml").write_text(
        "apiVersion: meshproxy.io/v1alpha1\nkind: Workload\n"
        "metadata: {name: evil, namespace: mesh-system}\n"
        "spec: {serviceAccount: control-plane, ports: [{port: 80}]}\n"
    )
    async with running(Plane(settings(tmp_path))) as api:
        asked = api.post("/api/v1/tokens", json={"workload": "mesh-system/evil"})
        async with asked as answer:
            assert answer.status == 404


async def test_another_trust_domain_is_a_finding_and_no_outage(tmp_path: Path) -> None:
    """The authority's trust domain is fixed: the edit is shown, and no proxy is told anything."""
    (tmp_path / "mesh.yaml").write_text(MESH)
    plane = Plane(settings(tmp_path))
    config = "---\napiVersion: meshproxy.io/v1alpha1\nkind: MeshConfig\nmetadata: {name: mesh}\n"
    async with running(plane) as api:
        (tmp_path / "mesh.yaml").write_text(MESH + config + "spec: {trustDomain: new.local}\n")
        status: dict[str, Any] = {"findings": []}
        async with asyncio.timeout(10):
            while not status["findings"]:
                async with api.get("/api/v1/status") as answer:
                    status = await answer.json()
        (finding,) = status["findings"]
        assert finding["field"] == "spec.trustDomain"
        assert "expected 'mesh.local', found 'new.local'" in finding["message"]
        async with api.get("/api/v1/proxies/default/catalog-v1/snapshot") as answer:
            assert answer.status == 404
    with pytest.raises(StartError, match="is fixed once the authority exists"):
        Plane(settings(tmp_path))


async def test_what_keeps_it_from_starting_is_one_sentence(tmp_path: Path) -> None:
    """A state directory that is a file; a port that is taken."""
    (tmp_path / "mesh.yaml").write_text(MESH)
    (tmp_path / "plane").write_text("")
    with pytest.raises(StartError, match="cannot be used as a state directory"):
        Plane(settings(tmp_path))
    (tmp_path / "plane").unlink()
    port = free_port()
    server = await asyncio.start_server(lambda _reader, _writer: None, "127.0.0.1", port)
    async with server:
        config = settings(tmp_path)
        taken = Config(
            state=config.state, files=config.files, discovery=Listen(port=port), api=Listen(port=0)
        )
        with pytest.raises(StartError, match=f"cannot listen on 127.0.0.1:{port}"):
            await Plane(taken).run(asyncio.Event())
