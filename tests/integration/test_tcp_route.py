"""TCPRoute and TLSRoute in a running mesh, with apps that speak first."""

import asyncio
import contextlib
import ssl
import time
from collections.abc import Iterator

import pytest

from tests.helpers.running_mesh import PATIENCE, RunningMesh, service, shop

pytestmark = pytest.mark.integration

TCP = """
apiVersion: gateway.networking.k8s.io/v1
kind: TCPRoute
metadata: {name: catalog}
spec:
  parentRefs: [{group: "", kind: Service, name: catalog}]
  rules:
    - backendRefs:
        - {name: catalog-v1, port: 80, weight: ONE}
        - {name: catalog-v2, port: 80, weight: TWO}
"""
TLS = """
apiVersion: gateway.networking.k8s.io/v1
kind: TLSRoute
metadata: {name: BACKEND}
spec:
  parentRefs: [{group: "", kind: Service, name: vault}]
  hostnames: [NAMED]
  rules: [{backendRefs: [{name: BACKEND, port: 80}]}]
"""


def tcp(one: int, two: int) -> str:
    return TCP.replace("ONE", str(one)).replace("TWO", str(two))


def tls(name: str, hostnames: str) -> str:
    return TLS.replace("BACKEND", name).replace("NAMED", hostnames)


@pytest.fixture(scope="module")
def mesh(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningMesh]:
    files = shop() | {"route.yaml": tcp(1, 0)}
    files["workloads.yaml"] = files["workloads.yaml"].replace("app.py", "banner_app.py")
    files["vault.yaml"] = "---".join(
        [
            service("vault", {"app": "catalog"}),
            tls("catalog-v1", "vault.example"),
            tls("catalog-v2", '"*.vault.example"'),
        ]
    )
    with RunningMesh(tmp_path_factory.mktemp("mesh"), files) as running:
        yield running


async def greeted(port: int, hello: bytes = b"") -> bytes:
    """Return what the app that a connection leads to says first; nothing where it is refused."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(hello)
        with contextlib.suppress(ConnectionResetError):
            async with asyncio.timeout(20):
                return (await reader.readline()).strip()
        return b""
    finally:
        writer.close()


def client_hello(name: str | None) -> bytes:
    """Return how a TLS client begins that asks for a server name, or for none."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = context.wrap_bio(incoming, outgoing, server_hostname=name)
    with contextlib.suppress(ssl.SSLWantReadError):
        client.do_handshake()
    return outgoing.read()


async def test_connections_go_by_weight(mesh: RunningMesh) -> None:
    """A server that speaks first is heard at once; a saved change moves new connections."""
    port = mesh.door()
    assert {await greeted(port) for _ in range(5)} == {b"catalog-v1"}
    mesh.write("route.yaml", tcp(0, 1))
    deadline = time.monotonic() + PATIENCE
    while await greeted(port) != b"catalog-v2":
        assert time.monotonic() < deadline
        await asyncio.sleep(0.02)
    mesh.write("route.yaml", tcp(1, 1))
    seen: set[bytes] = set()
    while seen != {b"catalog-v1", b"catalog-v2"}:
        assert time.monotonic() < deadline
        seen.add(await greeted(port))
    mesh.write("route.yaml", tcp(1, 0))


@pytest.mark.parametrize(
    ("name", "app"),
    [
        ("vault.example", b"catalog-v1"),
        ("a.vault.example", b"catalog-v2"),
        ("a.b.vault.example", b"catalog-v2"),
        ("VAULT.example", b"catalog-v1"),
        ("other.example", b""),
        (None, b""),
    ],
)
async def test_tls_goes_by_server_name(mesh: RunningMesh, name: str | None, app: bytes) -> None:
    """Unopened; the exact name before the wildcard; what no route names is refused."""
    assert await greeted(mesh.door("vault"), client_hello(name)) == app


async def test_a_tls_port_refuses_what_is_no_tls(mesh: RunningMesh) -> None:
    """There is no name in it to go by."""
    assert await greeted(mesh.door("vault"), b"GET / HTTP/1.1\r\nHost: vault\r\n\r\n") == b""


async def test_what_a_proxy_was_told_can_be_seen(mesh: RunningMesh) -> None:
    """Which connections go where."""
    routes = mesh.meshctl("config", "door", "routes").stdout.partition("CONNECTIONS TO")[2]
    assert "*.vault.example" in routes
    assert "TCPRoute/default/catalog/0" in routes
    listeners = mesh.meshctl("config", "door", "listeners").stdout.splitlines()
    assert [line.split()[4] for line in listeners if "/vault:80" in line] == ["tcp"]
