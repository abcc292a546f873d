"""Sidecars whose machine has another idea of the time than the control plane's."""

import asyncio
import contextlib
import json
import os
import re
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from tests.helpers import pair
from tests.helpers.client import get
from tests.helpers.clock import Clock, needs_faketime
from tests.helpers.enrolled_mesh import EnrolledMesh, enrolled_mesh
from tests.helpers.plane import until
from tests.helpers.ports import free_port

pytestmark = [pytest.mark.integration, needs_faketime]

MINUTES = 60
HOUR = 3600


async def test_minutes_make_no_difference(tmp_path: Path) -> None:
    """One is behind, the other ahead: both get certificates, and accept each other's."""
    behind, ahead = Clock(tmp_path, -4 * MINUTES), Clock(tmp_path, 4 * MINUTES)
    environments = {"door": behind.environment, "app": ahead.environment}
    async with enrolled_mesh(tmp_path, 30 * MINUTES, environments=environments) as mesh:
        assert (await get(mesh.doors["web"], host="web")).status == 200
        expiry = {name: json.loads(mesh.page(name, "/certs"))["renew_at"] for name in environments}
        # That the clocks were wrong shows in when each of them will renew.
        assert expiry["app"] > expiry["door"]


@pytest.mark.parametrize(
    ("ahead", "lifetime", "said"),
    [
        (
            -HOUR,
            24 * HOUR,
            "certificate is not yet valid by this machine's clock, which may be wrong",
        ),
        (HOUR, 30 * MINUTES, "has expired, 30 min ago by this machine's clock, which may be wrong"),
    ],
)
async def test_an_hour_is_too_much_and_it_says_so(
    tmp_path: Path, ahead: int, lifetime: int, said: str
) -> None:
    """Not ready, and why: an operator should not look for a mistake in the certificates."""
    async with (
        enrolled_mesh(tmp_path, lifetime) as mesh,
        late(mesh, Clock(tmp_path, ahead)) as admin,
    ):

        def why() -> tuple[int, bytes]:
            with contextlib.suppress(OSError):
                return pair.get(admin, "/healthz/ready")
            return 0, b""

        async with asyncio.timeout(20):
            while not re.search(said, (page := await asyncio.to_thread(why))[1].decode()):
                await asyncio.sleep(0.05)
            # The log is written by a thread, which may be later than the page.
            while not re.search(said, (mesh.directory / "late.log").read_text()):
                await asyncio.sleep(0.05)
        assert page[0] == 503


async def test_a_clock_that_is_set_right_needs_no_new_token(tmp_path: Path) -> None:
    """What was granted is kept, and used as soon as it is valid."""
    clock = Clock(tmp_path, HOUR)
    async with enrolled_mesh(tmp_path, 30 * MINUTES) as mesh, late(mesh, clock) as admin:

        def described() -> dict[str, Any]:
            with contextlib.suppress(OSError):
                return dict(json.loads(pair.get(admin, "/certs")[1]))
            return {"failures": 0, "renewals": 0}

        async with asyncio.timeout(20):
            while not (await asyncio.to_thread(described))["failures"]:
                await asyncio.sleep(0.05)
            clock.set(0)
            while not (await asyncio.to_thread(described))["renewals"]:
                await asyncio.sleep(0.05)
        assert mesh.plane._metrics.registry.get_sample_value(
            "mesh_signings_total", {"result": "token-used"}
        ) in (None, 0.0)


@contextlib.asynccontextmanager
async def late(mesh: EnrolledMesh, clock: Clock) -> AsyncIterator[int]:
    """Start another sidecar for `door`, which has no certificate yet; yield its admin port."""
    settings, admin = mesh.settings("door"), free_port()
    settings["state"] = str(mesh.directory / "late")
    settings["admin"]["port"] = admin
    (mesh.directory / "late.json").write_text(json.dumps(settings))
    with (mesh.directory / "late.log").open("wb") as log:
        process = subprocess.Popen(  # noqa: ASYNC220  # there is nothing to wait for
            [
                *(sys.executable, "-m", "meshproxy", "run"),
                *("--bootstrap", str(mesh.directory / "late.json")),
            ],
            stderr=log,
            env={**os.environ, **clock.environment},
        )
    try:
        yield admin
    finally:
        process.kill()
        await asyncio.to_thread(process.wait)


async def test_a_clock_that_leaps_over_the_renewal_renews_at_once(tmp_path: Path) -> None:
    """As on a machine that has slept; nothing was waited for in seconds of another clock."""
    clock = Clock(tmp_path, 0)
    async with enrolled_mesh(
        tmp_path, 30 * MINUTES, environments={"door": clock.environment}
    ) as mesh:
        first = json.loads(mesh.page("door", "/certs"))
        assert first["renewals"] == 1
        clock.set(20 * MINUTES)
        await until(lambda: json.loads(mesh.page("door", "/certs"))["renewals"] > 1, 20)
        now = json.loads(mesh.page("door", "/certs"))
        assert now["certificate"]["serial"] != first["certificate"]["serial"]
        assert (await get(mesh.doors["web"], host="web")).status == 200
