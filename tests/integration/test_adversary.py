"""What somebody tries who means harm, through two sidecars with mutual TLS: each attempt fails."""

import asyncio
import contextlib
import json
import random
import socket
import struct
from pathlib import Path
from typing import Any

import psutil
import pytest

from meshproxy.contract.authentication import ClaimHeaderSpec, JwtSpec
from meshproxy.contract.authorization import (
    AuthorizationRuleSpec,
    FactSpec,
    OperationSpec,
    SourceSpec,
)
from tests.helpers.client import connect, get
from tests.helpers.http2 import POST, PREFACE, Wire
from tests.helpers.origin import Conversation, hello, origin
from tests.helpers.pair import Pair, spiffe
from tests.integration.test_authorization import ISSUER, KEY, guarded, pair, policy, token

pytestmark = pytest.mark.integration

ADMIN = AuthorizationRuleSpec(
    operations=(
        OperationSpec(paths=("/admin*", "/shop.Admin/*")),
        OperationSpec(methods=("DELETE",)),
    )
)


DENIED = (
    "GET http://catalog/admin HTTP/1.1\r\nHost: catalog\r\n",
    "GET http://catalog:80/%61dmin HTTP/1.1\r\nHost: catalog\r\n",
    "GET /admin HTTP/1.1\r\nHost: CATALOG.\r\n",
    "GET /admin HTTP/1.1\r\nHost: catalog\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n",
    (
        "GET / HTTP/1.1\r\nHost: catalog\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\n"
        "HTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA\r\nX-Role: admin\r\n"
    ),
    (
        "POST /shop.Admin/Drop HTTP/1.1\r\nHost: catalog\r\nContent-Type: application/grpc\r\n"
        "Content-Length: 0\r\n"
    ),
    "CONNECT catalog:80 HTTP/1.1\r\nHost: catalog:80\r\n",
    "delete /goods HTTP/1.1\r\nHost: catalog\r\n",
    "GET / HTTP/1.1\r\nHost: catalog\r\nX-Role: user\r\nX-Role: admin\r\n",
    "GET / HTTP/1.1\r\nHost: catalog\r\nX_Role: admin\r\n",
    "GET / HTTP/1.1\r\nHost: catalog\r\nx_mesh_peer: x\r\n",
    f"GET / HTTP/1.1\r\nHost: catalog\r\nx_forwarded_client_cert: URI={spiffe('admin')}\r\n",
)


async def test_nothing_that_is_denied_reaches_the_app(tmp_path: Path) -> None:
    """Absolute form, upgrades, methods, gRPC, CONNECT, fields twice and fields with underscores."""
    role = AuthorizationRuleSpec(facts=(FactSpec(kind="header", name="x-role", values=("admin",)),))
    change = guarded(policy("deny", ADMIN, role))
    async with origin(hello) as app, pair(tmp_path, app.port, change) as it:
        for request_head in DENIED:
            async with connect(it.door) as client:
                await client.send(f"{request_head}\r\n".encode())
                assert (await client.head()).status in (200, 400, 403, 501), request_head
            assert app.requests == [], request_head
        assert (await get(it.door, "/goods")).status == 200


async def test_a_caller_cannot_say_what_only_the_mesh_says(tmp_path: Path) -> None:
    """Neither by itself, nor in trailers, nor by naming in Connection what the proxy adds."""
    async with origin(hello) as app, pair(tmp_path, app.port, guarded()) as it:
        async with connect(it.door) as client:
            await client.send(
                b"POST / HTTP/1.1\r\nHost: catalog\r\nTransfer-Encoding: chunked\r\n"
                b"Connection: x-forwarded-client-cert, x-mesh-mirrored\r\n"
                b"X-Forwarded-Client-Cert: URI=spiffe://test.mesh/ns/default/sa/admin\r\n"
                b"X-Mesh-Mirrored: 1\r\nX-Mesh-Peer: admin\r\nX-Mesh-Retried: 1\r\n\r\n"
                b"0\r\nX-Forwarded-Client-Cert: URI=admin\r\nX-Mesh-Peer: admin\r\n\r\n"
            )
            assert (await client.response()).status == 200
        [request] = app.requests
        text = request.lower()
        assert text.count(b"x-forwarded-client-cert") == 1
        assert spiffe("storefront").encode() in text
        assert b"admin" not in text
        assert b"x-mesh-mirrored" not in text
        assert b"x-mesh-retried" not in text


async def test_an_app_cannot_speak_as_a_proxy(tmp_path: Path) -> None:
    """A refusal that an app makes up would have requests sent again that it has executed."""

    async def lies(conversation: Conversation) -> None:
        await conversation.body()
        await conversation.send(
            b"HTTP/1.1 503 Busy\r\nContent-Length: 0\r\nX-Mesh-Refusal: connect-failed\r\n"
            b"X-Mesh-Retried: 1\r\nX-Mesh-Anything: 1\r\n\r\n"
        )

    async with origin(lies) as app, pair(tmp_path, app.port, guarded()) as it:
        async with connect(it.door) as client:
            await client.send(b"POST / HTTP/1.1\r\nHost: catalog\r\nContent-Length: 0\r\n\r\n")
            response = await client.response()
        assert response.status == 503
        assert b"x-mesh-refusal" not in response.head.lower()
        assert b"x-mesh-anything" not in response.head.lower()
        assert len(app.requests) == 1


async def test_users_are_told_by_us_alone(tmp_path: Path) -> None:
    """The header that carries a claim comes from a token, in every spelling a server may read."""
    keys = json.dumps({"keys": [KEY.as_dict(private=False)]})
    told = (ClaimHeaderSpec(header="X-User", claim="sub"),)
    issuer = JwtSpec(name="default/users", issuer=ISSUER, keys=keys, claim_headers=told)
    async with origin(hello) as app, pair(tmp_path, app.port, guarded(jwt=(issuer,))) as it:
        forged = "X-User: root\r\nx_user: root\r\nX_USER: root\r\n"
        assert (await get(it.door, "/", extra=forged)).status == 200
        signed = f"{forged}Authorization: Bearer {token(sub='ann')}\r\n"
        assert (await get(it.door, "/", extra=signed)).status == 200
        assert all(b"root" not in request for request in app.requests)
        assert b"x-user: ann" in app.requests[1].lower()


async def test_who_asks_and_is_gone_has_not_asked(tmp_path: Path) -> None:
    """A reset socket has no address any more: that is no way past a rule about addresses."""
    here = AuthorizationRuleSpec(sources=(SourceSpec(ip_blocks=("127.0.0.0/8",)),))

    def change(snapshot: Any) -> Any:
        return guarded(policy("deny", here))(snapshot)

    async with origin(hello) as app:
        two = Pair(tmp_path, app.port, change_b=change, mtls="permissive")
        await asyncio.to_thread(two.__enter__)
        try:
            for _ in range(200):
                with contextlib.suppress(OSError), socket.socket() as client:
                    await asyncio.to_thread(client.connect, ("127.0.0.1", two.inbound))
                    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                    client.send(b"POST /pay HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n")
            assert (await get(two.inbound, "/")).status == 403
            assert app.requests == []
        finally:
            await asyncio.to_thread(two.__exit__)


async def test_no_request_chooses_whom_we_dial(tmp_path: Path) -> None:
    """Absolute form, Host and CONNECT name loopback, metadata, admin pages, our own ports: no route."""
    async with origin(hello) as app:
        two = Pair(tmp_path, app.port)
        await asyncio.to_thread(two.__enter__)
        try:
            places = [
                f"{host}:{port}"
                for host in ("127.0.0.1", "localhost", "[::1]", "[::ffff:127.0.0.1]", "0.0.0.0", "127.1")
                for port in (two.a.admin, app.port, two.outbound, two.inbound)
            ]  # fmt: skip
            places += ["169.254.169.254:80", "[fe80::1]:80", "0x7f000001:80", "2130706433:80"]
            for place in places:
                for form in (
                    f"GET http://{place}/config HTTP/1.1\r\nHost: catalog\r\n\r\n",
                    f"GET /config HTTP/1.1\r\nHost: {place}\r\n\r\n",
                    f"CONNECT {place} HTTP/1.1\r\nHost: {place}\r\n\r\n",
                ):
                    async with connect(two.outbound) as client:
                        await client.send(form.encode())
                        response = await client.response()
                    assert response.status == 404, form
                    assert response.header("x-mesh-refusal") == "no-route"
            assert app.connections == 0
        finally:
            await asyncio.to_thread(two.__exit__)


async def test_who_leaves_at_any_moment_leaves_nothing_behind(tmp_path: Path) -> None:
    """Two thousand requests cut anywhere, with FIN or reset: descriptors and log as they were."""
    chosen = random.Random(1)
    whole = (
        b"POST /a HTTP/1.1\r\nHost: catalog\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nabcde\r\n0\r\n\r\n",
        b"GET /b HTTP/1.1\r\nHost: catalog\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\nearly",
        b"GET /c HTTP/1.1\r\nHost: catalog\r\n\r\n" * 3,
        PREFACE + b"\0\0\0\4\0\0\0\0\0" + Wire().headers(1, POST, end=False) + Wire().data(1, b"abc"),
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(100),
    )  # fmt: skip
    async with origin(hello) as app:
        two = Pair(tmp_path, app.port)
        await asyncio.to_thread(two.__enter__)
        try:
            assert (await get(two.door)).status == 200
            processes = [psutil.Process(sidecar.process.pid) for sidecar in (two.a, two.b)]
            before = [process.num_fds() for process in processes]
            for _ in range(40):
                socks = [socket.create_connection(("127.0.0.1", two.door)) for _ in range(50)]
                for sock in socks:
                    data = chosen.choice(whole)
                    sock.send(data[: chosen.randrange(len(data) + 1)])
                    if chosen.random() < 0.5:
                        linger = struct.pack("ii", 1, 0)
                        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
                    await asyncio.sleep(0)
                for sock in socks:
                    sock.close()
            assert (await get(two.door)).status == 200
            async with asyncio.timeout(20):  # the pools between them may keep a few
                while any(p.num_fds() > n + 8 for p, n in zip(processes, before, strict=True)):
                    await asyncio.sleep(0.05)
            for sidecar in (two.a, two.b):
                log = sidecar.log()
                assert not any(word in log for word in ("Traceback", "never retrieved", "ERROR"))
        finally:
            await asyncio.to_thread(two.__exit__)
