"""
What a mesh tells about itself tells no secret, and what strangers say to it forges nothing.

Its keys, tokens and session secrets are known to the test, which looks for them wherever an
operator, a log collector or another process of the machine could read.
"""

import asyncio
import contextlib
import json
import logging
import re
from pathlib import Path

import msgspec
import pytest

from meshproxy.contract.authentication import JwtSpec
from meshproxy.contract.authorization import AuthorizationRuleSpec, FactSpec
from meshproxy.identity import tls
from meshproxy.one_line import OURS
from tests.helpers.client import connect, get
from tests.helpers.enrolled_mesh import EnrolledMesh, enrolled_mesh
from tests.helpers.http2 import GET, Wire
from tests.helpers.origin import Conversation, hello, origin
from tests.helpers.pair import Pair
from tests.helpers.pair import get as pages
from tests.integration.test_authorization import ISSUER, KEY, guarded, policy, token

pytestmark = pytest.mark.integration

PAGES = ("/", "/metrics", "/healthz/ready", "/config", "/clusters", "/certs")
RECORD = re.compile(
    r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3} (DEBUG|INFO|WARNING|ERROR) meshproxy[.\w]*: .+"
)


def secrets_of(mesh: EnrolledMesh) -> set[str]:
    """Everything that lies in a file that only its owner may read, in pieces that can be found."""
    found = set()
    for path in mesh.directory.rglob("*"):
        if not path.is_file():
            continue
        text = path.read_text(errors="replace")
        for key in re.findall(
            r"-----BEGIN [A-Z ]*PRIVATE KEY-----\n(.*?)\n-----END", text, re.DOTALL
        ):
            found |= set(key.split("\n")[:2])  # then comes the public key, which anybody may see
        if path.name in ("token", "operator.token", "viewer.token", "session-secret"):
            found.add(text.strip())
    return found


async def test_diagnostics_tell_no_secret(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Admin pages, the API's answers, logs at level debug, command lines and environments."""
    for ours in OURS:
        caplog.set_level(logging.DEBUG, ours)
    async with enrolled_mesh(tmp_path, lifetime=3600, log_level="debug") as mesh:
        answer = await get(mesh.doors["web"], extra="Authorization: Bearer s3cr3t-of-a-client\r\n")
        assert answer.status == 200
        secrets = secrets_of(mesh)
        assert len(secrets) >= 10
        assert mesh.plane._session_secret in secrets
        secrets |= {"s3cr3t-of-a-client", "PRIVATE KEY"}
        told = {
            f"{name} {page}": (await asyncio.to_thread(mesh.page, name, page)).decode()
            for name in ("door", "app")
            for page in PAGES
        }
        assert mesh.plane.ports is not None
        token = (tmp_path / "plane" / "viewer.token").read_text()
        for path in (
            "status", "proxies", "certificates", "roots", "proxies/default/app/snapshot",
        ):  # fmt: skip
            told[path] = (
                await get(
                    mesh.plane.ports[1],
                    f"/api/v1/{path}",
                    "localhost",
                    f"Authorization: Bearer {token}\r\n",
                )
            ).body.decode()
        told["log of the control plane"] = caplog.text
        for name, process in zip(("door", "app"), mesh._sidecars, strict=True):
            told[f"log of {name}"] = mesh.log(name)
            assert "DEBUG" in mesh.log(name) or "INFO" in mesh.log(name)
            for part in ("cmdline", "environ"):
                told[f"{part} of {name}"] = Path(f"/proc/{process.pid}/{part}").read_text()
        for where, text in told.items():
            assert text, where
            for secret in secrets:
                assert secret not in text, where


async def test_requests_leave_their_secrets_nowhere(tmp_path: Path) -> None:
    """Served, denied, refused, malformed, answered wrongly, of any protocol: logs and pages know none."""
    keys = json.dumps({"keys": [KEY.as_dict(private=False)]})
    issuer = JwtSpec(name="default/users", issuer=ISSUER, keys=keys)
    role = FactSpec(kind="claim", path=("role",), values=("admin",))
    only = AuthorizationRuleSpec(facts=(role,))
    audit = msgspec.structs.replace(policy("audit", AuthorizationRuleSpec()), name="default/seen")
    right, forged = token(role="admin", note=SECRET), token(role="user")[:-4] + "AAAA"
    async with origin(answer_with_secrets) as app:
        change = guarded(policy("allow", only), audit, jwt=(issuer,))
        two = Pair(tmp_path, app.port, change_b=change)
        for sidecar in (two.a, two.b):
            sidecar.arguments = ("--log-level", "debug")
        await asyncio.to_thread(two.__enter__)
        try:
            for bearer in (right, forged, token(role="user"), SECRET, ""):
                for form in SECRETIVE:
                    said = form.replace("<>", bearer or SECRET).encode("latin-1")
                    await say(two.door, said)
                    if not bearer:
                        await say(two.outbound, said)
                wire = Wire()
                for bad in (
                    (),
                    (("x", f"{SECRET}\n"),),
                    (("connection", SECRET),),
                    (("te", SECRET),),
                ):
                    fields = (*GET[:3], (":path", f"/?{SECRET}"), ("authorization", bearer), *bad)
                    await say(two.door, wire.hello() + wire.headers(1, fields))
            assert (
                await get(two.door, "/", extra=f"X-Right: yes\r\nAuthorization: Bearer {right}\r\n")
            ).status == 200
            told = {}
            for name, sidecar in (("a", two.a), ("b", two.b)):
                for page in (*PAGES, "/denials"):
                    told[f"{name} {page}"] = str(
                        (await asyncio.to_thread(pages, sidecar.admin, page))[1]
                    )
        finally:
            await asyncio.to_thread(two.__exit__)
        told |= {"log of a": two.a.log(), "log of b": two.b.log()}
        assert "denied" in two.b.log()
    for where, text in told.items():
        assert text, where
        for secret in (SECRET, right.split(".")[2], forged.split(".")[1], "Bearer "):
            assert secret not in text, where


SECRET = "s3cr3t-0f-a-cl1ent"
# What carries secrets, rightly and wrongly; `<>` is the token.
SECRETIVE = (
    "GET / HTTP/1.1\r\nHost: catalog\r\nAuthorization: Bearer <>\r\nConnection: close\r\n\r\n",
    f"GET /?access_token=<>&{SECRET} HTTP/1.1\r\nHost: catalog\r\nCookie: session={SECRET}\r\nConnection: close\r\n\r\n",
    f"GET http://user:{SECRET}@catalog/ HTTP/1.1\r\nHost: catalog\r\n\r\n",
    f"GET / HTTP/1.1\r\nHost: user:{SECRET}@catalog\r\n\r\n",
    f"GET / HTTP/1.1\r\nHost: catalog\r\nProxy-Authorization: Basic {SECRET}\r\nX-Api-Key: {SECRET}\r\nConnection: close\r\n\r\n",
    "GET / HTTP/1.1\r\nHost: catalog\r\nAuthorization : Bearer <>\r\n\r\n",
    f"GET / HTTP/1.1\r\nHost: catalog\r\nAuthorization: Bearer <>\r\n {SECRET}\r\n\r\n",
    "GET / HTTP/1.1\r\nHost: catalog\r\nAuthorization: Bearer <>\0\r\n\r\n",
    f"GET / HTTP/1.1\r\nHost: catalog\r\nExpect: {SECRET}\r\n\r\n",
    f"GET / HTTP/1.1\r\nHost: catalog\r\nContent-Length: {SECRET}\r\n\r\n",
    f"POST / HTTP/1.1\r\nHost: catalog\r\nTransfer-Encoding: chunked\r\n\r\n{SECRET}\r\n",
    f"POST / HTTP/1.1\r\nHost: catalog\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n0\r\nX-Sum: {SECRET}\r\n\r\n",
    f"GET /#{SECRET} HTTP/1.1\r\nHost: catalog\r\n\r\n",
    f"GET / HTTP/9.{SECRET}\r\n\r\n",
    f"GET / HTTP/1.1\r\nHost: catalog\r\nUpgrade: {SECRET}\r\nConnection: Upgrade, {SECRET}\r\nAuthorization: Bearer <>\r\n\r\n",
    f"GET / HTTP/1.1\r\nHost: catalog\r\nA: {SECRET * 5000}\r\n\r\n",
    f"CONNECT catalog:80 HTTP/1.1\r\nHost: catalog:80\r\nProxy-Authorization: Bearer {SECRET}\r\n\r\n{SECRET}",
)  # fmt: skip


async def answer_with_secrets(conversation: Conversation) -> None:
    """Answer rightly or not, in turns, with secrets in every place that an answer has."""
    if b"chunked" in conversation.head:
        await conversation.body()
    wrong = (b"", b"Content-Length: %b\r\n", b"%b\r\n", b" %b: x\r\n", b"X: %b\0\r\n")
    right = conversation.header("x-right")
    extra = b"" if right else wrong[len(conversation.head) % len(wrong)]
    secret = SECRET.encode()
    await conversation.send(
        b"HTTP/1.1 200 %b\r\nSet-Cookie: session=%b\r\n%bContent-Length: 18\r\n\r\n%b"
        % (secret, secret, extra.replace(b"%b", secret), secret)
    )


HOSTILE = (
    "\r\n2026-01-01 00:00:00,000 INFO meshproxy: forged",
    "\x1b[2J\x1b]0;owned\x07",
    "\u202eevil\u2028line",
    "\"'\\%s%n{}",
    "\x85\x9b31m\0",
)


async def test_no_stranger_forges_a_log_record(tmp_path: Path) -> None:
    """Request lines, fields, names of servers and of certificates: a line is a line of ours."""
    async with origin(hello) as app:
        pair = Pair(tmp_path, app.port)
        await asyncio.to_thread(pair.__enter__)
        try:
            for text in HOSTILE:
                for raw in (text.encode(), text.encode("latin-1", "replace")):
                    for port in (pair.outbound, pair.door, pair.inbound):
                        await say(port, b"GET /" + raw + b" HTTP/1.1\r\nHost: x\r\n\r\n")
                        await say(port, raw + b" / HTTP/1.1\r\nHost: " + raw + b"\r\n\r\n")
                        await say(port, hello_with_server_name(raw))
                identity = f"spiffe://test.mesh/ns/default/sa/{text}"
                for kind in (identity, text):
                    certificate = pair.authority.svid(tmp_path / "client.pem", ascii_uri(kind))
                    await shake_hands(pair, certificate)
            assert (await get(pair.door)).status == 200
        finally:
            await asyncio.to_thread(pair.__exit__)
        for sidecar in (pair.a, pair.b):
            lines = sidecar.log().split("\n")
            assert lines.pop() == ""
            for line in lines:
                assert RECORD.fullmatch(line), line
                assert line.isprintable()
                assert not line.endswith("INFO meshproxy: forged") or "\\n" in line
        assert "TLS handshake refused" in pair.b.log()


def ascii_uri(text: str) -> str:
    """Return what a certificate's URI can hold: IA5, control characters included."""
    return "".join(c if c.isascii() else f"%{ord(c):x}" for c in text)


def hello_with_server_name(name: bytes) -> bytes:
    """Return a ClientHello (RFC 8446 section 4.1.2) with any bytes as its server name."""
    names = b"\0" + len(name).to_bytes(2) + name
    extension = b"\0\0" + (len(names) + 2).to_bytes(2) + len(names).to_bytes(2) + names
    body = b"\3\3" + bytes(32) + b"\0" + b"\0\2\x13\x01" + b"\1\0"
    body += len(extension).to_bytes(2) + extension
    handshake = b"\1" + len(body).to_bytes(3) + body
    return b"\x16\3\1" + len(handshake).to_bytes(2) + handshake


async def say(port: int, data: bytes) -> None:
    with contextlib.suppress(OSError):
        async with connect(port) as client:
            await client.send(data)
            client.writer.write_eof()
            await client.rest()


async def shake_hands(pair: Pair, certificate: Path) -> None:
    context = tls.client_context(certificate, None, pair.authority.pem)
    context.set_alpn_protocols([tls.ALPN_HTTP1])
    with contextlib.suppress(OSError):
        async with connect(pair.inbound, ssl=context, server_hostname="") as client:
            await client.send(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
            await client.rest()
