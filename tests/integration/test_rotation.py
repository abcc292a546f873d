"""
Certificates that live for seconds: two rotations of the root while traffic flows, and their end.

`ROTATION_LIFETIME=60` in the environment has them live for a minute, the least that a mesh allows
(and puts on more load): the rotations then take two minutes and a bit.
"""

import asyncio
import json
import os
import re
from pathlib import Path

import grpc.aio
import pytest

from control_plane.cli.main import main
from control_plane.resources import validate
from tests.helpers.client import get
from tests.helpers.enrolled_mesh import EnrolledMesh, enrolled_mesh
from tests.helpers.steady import fresh, kept, line, steady, talk

LIFETIME = int(os.environ.get("ROTATION_LIFETIME", "16"))
LONG = LIFETIME >= 60

pytestmark = [pytest.mark.integration, pytest.mark.timeout(60 + 6 * LIFETIME)]


async def meshctl(mesh: EnrolledMesh, *words: str) -> int:
    return await asyncio.to_thread(main, [*words, "--context", str(mesh.context)])


def issuer_of(mesh: EnrolledMesh, name: str) -> str:
    issuer: str = json.loads(mesh.page(name, "/certs"))["certificate"]["issuer"]
    return issuer


async def test_no_request_fails_while_the_root_rotates_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """
    HTTP/1.1 on kept and on fresh connections, gRPC streams, TCP, and handshakes in both directions:
    nothing fails, no handshake among them, and in the end nobody believes or holds the old one.
    """
    if not LONG:
        monkeypatch.setattr(validate, "MIN_LIFETIME", 1000)
    async with (
        enrolled_mesh(tmp_path, LIFETIME) as mesh,
        grpc.aio.insecure_channel(f"127.0.0.1:{mesh.doors['calls']}") as channel,
    ):
        roots, issuers = [mesh.plane._authority.roots()], [issuer_of(mesh, "door")]
        clients = [
            *[kept(mesh.doors["web"])] * (24 if LONG else 3),
            *[fresh(mesh.doors["web"])] * (3 if LONG else 1),
            fresh(mesh.doors["mayfly"]),
            *[talk(channel, "/test/Talk")] * 4,
            *[line(mesh.doors["lines"])] * 4,
            mesh.handshakes(),
        ]
        further = {"kept": 50, "fresh": 20, "stream": 4, "tcp": 4, "handshake": 10}
        began = asyncio.get_running_loop().time()
        async with steady(*clients) as load:
            for _ in range(2):
                await load.further(**further)
                assert await meshctl(mesh, "certs", "rotate-root") == 0
                await load.further(**further)
                assert load.failures == [], mesh.log("door") + mesh.log("app")
                roots.append(mesh.plane._authority.roots())
                issuers.append(issuer_of(mesh, "door"))
        seconds = asyncio.get_running_loop().time() - began
        with capsys.disabled():
            print(f" {load.done} in {seconds:.0f} s ", end="")
        assert load.failures == []

        assert [len(bundle) for bundle in roots] == [1, 1, 1]
        assert len({*roots}) == 3
        assert len({*issuers}) == 3
        for name in ("door", "app"):
            metrics = mesh.page(name, "/metrics").decode()
            assert not re.findall(r"^mesh_tls_handshake_failures_total\{.*", metrics, re.MULTILINE)
            believed = json.loads(mesh.page(name, "/certs"))["roots"]
            assert len(believed) == 1
            assert mesh.page(name, "/healthz/ready") == b"ready\n"
    said = capsys.readouterr().out
    assert "1/3: 0 of 3 proxies believe the new root" in said
    assert said.count("rotation over, 3/3") == 2


async def test_a_certificate_that_cannot_be_renewed_ends_closed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    With the control plane away: first degraded, while everything works; then not ready, and no
    handshake succeeds.  When it is back, tokens bring all back, without a restart.
    """
    monkeypatch.setattr(validate, "MIN_LIFETIME", 1000)
    async with enrolled_mesh(tmp_path, 6) as mesh:

        async def readiness(name: str, wanted: bytes) -> bytes:
            async with asyncio.timeout(30):
                while not (
                    said := await asyncio.to_thread(mesh.page, name, "/healthz/ready")
                ).startswith(wanted):
                    await asyncio.sleep(0.05)
            return said

        await mesh.stop_plane()
        said = await readiness("door", b"ready, degraded: certificate not renewed, it ends in ")
        assert b"127.0.0.1" in said
        assert (await get(mesh.doors["web"])).status == 200
        assert b"mesh_certificate_renewal_overdue 1.0" in mesh.page("door", "/metrics")

        for name in ("door", "app"):
            await readiness(name, b"no valid certificate")
        refused = await get(mesh.doors["mayfly"])
        assert (refused.status, refused.header("x-mesh-refusal")) == (503, "not-ready")

        await mesh.restart_plane()
        for name in ("door", "app", "mayfly"):
            mesh.give_token(name)
        for name in ("door", "app"):
            await readiness(name, b"ready\n")
        async with asyncio.timeout(30):
            while (await get(mesh.doors["web"])).status != 200:
                await asyncio.sleep(0.05)
        metrics = mesh.page("door", "/metrics").decode()
        assert "mesh_certificate_renewal_overdue 0.0" in metrics
        failures = re.search(
            r"^mesh_certificate_renewal_failures_total (.*)$", metrics, re.MULTILINE
        )
        assert failures is not None
        assert float(failures[1]) > 0
