"""A denial is found by its id, whichever process of the sidecar has denied."""

import asyncio
import contextlib
import json
import os
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from tests.helpers.client import Client, denial_in
from tests.helpers.enrolled_mesh import EnrolledMesh, enrolled_mesh
from tests.helpers.plane import until

pytestmark = pytest.mark.integration

DENY = """---
apiVersion: meshproxy.io/v1alpha1
kind: AuthorizationPolicy
metadata: {name: nobody}
spec:
  selector: {matchLabels: {app: app}}
  action: DENY
  rules: [{name: everything}]
"""


def meshctl(mesh: EnrolledMesh, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "control_plane.cli.main", *words],
        env={**os.environ, "MESHCTL_CONTEXT": str(mesh.context)},
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip


def process_of(mesh: EnrolledMesh, port: int) -> int:
    """Return the process of the app's sidecar that has the connection from that port."""
    for process in psutil.Process().children(recursive=True):
        for connection in process.net_connections("tcp"):
            ends = connection.laddr.port, connection.raddr.port if len(connection.raddr) else 0
            if ends == (mesh.inbound[8080], port):
                return process.pid
    raise AssertionError(f"nobody has the connection from port {port}")


async def test_of_any_worker(tmp_path: Path) -> None:
    """`/denials` of the one admin port has those of both, and so has `meshctl explain ID`."""
    async with (
        enrolled_mesh(tmp_path, 3600, workers=2) as mesh,
        contextlib.AsyncExitStack() as stack,
    ):
        with (tmp_path / "mesh.yaml").open("a") as file:
            file.write(DENY)
        denied: dict[int, str] = {}

        async def ask() -> None:
            reader, writer = await mesh.connect()
            stack.callback(writer.close)
            client = Client(reader, writer)
            while len(denied) < 2:
                await client.send(b"GET /secret HTTP/1.1\r\nHost: web\r\n\r\n")
                response = await client.response()
                if response.status == 403:
                    number = denial_in(response)
                    port = writer.get_extra_info("sockname")[1]
                    denied[await asyncio.to_thread(process_of, mesh, port)] = number
                    return

        async with asyncio.timeout(60):
            while len(denied) < 2:
                await ask()
        for number in denied.values():
            page = await asyncio.to_thread(mesh.page, "app", f"/denials?id={number[:8]}")
            [one] = json.loads(page)
            assert (one["id"], one["policy"]) == (number, "default/nobody")
            told = await asyncio.to_thread(meshctl, mesh, "explain", number)
            assert told.returncode == 0, told.stderr
            assert "the sidecar of default/app" in told.stdout
            assert "asked:  GET web/secret" in told.stdout
            assert "rule everything of AuthorizationPolicy default/nobody" in told.stdout
        every = json.loads(await asyncio.to_thread(mesh.page, "app", "/denials"))
        assert {one["id"] for one in every} >= set(denied.values())
        times = [one["at"] for one in every]
        assert times == sorted(times, reverse=True)
        await until(mesh.synced)
