import asyncio
import stat
import time
from datetime import timedelta
from pathlib import Path

import pytest
from cryptography import x509

from control_plane.authority import Authority
from control_plane.server_certificate import ServerCertificate
from meshproxy.contract.spiffe import SpiffeId

PLANE = SpiffeId.of("mesh.local", "mesh-system", "control-plane")


class Enough(Exception):  # noqa: N818
    """Ends a loop that would go on for ever."""


async def test_it_is_renewed_at_half_its_life_in_the_same_context(tmp_path: Path) -> None:
    """The listening socket keeps its context, which gets the new certificate; the file is private."""
    path = tmp_path / "control-plane.pem"
    start = time.time()
    now = start
    renewed: list[float] = []
    serial = 0

    async def pause(seconds: float) -> None:
        nonlocal now, serial
        found = x509.load_pem_x509_certificate(path.read_bytes()).serial_number
        if serial not in (0, found):
            renewed.append(now - start)
            raise Enough
        serial = found
        now += seconds
        await asyncio.sleep(0)

    certificate = ServerCertificate(
        Authority(tmp_path / "authority", "mesh.local"),
        PLANE,
        path,
        lifetime=timedelta(seconds=120),
        clock=lambda: now,
        pause=pause,
    )
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    with pytest.raises(Enough):
        await certificate.keep()
    assert renewed == [pytest.approx(60, abs=2)]
