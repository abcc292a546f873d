"""Mutual TLS between two real sidecars: who may pass, who may not, and that it is counted."""

import asyncio
import contextlib
import re
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from meshproxy.identity import tls
from tests.helpers.certificates import TestAuthority
from tests.helpers.client import Client, connect, get
from tests.helpers.origin import Origin, hello, origin
from tests.helpers.pair import Pair, Sidecar, spiffe

pytestmark = pytest.mark.integration

GET = b"GET / HTTP/1.1\r\nHost: catalog\r\n\r\n"


@asynccontextmanager
async def mesh(directory: Path, **options: Any) -> AsyncIterator[tuple[Pair, Origin]]:
    async with origin(hello) as app:
        pair = Pair(directory, app.port, **options)
        await asyncio.to_thread(pair.__enter__)
        try:
            yield pair, app
        finally:
            await asyncio.to_thread(pair.__exit__)


async def metric(sidecar: Sidecar, name: str, **labels: str) -> float:
    """Return the sum of all samples that carry these labels."""
    wanted = [f'{key}="{value}"' for key, value in labels.items()]
    lines = (await asyncio.to_thread(sidecar.metrics)).splitlines()
    samples = [re.fullmatch(rf"{name}(\{{.*\}})? (\S+)", line) for line in lines]
    return sum(
        float(sample[2])
        for sample in samples
        if sample and all(label in (sample[1] or "") for label in wanted)
    )


async def counted(sidecar: Sidecar, expected: float, name: str, **labels: str) -> None:
    """Wait until a metric has the expected value: the last client may be gone before its count."""
    async with asyncio.timeout(10):
        while await metric(sidecar, name, **labels) < expected:
            await asyncio.sleep(0.02)
    assert await metric(sidecar, name, **labels) == expected


async def ended(client: Client) -> bytes:
    """Return what is still said; the close may be a hard one."""
    with contextlib.suppress(ConnectionError):
        return await client.rest()
    return b""


async def refused(port: int, context: ssl.SSLContext) -> None:
    """Ask over TLS; the peer must end it without an answer."""

    async def ask() -> None:
        async with connect(port, ssl=context, server_hostname="") as client:
            await client.send(GET)
            await client.response()

    with pytest.raises((ssl.SSLError, ConnectionError, asyncio.IncompleteReadError)):
        await ask()


async def test_strict_hears_nothing_in_plaintext(tmp_path: Path) -> None:
    """HTTP gets 403 with the reason, anything else a close; the app hears of none of it."""
    async with mesh(tmp_path) as (pair, app):
        response = await get(pair.inbound)
        assert (response.status, response.header("x-mesh-refusal")) == (403, "mtls-required")
        async with connect(pair.inbound) as client:
            await client.send(b"\x00\xff garbage \r\n\r\n" * 10)
            assert b"200" not in await ended(client)
        for _ in range(200):  # CVE-2023-40217: bytes before the handshake must not be trusted
            async with connect(pair.inbound) as client:
                client.writer.write(GET)
                client.writer.close()

        await counted(pair.b, 202, "mesh_refusals_total", direction="inbound", code="mtls-required")
        await counted(
            pair.b, 202, "mesh_tls_handshake_failures_total", side="downstream", reason="plaintext"
        )
        assert await metric(pair.b, "mesh_requests_total") == 0
        assert (app.connections, app.requests) == (0, [])
        assert (await get(pair.outbound)).status == 200  # and the right way still works


async def test_strict_refuses_handshakes_that_prove_nothing(tmp_path: Path) -> None:
    """No certificate, one of another authority, TLS 1.2, another trust domain: all are counted."""
    async with mesh(tmp_path) as (pair, app):
        authority = pair.authority
        anonymous = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        anonymous.check_hostname = False
        anonymous.load_verify_locations(cadata=authority.root)
        right = authority.issue(spiffe("storefront"), tmp_path, "right")
        old = tls.client_context(*right, authority.root)
        old.minimum_version = old.maximum_version = ssl.TLSVersion.TLSv1_2
        foreign = TestAuthority("foreign").issue(spiffe("storefront"), tmp_path, "foreign")
        strange = authority.issue("spiffe://other.mesh/ns/a/sa/b", tmp_path, "strange")
        wrong = [
            anonymous,
            old,
            tls.client_context(*foreign, authority.root),
            tls.client_context(*strange, authority.root),
        ]
        for number, context in enumerate(wrong, 1):
            await refused(pair.inbound, context)
            await counted(pair.b, number, "mesh_tls_handshake_failures_total", side="downstream")
        assert await metric(pair.b, "mesh_requests_total") == 0
        assert app.connections == 0

        welcome = tls.client_context(*right, authority.root)
        welcome.set_alpn_protocols([tls.ALPN_HTTP1])
        async with connect(pair.inbound, ssl=welcome, server_hostname="") as client:
            await client.send(GET)
            assert (await client.response()).status == 200


async def test_a_peer_of_another_authority_is_not_spoken_to(tmp_path: Path) -> None:
    """B's certificate cannot be verified: A answers 503 and says why; nobody hears the request."""
    async with mesh(tmp_path, server_authority=TestAuthority("foreign")) as (pair, app):
        for method in ("GET", "POST"):
            async with connect(pair.outbound) as client:
                await client.send(f"{method} / HTTP/1.1\r\nHost: catalog\r\n\r\n".encode())
                response = await client.response()
            assert (response.status, response.header("x-mesh-refusal")) == (503, "handshake-failed")
        assert await metric(pair.a, "mesh_tls_handshake_failures_total", side="upstream") >= 2
        assert await metric(pair.b, "mesh_requests_total") == 0
        assert (app.connections, app.requests) == (0, [])


async def test_a_caller_of_another_authority_is_refused(tmp_path: Path) -> None:
    """
    A's certificate is foreign to B: B counts, the app hears nothing, the client gets an error.

    With TLS 1.3, A has sent the request when B judges.  Only an alert proves to A that B has not
    read it (503); without one it must say that it does not know (502).
    """
    async with mesh(tmp_path) as (pair, app):
        foreign = TestAuthority("foreign")
        files = foreign.issue(spiffe("storefront"), tmp_path, "foreign")
        other = tmp_path / "other"
        other.mkdir()
        intruder = Sidecar(other, "storefront", pair.a_snapshot, files)
        pair.a.stop()
        await asyncio.to_thread(intruder.start)
        try:
            for _ in range(20):
                response = await get(pair.outbound)
                told = (response.status, response.header("x-mesh-refusal"))
                assert told in ((503, "handshake-failed"), (502, "upstream-closed"))
            failures = await metric(pair.b, "mesh_tls_handshake_failures_total", side="downstream")
            assert failures >= 20
            assert await metric(pair.b, "mesh_requests_total") == 0
            assert (app.connections, app.requests) == (0, [])
        finally:
            await asyncio.to_thread(intruder.__exit__)


async def test_a_peer_with_another_identity_is_not_spoken_to(tmp_path: Path) -> None:
    """The chain is right and the name is not: not a byte of the request leaves A."""
    async with mesh(tmp_path, expected=(spiffe("reviews"),)) as (pair, app):
        for _ in range(3):
            response = await get(pair.outbound)
            assert response.status == 503
            assert response.header("x-mesh-refusal") == "peer-identity-mismatch"
        assert (
            await metric(
                pair.a, "mesh_tls_handshake_failures_total", reason="peer-identity-mismatch"
            )
            == 9
        )  # three attempts each: another endpoint might have been the right one
        assert await metric(pair.b, "mesh_requests_total") == 0
        assert await metric(pair.b, "mesh_refusals_total") == 0
        assert (app.connections, app.requests) == (0, [])


async def test_permissive_takes_both_and_tells_them_apart(tmp_path: Path) -> None:
    """Only mutual TLS yields an identity; in plaintext nobody can claim one."""
    lie = "X-Forwarded-Client-Cert: URI=spiffe://test.mesh/ns/default/sa/admin\r\n"
    async with mesh(tmp_path, mtls="permissive") as (pair, app):
        assert (await get(pair.outbound, extra=lie)).status == 200
        assert (await get(pair.inbound, extra=lie)).status == 200
        proved, plain = app.requests
        assert b"sa/admin" not in proved + plain
        expected = f"By={spiffe('catalog')};URI={spiffe('storefront')}\r\n".encode()
        assert expected in proved
        assert b"x-forwarded-client-cert" not in plain.lower()
        for source in ("plaintext", spiffe("storefront")):
            await counted(pair.b, 1, "mesh_requests_total", source=source)


async def test_a_slow_hello_blocks_nobody(tmp_path: Path) -> None:
    """A hundred clients say three bytes of TLS and wait; everybody else is served."""
    async with mesh(tmp_path) as (pair, _), contextlib.AsyncExitStack() as stack:
        for _ in range(100):
            slow = await stack.enter_async_context(connect(pair.inbound))
            await slow.send(b"\x16\x03\x01")
        async with asyncio.timeout(9):
            for _ in range(20):
                assert (await get(pair.outbound)).status == 200
        before = _cpu(pair.b)
        await asyncio.sleep(0.5)
        assert _cpu(pair.b) - before <= 5  # hundredths of a second: waiting costs nothing


def _cpu(sidecar: Sidecar) -> int:
    """Return the processor time used, in clock ticks."""
    fields = Path(f"/proc/{sidecar.process.pid}/stat").read_text().rpartition(")")[2].split()
    return int(fields[11]) + int(fields[12])
