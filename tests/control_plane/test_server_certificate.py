import asyncio
import ssl
import stat
import time
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509

from control_plane.authority import Authority
from control_plane.server_certificate import ServerCertificate
from meshproxy.contract.spiffe import SpiffeId
from meshproxy.identity import tls

CATALOG = SpiffeId.of("mesh.local", "default", "catalog")
PLANE = SpiffeId.of("mesh.local", "mesh-system", "control-plane")


class Enough(Exception):  # noqa: N818
    """Ends a loop that would go on for ever."""


async def test_it_is_renewed_at_half_its_life_in_the_same_context(tmp_path: Path) -> None:
    """The listening socket keeps its context, which hands over to a new one; the file is private."""
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


async def test_it_follows_the_authority_through_a_rotation(tmp_path: Path) -> None:
    """
    The socket that listens all the time shows the new certificate from the switch on, judges
    clients by both roots, and when the old root is forgotten refuses what it has signed.
    """
    clock = datetime.now(UTC)
    authority = Authority(tmp_path / "authority", "mesh.local", lambda: clock)
    own = ServerCertificate(authority, PLANE, tmp_path / "control-plane.pem")
    authority.on_changed = own.follow

    async def answer(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"hello")
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0, ssl=own.context)
    port = server.sockets[0].getsockname()[1]

    def client(name: str) -> ssl.SSLContext:
        key, signed = authority.issue(CATALOG, timedelta(hours=1))
        path = tmp_path / name
        path.write_text(key + signed.chain)
        context = tls.plane_context("".join(authority.roots()), path)
        assert isinstance(context, ssl.SSLContext)
        return context

    async def heard(context: ssl.SSLContext, name: str = "") -> bytes:
        reader, writer = await asyncio.open_connection(
            "127.0.0.1", port, ssl=context, server_hostname=name
        )
        try:
            return await reader.read()
        finally:
            writer.close()

    async with server:
        old = client("old")
        assert await heard(old) == b"hello"
        authority.begin("root")
        both = client("both")
        assert await heard(both) == b"hello"
        authority.switch(timedelta(seconds=1))
        new = client("new")
        for context in (both, new):
            assert await heard(context) == b"hello"
            assert await heard(context, "with.a.name") == b"hello"
        with pytest.raises(ssl.SSLCertVerificationError):
            await heard(old)  # knows the old root alone
        clock += timedelta(seconds=1)
        authority.finish()
        assert await heard(new) == b"hello"
        # What the old root has signed is refused; TLS 1.3 says so in place of the first bytes.
        with suppress(ssl.SSLError, ConnectionError):
            assert await heard(both) == b""


def test_a_disk_that_fails_leaves_the_certificate_in_use(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The log says why; the rotation goes on, and the next renewal tries again."""
    authority = Authority(tmp_path / "authority", "mesh.local")
    path = tmp_path / "control-plane.pem"
    own = ServerCertificate(authority, PLANE, path)
    authority.begin("issuer")
    authority.switch(timedelta(seconds=1))
    path.unlink()
    path.mkdir()
    own.follow()
    assert "was not renewed" in caplog.text
    path.rmdir()
    own.follow()
    assert path.exists()
