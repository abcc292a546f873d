"""Keys of token issuers by address: a key server over HTTPS, the control plane, the sidecars; all real."""

import asyncio
import contextlib
import ipaddress
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from cryptography import x509
from joserfc import jwt as tokens
from joserfc.jwk import ECKey

from tests.control_plane.test_key_sets import key_set, serving
from tests.helpers.certificates import TestAuthority, write
from tests.helpers.client import Client, Response, connect
from tests.helpers.running_mesh import RunningMesh, shop

pytestmark = pytest.mark.integration

OLD, NEW = (ECKey.generate_key("P-256", {"kid": kid}) for kid in ("old", "new"))
MESH = """
apiVersion: meshproxy.io/v1alpha1
kind: MeshConfig
metadata: {name: mesh}
spec: {trustDomain: test.mesh, jwks: {allowedHosts: [HOST], refresh: 1s}}
"""
USERS = """
apiVersion: meshproxy.io/v1alpha1
kind: RequestAuthentication
metadata: {name: NAME}
spec:
  selector: {matchLabels: {app: catalog}}
  jwtRules: [{issuer: NAME, jwksUri: "https://HOST/NAME"}]
---
apiVersion: meshproxy.io/v1alpha1
kind: AuthorizationPolicy
metadata: {name: token-needed}
spec:
  selector: {matchLabels: {app: catalog}}
  action: DENY
  rules:
    - from: [{source: {notRequestPrincipals: ["*"]}}]
"""
ROUTE = """
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: catalog}
spec:
  parentRefs: [{group: "", kind: Service, name: catalog}]
  rules:
    - filters: [{type: ResponseHeaderModifier, responseHeaderModifier: {set: [{name: x-route, value: new}]}}]
      backendRefs: [{name: catalog-v1, port: 80}]
"""


def bearer(key: ECKey, issuer: str = "id") -> str:
    claims = {"iss": issuer, "sub": "ann", "exp": 4_000_000_000}
    return tokens.encode({"alg": "ES256", "kid": key.kid}, claims, key, algorithms=["ES256"])


class KeyServer:
    """
    Attributes:
        answers: What is said at a path, in place of its key set.
        host: Where it is.
        stop: Ends it.
    """

    def __init__(self) -> None:
        self.answers: dict[str, Callable[[web.Request], Any]] = {}
        self.text = key_set(OLD)
        self.asked: list[str] = []
        self.host = ""
        self.stop: Callable[[], Awaitable[None]]

    async def handle(self, request: web.Request) -> web.StreamResponse:
        self.asked.append(request.path)
        answer = self.answers.get(request.path)
        found = web.Response(text=self.text) if answer is None else await answer(request)
        assert isinstance(found, web.StreamResponse)
        return found


async def huge(_request: web.Request) -> web.Response:
    return web.Response(body=b" " * (8 << 20))


async def never_ending(request: web.Request) -> web.StreamResponse:
    """Blanks are JSON as far as it goes; it goes on for ever, a few at a time."""
    answer = web.StreamResponse()
    await answer.prepare(request)
    with contextlib.suppress(ConnectionError):
        while True:
            await answer.write(b" " * 16)
            await asyncio.sleep(0.05)
    return answer


@contextlib.asynccontextmanager
async def key_server(folder: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[KeyServer]:
    """Serve over TLS, with a root of which the programs to be started are told as of the system's."""
    authority = TestAuthority("keys")
    (folder / "root.pem").write_text(authority.pem)
    address = x509.IPAddress(ipaddress.ip_address("127.0.0.1"))
    own = write(folder / "own.pem", *authority.leaf(address))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(own)
    monkeypatch.setenv("SSL_CERT_FILE", str(folder / "root.pem"))
    server = KeyServer()
    async with contextlib.AsyncExitStack() as stack:
        server.host = await stack.enter_async_context(serving(server.handle, context))
        server.stop = stack.aclose
        yield server


@contextlib.asynccontextmanager
async def running(folder: Path, server: KeyServer, **more: str) -> AsyncIterator[RunningMesh]:
    files = {**shop(), "mesh.yaml": MESH.replace("HOST", server.host)}
    for name, text in more.items():
        files[f"{name}.yaml"] = text.replace("HOST", server.host)
    mesh = RunningMesh(folder, files)
    await asyncio.to_thread(mesh.__enter__)
    try:
        yield mesh
    finally:
        await asyncio.to_thread(mesh.__exit__)


async def ask(client: Client, key: ECKey | None = None, issuer: str = "id") -> Response:
    token = f"Authorization: Bearer {bearer(key, issuer)}\r\n" if key else ""
    await client.send(f"GET / HTTP/1.1\r\nHost: catalog\r\n{token}\r\n".encode())
    return await client.response()


async def becomes(
    client: Client, status: int, key: ECKey | None = None, issuer: str = "id"
) -> None:
    async with asyncio.timeout(30):
        while (await ask(client, key, issuer)).status != status:
            await asyncio.sleep(0.02)


async def until(mesh: RunningMesh, condition: Callable[[], bool], what: str) -> None:
    await asyncio.to_thread(mesh.until, condition, what)


def findings(mesh: RunningMesh) -> str:
    return " ".join(finding["message"] for finding in mesh.api("/api/v1/status")["findings"])


def figure(mesh: RunningMesh, name: str) -> float:
    lines = mesh.text("/metrics").splitlines()
    return float(next(line for line in lines if line.startswith(f"{name}{{")).split()[-1])


async def test_keys_rotate_and_an_issuer_that_is_away_takes_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No token of a published key is refused on the way, nothing is restarted, and the alarms ring."""
    async with (
        key_server(tmp_path, monkeypatch) as server,
        running(tmp_path, server, users=USERS.replace("NAME", "id")) as mesh,
        connect(mesh.door()) as client,
    ):
        await becomes(client, 200, OLD)
        assert (await ask(client)).status == 403
        assert (await ask(client, NEW)).status == 401
        server.text = key_set(OLD, NEW)
        while (await ask(client, NEW)).status != 200:
            assert (await ask(client, OLD)).status == 200
        server.text = key_set(NEW)
        while (await ask(client, OLD)).status != 401:
            assert (await ask(client, NEW)).status == 200
        server.answers["/id"] = huge
        await until(mesh, lambda: "is larger than 1 MiB" in findings(mesh), "that to be said")
        await server.stop()
        await until(mesh, lambda: "cannot be reached" in findings(mesh), "that to be said")
        assert "hold until then" in findings(mesh)
        assert (await ask(client, NEW)).status == 200
        assert (await ask(client, OLD)).status == 401
        assert set(server.asked) == {"/id"}
        assert figure(mesh, "mesh_key_set_failures_total") >= 2
        assert figure(mesh, "mesh_key_set_age_seconds") > 0
        assert "cannot be reached" in mesh.output()


async def test_a_new_policy_loses_no_good_request_and_holds_up_nobody(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its keys come first; other pushes pass it; an answer without end makes it fail closed in time."""
    go = asyncio.Event()

    async def slowly(_request: web.Request) -> web.Response:
        await go.wait()
        return web.Response(text=key_set(OLD))

    async with (
        key_server(tmp_path, monkeypatch) as server,
        running(tmp_path, server) as mesh,
        connect(mesh.door()) as client,
    ):
        server.answers["/id"] = slowly
        server.answers["/endless"] = never_ending
        await becomes(client, 200)
        seen: set[int] = set()
        over = asyncio.Event()

        async def ask_all_the_time() -> None:
            async with connect(mesh.door()) as good:
                while not over.is_set():
                    seen.add((await ask(good, OLD)).status)
                    await asyncio.sleep(0.005)

        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(ask_all_the_time())
            users = USERS.replace("HOST", server.host)
            mesh.write("users.yaml", users.replace("NAME", "id"))
            await until(mesh, lambda: "waits for the first answer" in findings(mesh), "the waiting")
            assert (await ask(client)).status == 200
            mesh.write("route.yaml", ROUTE)
            while (response := await ask(client)).header("x-route") != "new":
                assert response.status == 200  # a route passes the policy that waits
            go.set()
            await becomes(client, 403)
            await until(mesh, lambda: findings(mesh) == "", "no findings")
            over.set()
        assert seen == {200}
        assert (await ask(client, NEW)).status == 401

        mesh.write("users.yaml", users.replace("NAME", "endless"))
        await until(mesh, lambda: "waits for the first answer" in findings(mesh), "the waiting")
        assert (await ask(client, OLD)).status == 200
        await becomes(client, 401, OLD)
        assert (await ask(client, OLD, "endless")).status == 401
        assert (await ask(client)).status == 403
        assert "is asked for the first time; no token of this issuer" in findings(mesh)
