"""The admin pages, as an operator, a probe, Prometheus and a hostile web page see them."""

import asyncio
import contextlib
import json
import stat
import threading
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from control_plane.cli.client import request
from meshproxy import admin as admin_module
from meshproxy.admin import Admin, as_json
from meshproxy.contract.resources import ClusterSpec
from meshproxy.downstream.sockets import listen
from tests.helpers.client import connect, get
from tests.helpers.environment import until
from tests.helpers.ports import free_port

LOCAL = "localhost"


@pytest.fixture
async def admin() -> Admin:
    return Admin(asyncio.get_running_loop())


@pytest.fixture
async def port(admin: Admin) -> AsyncIterator[int]:
    port = free_port()
    admin.page("/metrics", "text", lambda: (200, b"mesh 1\n"))
    admin.page("/healthz/ready", "text", lambda: (503, b"not yet\n"))
    admin.page("/config", "json", lambda: (200, as_json(ClusterSpec(name="a"))))
    await admin.start(listen(("127.0.0.1", port)))
    yield port
    admin.close()
    await until(lambda: not admin._connections)


async def test_pages(port: int) -> None:
    """Each with its status and type, whatever the query; the index lists them."""
    metrics = await get(port, "/metrics?x=1", LOCAL)
    assert (metrics.status, metrics.body) == (200, b"mesh 1\n")
    assert (metrics.header("content-type") or "").startswith("text/plain; version=0.0.4")
    assert metrics.header("x-content-type-options") == "nosniff"
    assert metrics.header("cache-control") == "no-store"
    assert "frame-ancestors 'none'" in (metrics.header("content-security-policy") or "")
    assert (await get(port, "/healthz/ready", LOCAL)).status == 503
    config = await get(port, "/config", LOCAL)
    assert config.header("content-type") == "application/json"
    assert config.body == b'{\n  "name": "a"\n}\n'
    index = await get(port, "/", LOCAL)
    assert (index.status, index.body) == (200, b"/config\n/healthz/ready\n/metrics\n")
    assert (await get(port, "/nothing", LOCAL)).status == 404


@pytest.mark.parametrize(
    "host", ["localhost", "LOCALHOST:15000", "127.0.0.1:1", "[::1]", "[::1]:1"]
)
async def test_local_names_are_served(port: int, host: str) -> None:
    """With or without a port."""
    assert (await get(port, "/metrics", host)).status == 200


@pytest.mark.parametrize(
    "host", ["evil.example", "localhost.evil.example", "evil:15000", "10.0.0.1.nip.example"]
)
async def test_other_names_are_not(port: int, host: str) -> None:
    """A name of somebody else that resolves to loopback reads nothing (DNS rebinding)."""
    response = await get(port, "/config", host)

    assert response.status == 403
    assert b'"name"' not in response.body


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS"])
async def test_the_pages_can_only_be_read(port: int, method: str) -> None:
    """405 for everything that might change something; a body is read and dropped."""
    async with connect(port) as client:
        for _ in range(2):
            await client.send(
                f"{method} /metrics HTTP/1.1\r\nHost: {LOCAL}\r\nContent-Length: 3\r\n\r\nabc".encode()
            )
            assert (await client.response()).status == 405


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ("Origin: http://localhost", 200),
        ("Origin: https://localhost", 403),
        ("Origin: http://evil.example", 403),
        ("Origin: null", 403),
        ("Origin: http://localhost\r\nOrigin: http://evil.example", 403),
        ("Sec-Fetch-Site: same-origin", 200),
        ("Sec-Fetch-Site: none", 200),
        ("Sec-Fetch-Site: cross-site", 403),
        ("Sec-Fetch-Site: same-site", 403),
    ],
)
async def test_other_web_sites_are_not_served(
    port: int, admin: Admin, headers: str, status: int
) -> None:
    """A browser connects to loopback for any page; it says for which."""
    done: list[str] = []

    def drain() -> tuple[int, bytes]:
        done.append("drained")
        return 200, b""

    admin.action("/drain", drain)
    async with connect(port) as client:
        for line in ("GET /metrics", "POST /drain"):
            await client.send(f"{line} HTTP/1.1\r\nHost: {LOCAL}\r\n{headers}\r\n\r\n".encode())
            assert (await client.response()).status == status
    assert done == (["drained"] if status == 200 else [])


async def test_what_can_be_done_is_done_by_post_alone(port: int, admin: Admin) -> None:
    """A link, a prefetch or a scrape changes nothing; nor does a POST to a page."""
    done: list[str] = []

    def drain() -> tuple[int, bytes]:
        done.append("drained")
        return 202, b"draining\n"

    statuses = []
    async with connect(port) as client:
        for line in ("POST /drain", "GET /drain", "PUT /drain", "POST /config", "POST /drain?now"):
            await client.send(f"{line} HTTP/1.1\r\nHost: {LOCAL}\r\n\r\n".encode())
            statuses.append((await client.response()).status)
            admin.action("/drain", drain)  # the first came before
    assert statuses == [405, 405, 405, 405, 202]
    assert done == ["drained"]


async def test_who_holds_many_connections_keeps_nobody_out(port: int) -> None:
    """The oldest has to go."""
    async with contextlib.AsyncExitStack() as stack:
        first = await stack.enter_async_context(connect(port))
        await first.send(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert (await first.response()).status == 200
        for _ in range(admin_module.MOST_VISITS):
            other = await stack.enter_async_context(connect(port))
            await other.send(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n")
            assert (await other.response()).status == 200
        assert await first.rest() == b""


async def test_a_unix_socket_is_for_the_proxys_own_user(admin: Admin, tmp_path: Path) -> None:
    """Pages are served there as anywhere; and what a dead process has left is no obstacle."""
    path = tmp_path / "admin.sock"
    listen((str(path), 0))[0].close()
    admin.page("/metrics", "text", lambda: (200, b"mesh 1\n"))
    await admin.start(listen((str(path), 0)))

    status, body = await asyncio.to_thread(request, f"unix:{path}", "GET", "/metrics")

    assert (status, body) == (200, b"mesh 1\n")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    with pytest.raises(OSError, match="in use"):
        listen((str(path), 0))
    admin.close()


async def test_head_has_no_body(port: int) -> None:
    """And the length that GET would have had."""
    async with connect(port) as client:
        for _ in range(2):
            await client.send(b"HEAD /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n")
            response = await client.response(method="HEAD")
            assert (response.status, response.header("content-length")) == (200, "7")


async def test_pipelined_requests_are_answered_in_order(port: int) -> None:
    """A probe and a scrape may share a connection."""
    one = b"GET /%b HTTP/1.1\r\nHost: localhost\r\n\r\n"
    async with connect(port) as client:
        await client.send(one % b"metrics" + one % b"nothing" + one % b"healthz/ready")
        assert [(await client.response()).status for _ in range(3)] == [200, 404, 503]


@pytest.mark.parametrize(("line", "status"), [("GET /metrics", 200), (f"CONNECT {LOCAL}:80", 405)])
async def test_no_other_protocol_is_spoken(port: int, line: str, status: int) -> None:
    """A page is a page, whatever the visitor would rather have."""
    async with connect(port) as client:
        ask = (
            f"{line} HTTP/1.1\r\nHost: {LOCAL}\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n"
        )
        await client.send(ask.encode())
        assert (await client.response()).status == status


async def test_nonsense_is_answered_and_closed(port: int) -> None:
    """By the same codec as traffic."""
    async with connect(port) as client:
        await client.send(b"nonsense\r\n\r\n")
        assert (await client.rest()).startswith(b"HTTP/1.1 400 ")


async def test_slow_visitors_are_sent_away(monkeypatch: pytest.MonkeyPatch) -> None:
    """The sweep ends waits that are over."""
    monkeypatch.setattr(admin_module, "SWEEP", 0.01)
    monkeypatch.setattr("meshproxy.downstream.http1.HEAD_TIMEOUT", 0.05)
    port = free_port()
    admin = Admin(asyncio.get_running_loop())
    await admin.start(listen(("127.0.0.1", port)))
    async with connect(port) as client:
        await client.send(b"GET /metr")
        assert (await client.response()).status == 408
    admin.close()
    await until(lambda: not admin._connections)


async def test_no_more_listening(port: int, admin: Admin) -> None:
    """A successor has the port: who is connected is still answered, nobody else is accepted."""
    async with connect(port) as client:
        await client.send(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n")
        await client.response()
        admin.stop_listening()
        await client.send(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert (await client.response()).status == 200
        with pytest.raises(ConnectionRefusedError):
            await get(port, "/metrics", LOCAL)


async def test_looking_something_up(port: int, admin: Admin) -> None:
    """By its id, or all of it; a page that has nothing to look up takes no notice of a query."""
    admin.finding("/denials", lambda number: (200, as_json([number])))
    for query, number in (
        ("", ""), ("?id=12ab", "12ab"), ("?id=%31", "1"), ("?other=1", ""), ("?id=a&id=b", "a"),
    ):  # fmt: skip
        response = await get(port, f"/denials{query}", host="localhost")
        assert json.loads(response.body) == [number]
    assert (await get(port, "/metrics?id=1", host="localhost")).body == b"mesh 1\n"


async def test_a_slow_page_is_made_also_where_no_thread_can_be(
    admin: Admin, port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A container at its limit has no room for a thread's stack; it can be asked all the same."""
    admin.page("/slow", "text", lambda: (200, threading.current_thread().name.encode()), slow=True)
    assert (await get(port, "/slow", LOCAL)).body != b"MainThread"

    def no_room(*_: object) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", no_room)
    monkeypatch.setattr(asyncio.get_running_loop(), "_default_executor", None)
    assert (await get(port, "/slow", LOCAL)).body == b"MainThread"
