"""
Apps' own TLS, passed through two real sidecars unread and routed by server name.

openssl and curl are the clients; what they see of the server's certificate is the server's own.
"""

import asyncio
import hashlib
import ssl
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from tests.helpers.certificates import tls_server
from tests.helpers.programs import needs, output_of
from tests.helpers.services import Service, Services
from tests.interop.witness import BODY

pytestmark = [pytest.mark.integration, pytest.mark.asyncio(loop_scope="module")]

NAMES = ("one.example", "two.example")


async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Say everything back until the client's end."""
    try:
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
    except ConnectionError:
        pass
    writer.close()


async def web(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answer one request with the hash of what it brought."""
    head = await reader.readuntil(b"\r\n\r\n")
    size = int(head.lower().partition(b"content-length: ")[2].split(b"\r\n")[0] or 0)
    body = hashlib.sha256(await reader.readexactly(size)).hexdigest().encode()
    writer.write(b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 64\r\n\r\n" + body)
    writer.close()


Mesh = tuple[Services, dict[str, Path]]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def mesh(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Mesh]:
    """Yield the sidecars, one door for both names, and the names' certificates."""
    directory = tmp_path_factory.mktemp("tls")
    services, certificates, servers = [], {}, []
    for name, serve in zip(NAMES, (echo, web), strict=True):
        certificate, key = tls_server(directory, name)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate, key)
        context.set_alpn_protocols(["http/1.1"])
        server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context)
        servers.append(server)
        certificates[name] = certificate
        services.append(Service(name, server.sockets[0].getsockname()[1], "tcp"))
    them = Services(directory, services, {"tls": {name: name for name in NAMES}})
    await asyncio.to_thread(them.__enter__)
    yield them, certificates
    await asyncio.to_thread(them.__exit__)
    for server in servers:
        server.close()


@needs("openssl")
@pytest.mark.parametrize("version", ["-tls1_2", "-tls1_3"])
async def test_openssl(mesh: Mesh, version: str) -> None:
    """The handshake is with the server of that name, verified to its end; data comes back."""
    services, certificates = mesh
    said = await output_of(
        "openssl", "s_client", "-connect", f"127.0.0.1:{services.doors['tls']}", version,
        "-servername", "one.example", "-verify_hostname", "one.example", "-verify_return_error",
        "-CAfile", certificates["one.example"], "-alpn", "http/1.1", "-no_ign_eof",
        stdin=b"hello, are you the one?\n",
    )  # fmt: skip
    assert "Verify return code: 0 (ok)" in said
    assert "subject=CN = one.example" in said
    assert "ALPN protocol: http/1.1" in said


async def talk(mesh: Mesh, name: str, body: bytes) -> bytes:
    services, certificates = mesh
    context = ssl.create_default_context(cafile=str(certificates[name]))
    reader, writer = await asyncio.open_connection(
        "127.0.0.1", services.doors["tls"], ssl=context, server_hostname=name, limit=1 << 22
    )
    writer.write(body)
    async with asyncio.timeout(20):
        got = await reader.readexactly(len(body))
    writer.close()
    await writer.wait_closed()
    return got


async def test_data(mesh: Mesh) -> None:
    """There and back, many connections at once."""
    assert (
        await asyncio.gather(*[talk(mesh, "one.example", BODY) for _ in range(10)]) == [BODY] * 10
    )


@needs("curl")
async def test_curl(mesh: Mesh, tmp_path: Path) -> None:
    """HTTPS to the other name on the same port."""
    services, certificates = mesh
    (tmp_path / "up").write_bytes(BODY)
    port = services.doors["tls"]
    answer = await output_of(
        "curl", "-sSf", "--cacert", certificates["two.example"], "-H", "Expect:",
        "--resolve", f"two.example:{port}:127.0.0.1", "--data-binary", f"@{tmp_path / 'up'}",
        f"https://two.example:{port}/",
    )  # fmt: skip
    assert answer == hashlib.sha256(BODY).hexdigest()


@pytest.mark.parametrize("name", ["three.example", "one.example.org", None])
async def test_other_names_lead_nowhere(mesh: Mesh, name: str | None) -> None:
    """No rule takes them: the connection ends, and no server has heard of it."""
    services, _ = mesh
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    with pytest.raises((ssl.SSLError, ConnectionError)):
        async with asyncio.timeout(20):
            await asyncio.open_connection(
                "127.0.0.1", services.doors["tls"], ssl=context, server_hostname=name or ""
            )
