"""HTTP/1.1 through two real sidecars, with mutual TLS between them."""

import asyncio
import shutil
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.helpers.client import Client, connect, get
from tests.helpers.origin import Answer, Conversation, Origin, hello, origin
from tests.helpers.pair import Pair

pytestmark = pytest.mark.integration

Through = Callable[[Answer], "asyncio.Future[tuple[Pair, Origin]]"]


@asynccontextmanager
async def mesh(
    directory: Path, answer: Answer, settings: dict[str, Any] | None = None
) -> AsyncIterator[tuple[Pair, Origin]]:
    async with origin(answer) as app:
        pair = Pair(directory, app.port, settings=settings)
        await asyncio.to_thread(pair.__enter__)
        try:
            yield pair, app
        finally:
            await asyncio.to_thread(pair.__exit__)


async def test_all_forms_of_calling_reach_the_service(tmp_path: Path) -> None:
    """HTTP proxy form, Host routing and the service's own port; names are known in all spellings."""
    async with mesh(tmp_path, hello) as (pair, app):
        async with connect(pair.outbound) as client:
            await client.send(b"GET http://catalog/a?b=c HTTP/1.1\r\nHost: ignored\r\n\r\n")
            assert (await client.response()).body == b"/a?b=c 0"
        for host in ("catalog", "CATALOG.default", "catalog:80", "catalog.default.:80"):
            assert (await get(pair.outbound, "/x", host)).body == b"/x 0"
        assert (await get(pair.door, "/y", "127.0.0.1:1")).body == b"/y 0"

        assert {b"GET"} == {head.split(b" ")[0] for head in app.requests}
        assert b"\r\nHost: catalog\r\n" in app.requests[0]
        refused = await get(pair.outbound, "/", "unknown")
        assert (refused.status, refused.header("x-mesh-refusal")) == (404, "no-route")


async def test_the_app_learns_who_calls_and_lies_from_outside_are_dropped(tmp_path: Path) -> None:
    """Identity headers are made from the handshake, whatever the client sends."""
    lies = "X-Forwarded-Client-Cert: URI=spiffe://evil\r\nX-Mesh-Source: me\r\nX-Kept: Yes\r\n"
    async with mesh(tmp_path, hello) as (pair, app):
        assert (await get(pair.outbound, extra=lies)).status == 200

        [head] = app.requests
        assert b"spiffe://evil" not in head
        assert b"x-mesh" not in head.lower()
        assert b"URI=spiffe://test.mesh/ns/default/sa/storefront" in head
        assert b"\r\nX-Kept: Yes\r\n" in head
        twin = await get(pair.outbound, extra="x_mesh_source: me\r\n")
        assert twin.status == 400  # CGI-style apps would read it as X-Mesh-Source


async def test_keep_alive_and_pipelining(tmp_path: Path) -> None:
    """Many requests on one connection, also said all at once, are answered in order."""
    async with mesh(tmp_path, hello) as (pair, app):
        async with connect(pair.outbound) as client:
            one = b"POST /%d HTTP/1.1\r\nHost: catalog\r\nContent-Length: 3\r\n\r\nabc"
            await client.send(b"".join(one % number for number in range(50)))
            bodies = [(await client.response()).body for _ in range(50)]
            assert [b"/%d 3" % number for number in range(50)] == bodies
            for number in range(20):
                await client.send(b"GET /%d HTTP/1.1\r\nHost: catalog\r\n\r\n" % number)
                assert (await client.response()).status == 200
        assert app.connections == 1


async def test_chunks_and_trailers_pass_both_ways(tmp_path: Path) -> None:
    """A body of unknown length stays one, and its trailers arrive as trailers."""

    async def echo(conversation: Conversation) -> None:
        body = await conversation.body()
        await conversation.send(
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n%x\r\n%b\r\n0\r\n%b\r\n"
            % (len(body), body, conversation.trailers)
        )

    async with mesh(tmp_path, echo) as (pair, _), connect(pair.outbound) as client:
        await client.send(
            b"POST / HTTP/1.1\r\nHost: catalog\r\nTransfer-Encoding: chunked\r\n\r\n"
            b"3\r\nabc\r\n5;ext=1\r\ndefgh\r\n0\r\nX-Checksum: 42\r\n\r\n"
        )
        response = await client.response()
        assert response.body == b"abcdefgh"
        assert b"x-checksum: 42" in response.trailers.lower()


async def test_expect_continue_is_the_apps_to_grant(tmp_path: Path) -> None:
    """`100 Continue` comes from the app, and the body follows only then."""

    async def careful(conversation: Conversation) -> None:
        assert conversation.header("expect") == "100-continue"
        if b"/no" in conversation.request_line:
            await conversation.send(b"HTTP/1.1 417 Expectation Failed\r\nContent-Length: 0\r\n\r\n")
            return
        await conversation.send(b"HTTP/1.1 100 Continue\r\n\r\n")
        await hello(conversation)

    head = b"PUT /%b HTTP/1.1\r\nHost: catalog\r\nExpect: 100-continue\r\nContent-Length: 4\r\n\r\n"
    async with mesh(tmp_path, careful) as (pair, _):
        async with connect(pair.outbound) as client:
            await client.send(head % b"yes")
            assert (await client.head()).status == 100
            await client.send(b"body")
            assert (await client.response()).body == b"/yes 4"
        async with connect(pair.outbound) as client:
            await client.send(head % b"no")
            response = await client.response()
            assert (response.status, response.header("connection")) == (417, "close")


async def test_responses_without_a_body(tmp_path: Path) -> None:
    """HEAD, 204 and 304 end with their head, and the connection goes on."""

    async def bodiless(conversation: Conversation) -> None:
        answers = {
            b"HEAD": b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n",
            b"GET": b"HTTP/1.1 304 Not Modified\r\nETag: x\r\nContent-Length: 99\r\n\r\n",
            b"DELETE": b"HTTP/1.1 204 No Content\r\n\r\n",
        }
        await conversation.send(answers[conversation.request_line.split()[0]])

    async with mesh(tmp_path, bodiless) as (pair, app), connect(pair.outbound) as client:
        for _ in range(2):
            for method, status in (("HEAD", 200), ("GET", 304), ("DELETE", 204)):
                await client.send(f"{method} / HTTP/1.1\r\nHost: catalog\r\n\r\n".encode())
                response = await client.response(method=method)
                assert status == response.status
                assert (None if status == 204 else "99") == response.header("content-length")
        assert app.connections == 1


async def test_a_response_until_close_and_http_1_0(tmp_path: Path) -> None:
    """An old app's body ends with its connection; an old client gets no chunks."""

    async def old(conversation: Conversation) -> None:
        await conversation.send(b"HTTP/1.0 200 OK\r\n\r\nall of it")
        conversation.writer.close()

    async with mesh(tmp_path, old) as (pair, _):
        response = await get(pair.outbound)
        assert (response.body, response.header("transfer-encoding")) == (b"all of it", "chunked")
        async with connect(pair.outbound) as client:
            await client.send(b"GET / HTTP/1.0\r\nHost: catalog\r\n\r\n")
            answer = await client.rest()
            assert answer.endswith(b"\r\n\r\nall of it")


async def test_a_torn_response_is_never_completed(tmp_path: Path) -> None:
    """When the app dies inside a body the client sees an error, not an end."""

    async def dies(conversation: Conversation) -> None:
        if b"/sized" in conversation.request_line:
            await conversation.send(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf")
        else:
            await conversation.send(
                b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n"
            )
        conversation.writer.transport.abort()

    async with mesh(tmp_path, dies) as (pair, _):
        for target in ("/sized", "/chunked"):
            async with connect(pair.outbound) as client:
                await client.send(f"GET {target} HTTP/1.1\r\nHost: catalog\r\n\r\n".encode())
                assert (await client.head()).status == 200
                rest = await client.rest()
                assert not rest.endswith(b"0\r\n\r\n")
                assert rest.count(b"half") == 1


async def test_an_early_answer_reaches_a_client_that_still_talks(tmp_path: Path) -> None:
    """The app refuses an upload at once; the client gets the answer, no later request is harmed."""

    async def refuses(conversation: Conversation) -> None:
        await conversation.send(
            b"HTTP/1.1 413 Content Too Large\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
        )
        await conversation.reader.read(1)
        conversation.writer.close()

    async with mesh(tmp_path, refuses) as (pair, _):
        for _ in range(3):
            async with connect(pair.outbound) as client:
                await client.send(
                    b"PUT / HTTP/1.1\r\nHost: catalog\r\nContent-Length: 100000000\r\n\r\n"
                )
                await client.send(b"x" * 100_000)
                assert (await client.response()).status == 413


@pytest.mark.parametrize("half_closing", [False, True])
async def test_a_client_that_ends_its_half(tmp_path: Path, half_closing: bool) -> None:
    """
    `printf … | nc -N` sends FIN right behind the request and listens on; who closes its socket sends
    the same.  It is believed to have gone, and the app hears of it, but where the setting says that
    there are such clients.
    """
    arrived, gone, listens = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def stall(conversation: Conversation) -> None:
        arrived.set()
        if half_closing:
            await listens.wait()
            await hello(conversation)
        elif not await conversation.reader.read():
            gone.set()

    async with mesh(tmp_path, stall, {"half_closing_clients": half_closing}) as (pair, _):
        async with connect(pair.outbound) as client:
            client.writer.write(b"GET /half HTTP/1.1\r\nHost: catalog\r\n\r\n")
            async with asyncio.timeout(10):
                if not half_closing:
                    await arrived.wait()
                client.writer.write_eof()
                await arrived.wait()
                listens.set()
                if not half_closing:
                    await gone.wait()
            rest = await client.rest()
        assert rest.endswith(b"/half 0") if half_closing else rest == b""


async def test_an_app_that_closes_idle_connections_costs_no_request(tmp_path: Path) -> None:
    """Each answer is followed by a close that was not announced; 100 requests all succeed."""

    async def moody(conversation: Conversation) -> None:
        await hello(conversation)
        conversation.writer.close()

    async with mesh(tmp_path, moody) as (pair, app):
        async with connect(pair.outbound) as client:
            for number in range(100):
                await client.send(b"GET /%d HTTP/1.1\r\nHost: catalog\r\n\r\n" % number)
                assert b"/%d 0" % number == (await client.response()).body
        assert len(app.requests) == 100


async def test_no_app_is_a_clear_answer(tmp_path: Path) -> None:
    """Nobody listens: 503 with the reason, the hop that saw it, and JSON for who asks for it."""
    async with mesh(tmp_path, hello) as (pair, _):
        pass
    pair = Pair(tmp_path_2(tmp_path), 1)
    await asyncio.to_thread(pair.__enter__)
    try:
        response = await get(pair.outbound, extra="Accept: application/json\r\n")
        assert (response.status, response.header("x-mesh-refusal")) == (503, "connect-failed")
        assert b'"hop": "inbound of default/catalog"' in response.body
        assert b'"flag": "UF"' in response.body
    finally:
        await asyncio.to_thread(pair.__exit__)


def tmp_path_2(directory: Path) -> Path:
    other = directory / "other"
    other.mkdir()
    return other


async def test_two_hundred_concurrent_clients(tmp_path: Path) -> None:
    """200 clients at once, ten requests each: every one gets its own answer."""
    async with mesh(tmp_path, hello) as (pair, _):

        async def client(name: int) -> int:
            good = 0
            async with connect(pair.outbound) as connection:
                for number in range(10):
                    target = b"/%d-%d" % (name, number)
                    await connection.send(b"GET %b HTTP/1.1\r\nHost: catalog\r\n\r\n" % target)
                    good += (await connection.response()).body == target + b" 0"
            return good

        results = await asyncio.gather(*(client(name) for name in range(200)))
        assert results == [10] * 200


async def test_a_slow_reader_stops_the_app(tmp_path: Path) -> None:
    """Back-pressure reaches the sender: it cannot get rid of more than the buffers on the way."""
    sent = 0
    stalled = asyncio.Event()

    async def pours(conversation: Conversation) -> None:
        nonlocal sent
        await conversation.send(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000000\r\n\r\n")
        while True:
            try:
                async with asyncio.timeout(2.0):
                    await conversation.send(b"x" * 65536)
            except TimeoutError:
                stalled.set()
                return
            sent += 65536

    async with mesh(tmp_path, pours) as (pair, _), connect(pair.outbound) as client:
        client.reader._transport.pause_reading()  # type: ignore[attr-defined]
        await client.send(b"GET / HTTP/1.1\r\nHost: catalog\r\n\r\n")
        async with asyncio.timeout(30):
            await stalled.wait()
        assert sent < 64 << 20


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
async def test_curl(tmp_path: Path) -> None:
    """A real client that knows HTTP_PROXY, uploads, HTTP/1.0 and HEAD."""
    async with mesh(tmp_path, hello) as (pair, _):
        proxy = f"http://127.0.0.1:{pair.outbound}"

        def curl(*arguments: str) -> str:
            command = ["curl", "-sS", "-x", proxy, "--max-time", "10", *arguments]
            return subprocess.run(command, capture_output=True, text=True, check=True).stdout

        upload = tmp_path / "upload"
        upload.write_bytes(b"x" * 2_000_000)
        asked: list[tuple[tuple[str, ...], str]] = [
            (("http://catalog/a",), "/a 0"),
            (("-T", str(upload), "http://catalog/up"), "/up 2000000"),
            (
                ("-H", "Transfer-Encoding: chunked", "-T", str(upload), "http://catalog/c"),
                "/c 2000000",
            ),
            (("-0", "http://catalog/old"), "/old 0"),
        ]
        for arguments, expected in asked:
            assert expected == await asyncio.to_thread(curl, *arguments)
        assert "200 OK" in await asyncio.to_thread(curl, "-I", "http://catalog/h")


async def _until(condition: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(10):
        while not await condition():
            await asyncio.sleep(0.02)


async def test_sigterm_drains(tmp_path: Path) -> None:
    """Requests under way finish, new connections are refused, and the exit code is 0."""
    go = asyncio.Event()

    async def waits(conversation: Conversation) -> None:
        await go.wait()
        await hello(conversation)

    async with mesh(tmp_path, waits) as (pair, app):
        clients: list[Client] = []
        async with connect(pair.outbound) as one, connect(pair.outbound) as two:
            clients += [one, two]
            for client in clients:
                await client.send(b"GET /slow HTTP/1.1\r\nHost: catalog\r\n\r\n")

            async def both_arrived() -> bool:
                return len(app.requests) == 2

            await _until(both_arrived)
            pair.a.process.terminate()

            async def refused() -> bool:
                try:
                    async with connect(pair.outbound):
                        return False
                except ConnectionRefusedError:
                    return True
                except ConnectionResetError:  # it came in the very moment of closing
                    return False

            await _until(refused)
            go.set()
            for client in clients:
                response = await client.response()
                assert (response.body, response.header("connection")) == (b"/slow 0", "close")
        assert await asyncio.to_thread(pair.a.process.wait, 15) == 0
