"""A running mesh: an identity is cut off and let in again; a rotation outlives its control plane."""

import asyncio
import contextlib
import json
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.helpers.client import connect, get
from tests.helpers.running_mesh import RunningMesh, shop

pytestmark = pytest.mark.integration

CATALOG = "spiffe://test.mesh/ns/default/sa/catalog"
DOOR = "spiffe://test.mesh/ns/default/sa/door"


@contextlib.asynccontextmanager
async def running(directory: Path) -> AsyncIterator[RunningMesh]:
    mesh = RunningMesh(directory, shop())
    await asyncio.to_thread(mesh.__enter__)
    try:
        yield mesh
    finally:
        await asyncio.to_thread(mesh.__exit__)


async def answers(mesh: RunningMesh, *wanted: int) -> None:
    """Ask until the status is a wanted one."""
    async with asyncio.timeout(30):
        while (await get(mesh.door())).status not in wanted:
            await asyncio.sleep(0.05)


def revoked(mesh: RunningMesh) -> bool:
    return "REVOKED" in {proxy["state"] for proxy in mesh.api("/api/v1/proxies")}


async def test_a_revoked_identity_is_cut_off_until_it_is_forgiven(tmp_path: Path) -> None:
    """
    An answer that it is in the midst of ends, new requests fail, its stream to the control plane
    ends, and a token would not help it; then all is as before, without a restart.
    """
    async with running(tmp_path) as mesh:
        await answers(mesh, 200)
        async with connect(mesh.door()) as client:
            await client.send(b"GET /stream?2000 HTTP/1.1\r\nHost: catalog\r\n\r\n")
            assert b"200 OK" in (await client.head()).head
            done = await asyncio.to_thread(
                mesh.meshctl, "certs", "revoke", DOOR, "--reason", "stolen"
            )
            assert (done.returncode, done.stdout) == (0, f"{DOOR} is revoked\n"), done.stderr
            with contextlib.suppress(ConnectionError):
                assert b"\r\n0\r\n" not in await client.rest()
        # The peers refuse it; it knows of nothing, because nobody speaks with it any more.
        await answers(mesh, 502, 503)
        token = await asyncio.to_thread(mesh.meshctl, "token", "door")
        assert token.returncode == 1
        assert "has been revoked" in token.stderr
        listed = await asyncio.to_thread(mesh.meshctl, "certs")
        assert f"{DOOR}" in listed.stdout.partition("REVOKED")[2]
        await asyncio.to_thread(
            mesh.until, lambda: revoked(mesh), "the door to have lost its stream"
        )
        assert "REVOKED" in (await asyncio.to_thread(mesh.meshctl, "proxies")).stdout

        done = await asyncio.to_thread(mesh.meshctl, "certs", "unrevoke", DOOR)
        assert done.returncode == 0
        await answers(mesh, 200)
        await asyncio.to_thread(mesh.until, mesh.synced, "the door to be back")


async def test_who_calls_a_revoked_identity_is_told_so(tmp_path: Path) -> None:
    """By its own proxy; and operators see whom they have cut off, and why."""
    async with running(tmp_path) as mesh:
        await answers(mesh, 200)
        done = await asyncio.to_thread(
            mesh.meshctl, "certs", "revoke", CATALOG, "--reason", "stolen"
        )
        assert done.returncode == 0, done.stderr
        await answers(mesh, 503)
        answer = await get(mesh.door())
        assert answer.header("x-mesh-refusal") == "identity-revoked"
        assert f"has been revoked: {CATALOG}.".encode() in answer.body
        assert b"not sent" in answer.body
        await asyncio.to_thread(
            mesh.until, lambda: revoked(mesh), "the catalog to have lost its stream"
        )
        assert "REVOKED" in (await asyncio.to_thread(mesh.meshctl, "proxies")).stdout
        told = await asyncio.to_thread(mesh.meshctl, "status")
        assert told.returncode == 1
        assert CATALOG in told.stdout
        assert ": stolen (default/catalog" in told.stdout

        done = await asyncio.to_thread(mesh.meshctl, "certs", "unrevoke", CATALOG)
        assert done.returncode == 0
        await answers(mesh, 200)


async def test_a_rotation_outlives_its_control_plane(tmp_path: Path) -> None:
    """Killed between two steps, it goes on where it was; and it can still be taken back."""
    async with running(tmp_path) as mesh:

        def rotation() -> dict[str, object]:
            facts = json.loads(mesh.meshctl("certs", "-o", "json").stdout)
            found: dict[str, object] = facts["rotation"] or {}
            return found

        done = await asyncio.to_thread(mesh.meshctl, "certs", "rotate-root", "--no-wait")
        assert done.returncode == 0, done.stderr
        await asyncio.to_thread(
            mesh.until, lambda: rotation().get("phase") == "renewing", "the new root to sign"
        )
        refused = await asyncio.to_thread(mesh.meshctl, "certs", "rotate-issuer")
        assert (refused.returncode, refused.stdout) == (1, "")
        assert "let it end, or abort it" in refused.stderr
        skipped = await asyncio.to_thread(mesh.meshctl, "certs", "rotate-root", "--skip-away")
        assert skipped.returncode == 1
        assert "nobody can hurry that" in skipped.stderr

        mesh.control_plane().send_signal(signal.SIGKILL)
        await asyncio.to_thread(mesh.until, mesh.synced, "the control plane to be back")
        assert (await asyncio.to_thread(rotation))["phase"] == "renewing"
        assert (await get(mesh.door())).status == 200

        back = await asyncio.to_thread(mesh.meshctl, "certs", "rotate-root", "--abort")
        assert back.returncode == 0
        assert "the old one signs again" in back.stdout
        assert (await asyncio.to_thread(rotation))["aborted"] is True
        assert (await get(mesh.door())).status == 200
