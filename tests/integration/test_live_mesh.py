"""A running mesh while things change and break: edits, kills, restarts.  No request may fail."""

import asyncio
import contextlib
import re
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import psutil
import pytest

from tests.helpers.client import connect
from tests.helpers.running_mesh import (
    APP,
    PATIENCE,
    Load,
    RunningMesh,
    load,
    ports_of,
    route,
    service,
    shop,
    workload,
)

pytestmark = pytest.mark.integration


@contextlib.asynccontextmanager
async def running(directory: Path) -> AsyncIterator[RunningMesh]:
    mesh = RunningMesh(directory, shop())
    await asyncio.to_thread(mesh.__enter__)
    try:
        yield mesh
    finally:
        await asyncio.to_thread(mesh.__exit__)


async def until_served_by(seen: Load, words: set[bytes]) -> float:
    """Wait until the last answers come from exactly these apps; return how long that took."""
    began = seen.now()
    async with asyncio.timeout(PATIENCE):
        while not (
            len([1 for at, _ in seen.answers if at > seen.now() - 0.15]) > 3
            and seen.since(seen.now() - 0.15) == words
        ):
            await asyncio.sleep(0.02)
    return seen.now() - began


async def test_a_weight_shift_under_load_costs_no_request(tmp_path: Path) -> None:
    """Editing the weights moves the traffic; hundreds of requests meanwhile all succeed."""
    async with running(tmp_path) as mesh, load(mesh.door()) as seen:
        await until_served_by(seen, {b"catalog-v1"})
        mesh.write("route.yaml", route(0, 100))
        await until_served_by(seen, {b"catalog-v2"})
        mesh.write("route.yaml", route(50, 50))
        await until_served_by(seen, {b"catalog-v1", b"catalog-v2"})
        mesh.write("route.yaml", route(100, 0))
        await until_served_by(seen, {b"catalog-v1"})
        assert seen.failures == []


BROKEN = {
    "bad YAML": ("route.yaml", "kind: [", "route.yaml:2"),
    "unknown field": (
        "route.yaml",
        route(0, 100).replace("backendRefs", "backendRef"),
        "backendRefs",
    ),
    "unknown kind": ("route.yaml", route(0, 100).replace("HTTPRoute", "HttpRoute"), "HTTPRoute"),
    "weight ten": ("route.yaml", route("ten", 0), "weight"),
    "wrong enum": (
        "mesh.yaml",
        shop()["mesh.yaml"].replace("STRICT", "STRICTLY"),
        "STRICT",
    ),
    "duplicate key": ("route.yaml", route(0, 100) + "spec: {}\n", "spec"),
    "duplicate name": ("copy.yaml", route(0, 100), "route.yaml"),
    "bad duration": (
        "mesh.yaml",
        shop()["mesh.yaml"].replace("STRICT}", "STRICT, certificates: {lifetime: soon}}"),
        "lifetime",
    ),
    "bad regex": (
        "route.yaml",
        route(0, 100).replace(
            "- backendRefs", "- matches: [{path: {type: RegularExpression, value: '/('}}]\n      backendRefs"
        ),
        "value",
    ),
    "alias bomb": (
        "bomb.yaml",
        "a: &a [x, x, x, x, x, x, x, x, x, x]\n"
        + "".join(
            f"{name}: &{name} [{', '.join([f'*{before}'] * 10)}]\n"
            for before, name in zip("abcdefgh", "bcdefghi", strict=True)
        ),
        "bomb.yaml",
    ),
}  # fmt: skip


async def test_broken_edits_are_refused_and_shown_until_mended(tmp_path: Path) -> None:
    """Each names file and field in `meshctl status`; traffic stays on the old weights throughout."""
    async with running(tmp_path) as mesh, load(mesh.door()) as seen:
        await until_served_by(seen, {b"catalog-v1"})
        for what, (name, text, clue) in BROKEN.items():
            old = (mesh.config / name).read_text() if (mesh.config / name).exists() else None
            mesh.write(name, text)

            def shown(name: str = name, clue: str = clue) -> bool:
                said = [
                    "{file}:{line}: {field}: {message}".format(**finding)
                    for finding in mesh.api("/api/v1/status")["findings"]
                ]
                return any(name in line and clue in line for line in said)

            await asyncio.to_thread(mesh.until, shown, f"{what} to be shown")
            status = await asyncio.to_thread(mesh.meshctl, "status")
            assert name in status.stdout + status.stderr, what
            validate = await asyncio.to_thread(mesh.meshctl, "validate", "-f", str(mesh.config))
            assert validate.returncode == 1, what
            assert f"{name}:" in validate.stdout, what

            if old is None:
                (mesh.config / name).unlink()
            else:
                mesh.write(name, old)

            def mended() -> bool:
                return not mesh.api("/api/v1/status")["findings"]

            await asyncio.to_thread(mesh.until, mended, f"{what} to be mended")
        assert seen.since(0) == {b"catalog-v1"}
        assert seen.failures == []


async def test_a_dangling_backend_answers_500_for_its_share_until_it_resolves(
    tmp_path: Path,
) -> None:
    """The Gateway API's rule: applied, 500, ResolvedRefs=False with file and line."""
    async with running(tmp_path) as mesh:
        mesh.write("route.yaml", route(0, 100).replace("catalog-v2", "catalog-v3"))

        async def status() -> int:
            async with connect(mesh.door()) as client:
                await client.send(b"GET / HTTP/1.1\r\nHost: catalog\r\n\r\n")
                return (await client.response()).status

        async def becomes(wanted: int) -> None:
            async with asyncio.timeout(PATIENCE):
                while await status() != wanted:
                    await asyncio.sleep(0.02)

        await becomes(500)
        shown = await asyncio.to_thread(mesh.meshctl, "status")
        assert "ResolvedRefs=False" in shown.stdout
        assert "route.yaml:" in shown.stdout
        mesh.write("route.yaml", route(100, 0))
        await becomes(200)
        assert mesh.api("/api/v1/status")["findings"] == []


async def test_deleting_a_file_removes_its_resources(tmp_path: Path) -> None:
    """Without its route a Service has plain load balancing again, over both versions."""
    async with running(tmp_path) as mesh, load(mesh.door()) as seen:
        await until_served_by(seen, {b"catalog-v1"})
        (mesh.config / "route.yaml").unlink()
        await until_served_by(seen, {b"catalog-v1", b"catalog-v2"})
        assert seen.failures == []


async def test_traffic_outlives_the_control_plane(tmp_path: Path) -> None:
    """kill -9: not one failure; when it is back, proxies reconnect and obey again."""
    async with running(tmp_path) as mesh, load(mesh.door()) as seen:
        await until_served_by(seen, {b"catalog-v1"})
        before = mesh.control_plane()
        before.kill()

        def back() -> bool:
            return mesh.control_plane().pid != before.pid and mesh.synced()

        await asyncio.to_thread(mesh.until, back, "the control plane to be back")
        mesh.write("route.yaml", route(0, 100))
        await until_served_by(seen, {b"catalog-v2"})
        assert seen.failures == []


async def test_a_sidecar_restarts_without_its_control_plane(tmp_path: Path) -> None:
    """With the control plane frozen, a killed sidecar serves from its cache of config and key."""
    async with running(tmp_path) as mesh:
        plane = mesh.control_plane()
        plane.suspend()
        try:
            for name in ("catalog-v1", "door"):
                before = mesh.sidecar(name)
                before.kill()

                def replaced(name: str = name, before: psutil.Process = before) -> bool:
                    return mesh.sidecar(name).pid != before.pid

                await asyncio.to_thread(mesh.until, replaced, f"{name} to be restarted")
            body = b""
            async with asyncio.timeout(PATIENCE):
                while not body.startswith(b"catalog-v1 called by "):
                    with contextlib.suppress(OSError, asyncio.IncompleteReadError):
                        async with connect(mesh.door()) as client:
                            await client.send(b"GET / HTTP/1.1\r\nHost: catalog\r\n\r\n")
                            body = (await client.response()).body
                    await asyncio.sleep(0.02)
            assert b"URI=spiffe://test.mesh/ns/default/sa/door" in body
        finally:
            plane.resume()
        await asyncio.to_thread(mesh.until, mesh.synced, "every proxy to be SYNCED again")


def acknowledged(mesh: RunningMesh) -> str:
    """Return the version that the door obeys."""
    versions: dict[str, str] = {
        proxy["workload"]: proxy["acked_version"] for proxy in mesh.api("/api/v1/proxies")
    }
    return versions["default/door"]


async def test_a_config_update_cuts_no_stream(tmp_path: Path) -> None:
    """100 long responses stream while the config changes again and again; all arrive whole."""
    async with running(tmp_path) as mesh:

        async def stream() -> bytes:
            async with connect(mesh.door()) as client:
                await client.send(b"GET /stream?120 HTTP/1.1\r\nHost: catalog\r\n\r\n")
                return (await client.response()).body

        streams = [asyncio.create_task(stream()) for _ in range(100)]
        changes = 0
        while not any(one.done() for one in streams):
            before = acknowledged(mesh)
            mesh.write("route.yaml", route(changes + 1, 1))  # another share each time

            def adopted(before: str = before) -> bool:
                return acknowledged(mesh) != before

            await asyncio.to_thread(mesh.until, adopted, "the door to obey")
            changes += 1
        assert changes >= 2
        expected = b"".join(b"%d\n" % number for number in range(120))
        assert [expected] * 100 == await asyncio.gather(*streams)


async def test_only_what_changed_restarts(tmp_path: Path) -> None:
    """A new workload starts, a changed one restarts, a removed one stops; the others stay."""
    async with running(tmp_path) as mesh, load(mesh.door()) as seen:
        await until_served_by(seen, {b"catalog-v1"})
        family = mesh.family()
        before = {p.pid for p in family}
        mesh.write("more.yaml", workload("extra", {"app": "extra"}))

        def one_more() -> bool:
            return len(mesh.api("/api/v1/proxies")) == 4 and mesh.synced() and mesh.served()

        await asyncio.to_thread(mesh.until, one_more, "the new workload")
        now = {p.pid for p in mesh.family()}
        assert before <= now
        assert len(now - before) >= 2

        (mesh.config / "more.yaml").unlink()

        def one_less() -> bool:
            return {p.pid for p in mesh.family()} == before

        await asyncio.to_thread(
            mesh.until, one_less, "the workload to be gone, the others as before"
        )
        assert seen.failures == []


async def test_an_app_in_trouble_is_told(tmp_path: Path) -> None:
    """A typo in a command, a port that is not the app's: `status` answers 1 until it is mended."""
    async with running(tmp_path) as mesh:
        healthy = await asyncio.to_thread(mesh.meshctl, "status")
        typo = workload("typo", {"app": "typo"}).replace("$(MESH_PYTHON)", "pyhton3")
        deaf = (
            workload("deaf", {"app": "deaf"})
            .replace(str(APP), "-c")
            .replace('"-c"', '"-c", "import time; time.sleep(600)"')
        )
        mesh.write("more.yaml", f"{typo}---{deaf}---{service('lonely', {'app': 'nobody'})}")

        def told() -> bool:
            said = mesh.meshctl("status")
            return (
                said.returncode == 1
                and "typo/app ended with exit code 127" in said.stdout
                and "deaf/app does not listen on its $PORT (" in said.stdout
                and "more.yaml:" in said.stdout.partition("warnings        1")[2]
            )

        await asyncio.to_thread(mesh.until, told, "both to be told")
        proxies = await asyncio.to_thread(mesh.meshctl, "proxies")
        (mesh.config / "more.yaml").unlink()

        def well() -> bool:
            return mesh.meshctl("status").returncode == 0

        await asyncio.to_thread(mesh.until, well, "all to be well again")
        said = mesh.output()

    assert healthy.returncode == 0, healthy.stdout
    assert "not listening" in proxies.stdout
    assert said.count("deaf/app") >= 1
    assert " INFO " not in said


async def test_up_says_how_to_call_each_service(tmp_path: Path) -> None:
    """The commands work as they are printed."""
    async with running(tmp_path) as mesh:
        await asyncio.to_thread(
            mesh.until, lambda: "everything is ready" in mesh.output(), "it to be said"
        )
        [port] = re.findall(
            r"^  default/catalog:80 +curl http://127\.0\.0\.1:(\d+)/$", mesh.output(), re.MULTILINE
        )
        async with connect(int(port)) as client:
            await client.send(b"GET / HTTP/1.1\r\nHost: 127.0.0.1:%b\r\n\r\n" % port.encode())
            response = await client.response()

    assert response.status == 200
    assert response.body.startswith(b"catalog-v1 ")
    assert "as default/door:" in mesh.output()


async def test_nothing_is_left_behind(tmp_path: Path) -> None:
    """After SIGINT no process lives and no port listens; meshctl ends with 0."""
    async with running(tmp_path) as mesh:
        family = mesh.family()
        ports = {port for process in family for port in ports_of(process)}
        assert len(ports) > 8
        mesh.process.send_signal(signal.SIGINT)
        assert await asyncio.to_thread(mesh.process.wait, PATIENCE) == 0
        assert [p for p in family if p.is_running() and p.status() != psutil.STATUS_ZOMBIE] == []
        for port in ports:
            with pytest.raises(ConnectionRefusedError):
                async with connect(port):
                    pass


async def test_nothing_outlives_a_killed_meshctl(tmp_path: Path) -> None:
    """Even kill -9 of meshctl leaves no orphan."""
    async with running(tmp_path) as mesh:
        family = mesh.family()
        mesh.process.kill()
        await asyncio.to_thread(mesh.process.wait, PATIENCE)
        _, alive = await asyncio.to_thread(psutil.wait_procs, family, PATIENCE)
        assert [p for p in alive if p.status() != psutil.STATUS_ZOMBIE] == []
