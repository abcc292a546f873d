"""One proxy of several processes, as its clients, its operator and its control plane see it."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest

from meshproxy.contract.resources import Snapshot
from tests.helpers.client import connect, get
from tests.helpers.origin import Conversation, hello, origin
from tests.helpers.pair import Pair, Sidecar
from tests.helpers.plane import CATALOG, Plane, until
from tests.helpers.ports import free_port
from tests.helpers.steady import fresh, kept, steady
from tests.integration.test_hot_restart import ended, logged, mesh
from tests.meshproxy.lifecycle.test_worker import snapshot

pytestmark = pytest.mark.integration

TWO = {"workers": 2}


def workers(sidecar: Sidecar) -> list[psutil.Process]:
    children = psutil.Process(sidecar.process.pid).children()
    return [child for child in children if "worker" in child.cmdline()]


async def total(sidecar: Sidecar, name: str) -> float:
    """Return the sum of all samples of a metric."""
    lines = (await asyncio.to_thread(sidecar.metrics)).splitlines()
    return sum(float(line.rpartition(" ")[2]) for line in lines if line.startswith(f"{name}{{"))


async def test_both_serve_and_are_counted_together(tmp_path: Path) -> None:
    """One admin port tells the sums; between the sidecars each worker has a connection of its own."""
    async with mesh(tmp_path, settings=TWO) as pair:
        assert len(workers(pair.a)) == 2
        for _ in range(60):
            assert (await get(pair.door)).status == 200
        assert await total(pair.a, "mesh_requests_total") == 60
        clusters = await asyncio.to_thread(pair.a.get, "/clusters")
        assert [cluster["worker"] for cluster in clusters] == [1, 2]
        assert [cluster["endpoints"][0]["connections"] for cluster in clusters] == [1, 1]


async def test_a_killed_worker_costs_only_its_connections(tmp_path: Path) -> None:
    """Everybody else, and whoever comes meanwhile, is served; another takes its place."""
    async with mesh(tmp_path, settings=TWO) as pair:
        async with steady(*[kept(pair.door)] * 8) as load:
            await load.further(kept=50)
            victim, survivor = workers(pair.a)
            had = len([c for c in victim.net_connections() if c.laddr.port == pair.door]) - 1
            victim.kill()
            async with steady(*[fresh(pair.door)] * 4) as new:
                await logged(pair.a, "another takes its place")
                await until(lambda: len(workers(pair.a)) == 2, 20)
                await new.further(fresh=50)
            assert new.failures == []
        assert len(load.failures) <= had
        assert survivor in workers(pair.a)
        assert await total(pair.a, "mesh_connections_active") >= 0


async def test_draining(tmp_path: Path) -> None:
    """SIGTERM, also to the whole family: what runs is finished, and all of them end."""
    go = asyncio.Event()

    async def slow(conversation: Conversation) -> None:
        await go.wait()
        await hello(conversation)

    async with origin(slow) as app:
        pair = Pair(tmp_path, app.port, settings=TWO)
        await asyncio.to_thread(pair.__enter__)
        try:
            async with connect(pair.door) as client:
                await client.send(b"GET / HTTP/1.1\r\nHost: catalog\r\n\r\n")
                await until(lambda: app.requests)
                family = workers(pair.a)
                pair.a.process.terminate()
                for worker in family:
                    with contextlib.suppress(psutil.NoSuchProcess):  # it had nothing to finish
                        worker.terminate()
                await logged(pair.a, "draining: 1 requests")
                go.set()
                response = await client.response()
                assert (response.status, response.header("connection")) == (200, "close")
            assert await ended(pair.a.process) == 0
            assert not any(worker.is_running() for worker in family)
        finally:
            await asyncio.to_thread(pair.__exit__)


async def test_hot_restart_into_any_number_of_workers(tmp_path: Path) -> None:
    """One process, two workers, three, two, one again: no request fails on the way."""
    async with mesh(tmp_path) as pair:
        async with steady(*[kept(pair.door)] * 4, *[fresh(pair.door)] * 2) as load:
            for count in (2, 3, 2, 1):
                pair.a.settings["workers"] = count
                await asyncio.to_thread(pair.a.restart)
                assert len(workers(pair.a)) == (count if count > 1 else 0)
                await load.further(kept=10, fresh=10)
                assert load.failures == [], pair.a.log()
        assert load.failures == []
        for old in pair.a.relieved:
            assert await ended(old) == 0


async def test_a_parent_that_is_killed_leaves_nothing_behind(tmp_path: Path) -> None:
    """Its workers notice and end; whoever is started next has the ports."""
    async with mesh(tmp_path, settings=TWO) as pair:
        family = workers(pair.a)
        pair.a.process.kill()
        await ended(pair.a.process)
        await asyncio.to_thread(psutil.wait_procs, family, 20)
        assert not any(worker.is_running() for worker in family)
        await asyncio.to_thread(pair.a.start)
        assert (await get(pair.door)).status == 200


# With a control plane -----------------------------------------------------------------------------


@asynccontextmanager
async def followed(directory: Path) -> AsyncIterator[tuple[Plane, Sidecar]]:
    """Yield a control plane in this process and a sidecar with two workers that follows it."""
    plane = Plane(directory / "plane", free_port())
    async with plane.running():
        sidecar = Sidecar(directory, "catalog-v1", Snapshot(), None, TWO)
        (sidecar.directory / "roots.pem").write_text("".join(plane.authority.roots()))
        (sidecar.directory / "token").write_text(
            plane.tokens.issue("default/catalog-v1", CATALOG)[0]
        )
        del sidecar.settings["static"]
        sidecar.settings["identity"] = str(CATALOG)
        sidecar.settings["control_plane"] = {
            "address": "127.0.0.1",
            "port": plane.port,
            "identity": "spiffe://mesh.local/ns/mesh-system/sa/control-plane",
            "roots": "roots.pem",
            "token": "token",
        }
        yield plane, sidecar


async def answers(port: int) -> set[int]:
    return {(await get(port)).status for _ in range(20)}


async def test_a_change_reaches_all_or_nobody(tmp_path: Path) -> None:
    """The control plane hears one answer; a hot restart needs neither token nor plane."""
    port, other = free_port(), free_port()
    async with followed(tmp_path) as (plane, sidecar):
        plane.want("default/catalog-v1", snapshot(("127.0.0.1", port)))
        await asyncio.to_thread(sidecar.start)
        try:
            assert await answers(port) == {500}

            wanted = plane.want("default/catalog-v1", snapshot(("127.0.0.1", other)))
            proxy = plane.discovery.proxies["default/catalog-v1"]
            await until(lambda: proxy.acked_version == wanted.version)
            assert await answers(other) == {500}
            with pytest.raises(ConnectionRefusedError):
                await get(port)

            refused = plane.want("default/catalog-v1", snapshot(("127.0.0.1", port), "nothing"))
            await until(lambda: refused.version in sidecar.log())
            assert await answers(other) == {500}
            assert proxy.acked_version == wanted.version

            (sidecar.directory / "token").unlink()
            plane.want("default/catalog-v1", snapshot(("127.0.0.1", other)))
            await asyncio.to_thread(sidecar.restart)
            assert await answers(other) == {500}
            certs: Any = await asyncio.to_thread(sidecar.get, "/certs")
            assert certs["certificate"]["identity"] == str(CATALOG)
        finally:
            await asyncio.to_thread(sidecar.__exit__)


async def test_a_start_that_waits_can_be_ended(tmp_path: Path) -> None:
    """Workers that cannot be started are tried for ever; SIGTERM ends it all the same."""
    broken = tmp_path / "python"
    broken.symlink_to("/bin/false")
    async with origin(hello) as app:
        sidecar = Pair(tmp_path, app.port, settings=TWO).a
        code = f"import sys; sys.executable = {str(broken)!r}; from meshproxy.__main__ import main; main()"
        process = sidecar.launch(program=("-c", code))
        await logged(sidecar, "cannot be started")
        process.terminate()
        assert await ended(process) == 0
