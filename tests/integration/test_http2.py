"""HTTP/2 through two real sidecars: from clients, between the sidecars, and to apps."""

import asyncio
import hashlib
import random
import shutil
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.helpers.client import connect, get
from tests.helpers.http2 import GET, POST
from tests.helpers.http2_peers import App, Stream, http2_app, http2_client
from tests.helpers.origin import Answer, Conversation, Origin, hello, origin
from tests.helpers.pair import Pair, Sidecar

pytestmark = pytest.mark.integration

BODY = random.Random(1).randbytes(1_500_000)
MIB = 1 << 20


# Apps ---------------------------------------------------------------------------------------------


async def echo_http1(conversation: Conversation) -> None:
    """Say the body back, with an early hint before and its hash behind."""
    method = conversation.request_line.split()[0]
    body = await conversation.body()
    if conversation.request_line.split()[1] == b"/nothing":
        await conversation.send(b"HTTP/1.1 204 No Content\r\nX-App: 1\r\n\r\n")
        return
    await conversation.send(b"HTTP/1.1 103 Early Hints\r\nLink: </a.css>\r\n\r\n")
    if method == b"HEAD":
        await conversation.send(b"HTTP/1.1 200 OK\r\nContent-Length: 7\r\nX-App: 1\r\n\r\n")
        return
    seen = hashlib.sha256(body + conversation.trailers.strip().lower()).hexdigest().encode()
    await conversation.send(
        b"HTTP/1.1 200 OK\r\nX-App: 1\r\nTransfer-Encoding: chunked\r\nTrailer: X-Sum\r\n\r\n"
    )
    for start in range(0, len(body), 50_000):
        part = body[start : start + 50_000]
        await conversation.send(b"%x\r\n%b\r\n" % (len(part), part))
    await conversation.send(b"0\r\nX-Sum: %b\r\n\r\n" % seen)


async def echo_http2(stream: Stream) -> None:
    """The same over HTTP/2."""
    request = await stream.message()
    if request.header(":path") == "/nothing":
        stream.head([(":status", "204"), ("x-app", "1")], end=True)
        return
    stream.head([(":status", "103"), ("link", "</a.css>")])
    if request.header(":method") == "HEAD":
        stream.head([(":status", "200"), ("content-length", "7"), ("x-app", "1")], end=True)
        return
    trailers = "\r\n".join(f"{name}: {value}" for name, value in request.trailers)
    seen = hashlib.sha256(request.body + trailers.encode()).hexdigest()
    stream.head([(":status", "200"), ("x-app", "1")])
    await stream.body(request.body, end=False)
    stream.head([("x-sum", seen)], end=True)


@asynccontextmanager
async def started(pair: Pair) -> AsyncIterator[Pair]:
    await asyncio.to_thread(pair.__enter__)
    try:
        yield pair
    finally:
        await asyncio.to_thread(pair.__exit__)


@asynccontextmanager
async def before_http1(directory: Path, answer: Answer) -> AsyncIterator[tuple[Pair, Origin]]:
    async with origin(answer) as app, started(Pair(directory, app.port)) as pair:
        yield pair, app


@asynccontextmanager
async def before_http2(
    directory: Path, serve: Callable[[Stream], Awaitable[None]]
) -> AsyncIterator[tuple[Pair, App]]:
    async with (
        http2_app(serve) as app,
        started(Pair(directory, app.port, app_protocol="http2")) as pair,
    ):
        yield pair, app


def echo(directory: Path, protocol: str) -> Any:
    if protocol == "http1":
        return before_http1(directory, echo_http1)
    return before_http2(directory, echo_http2)


async def connections_of(sidecar: Sidecar) -> int:
    """Return how many connections a sidecar has to the one endpoint of its one cluster."""
    [cluster] = await asyncio.to_thread(sidecar.get, "/clusters")
    [endpoint] = cluster["endpoints"]
    count = endpoint["connections"]
    assert isinstance(count, int)
    return count


# All pairings -------------------------------------------------------------------------------------


@pytest.mark.parametrize("app", ["http1", "http2"])
async def test_http2_clients(tmp_path: Path, app: str) -> None:
    """Bodies, trailers, early hints, HEAD and 204 arrive as they were said."""
    async with echo(tmp_path, app) as (pair, _), http2_client(pair.door) as client:
        stream = client.ask([*POST, ("x-a", "1"), ("x-a", "2")], end=False)
        await stream.body(BODY, end=False)
        stream.head([("x-late", "yes")], end=True)
        answer = await stream.message()
        assert answer.status == "200"
        assert [dict(hint)["link"] for hint in answer.informational] == ["</a.css>"]
        assert answer.header("x-app") == "1"
        assert answer.body == BODY
        seen = hashlib.sha256(BODY + b"x-late: yes").hexdigest()
        assert answer.trailers == [("x-sum", seen)]

        head = await client.ask([(":method", "HEAD"), *GET[1:]]).message()
        assert (head.status, head.header("content-length"), head.body) == ("200", "7", b"")
        nothing = await client.ask([*GET[:3], (":path", "/nothing")]).message()
        assert (nothing.status, nothing.header("x-app"), nothing.body) == ("204", "1", b"")
        assert await connections_of(pair.a) == 1


@pytest.mark.parametrize("app", ["http1", "http2"])
async def test_http1_clients(tmp_path: Path, app: str) -> None:
    """The same from HTTP/1.1; that it is HTTP/2 in between does not show."""
    async with echo(tmp_path, app) as (pair, _), connect(pair.door) as client:
        await client.send(
            b"POST / HTTP/1.1\r\nHost: catalog\r\nTransfer-Encoding: chunked\r\nTE: trailers\r\n\r\n"
        )
        for start in range(0, len(BODY), 70_000):
            part = BODY[start : start + 70_000]
            await client.send(b"%x\r\n%b\r\n" % (len(part), part))
        await client.send(b"0\r\nx-late: yes\r\n\r\n")
        hint = await client.head()
        assert (hint.status, hint.header("link")) == (103, "</a.css>")
        answer = await client.response()
        assert (answer.status, answer.header("x-app")) == (200, "1")
        assert answer.body == BODY
        seen = hashlib.sha256(BODY + b"x-late: yes").hexdigest().encode()
        assert answer.trailers == b"X-Sum: " + seen + b"\r\n"

        await client.send(b"HEAD / HTTP/1.1\r\nHost: catalog\r\n\r\n")
        await client.head()
        head = await client.response(method="HEAD")
        assert (head.status, head.header("content-length")) == (200, "7")
        await client.send(b"GET /nothing HTTP/1.1\r\nHost: catalog\r\n\r\n")
        nothing = await client.response()
        assert (nothing.status, nothing.header("x-app")) == (204, "1")


async def test_cookies_and_expectations(tmp_path: Path) -> None:
    """Cookie pieces are one at an HTTP/1.1 app; `100 Continue` comes through before the body."""

    async def careful(conversation: Conversation) -> None:
        if conversation.header("expect"):
            await conversation.send(b"HTTP/1.1 100 Continue\r\n\r\n")
        await hello(conversation)

    async with before_http1(tmp_path, careful) as (pair, app):
        async with http2_client(pair.door) as client:
            head = [*POST, ("cookie", "a=b"), ("cookie", "c=d"), ("expect", "100-continue")]
            stream = client.ask([*head, ("content-length", "3")], end=False)
            go_on = await stream.next()
            assert go_on.headers == [(":status", "100")]
            await stream.body(b"abc")
            answer = await stream.message()
            assert answer.body == b"/ 3"
        assert b"\r\nCookie: a=b; c=d\r\n" in app.requests[0]
        assert b"\r\nContent-Length: 3\r\n" in app.requests[0]


# Many at once -------------------------------------------------------------------------------------


async def test_many_streams_share_the_connections(tmp_path: Path) -> None:
    """300 requests at once, one connection on each leg that speaks HTTP/2, no answer mixed up."""
    gate = asyncio.Event()

    async def wait_and_tell(stream: Stream) -> None:
        request = await stream.message()
        await gate.wait()
        stream.head([(":status", "200")])
        await stream.body((request.header(":path") or "").encode())

    async with before_http2(tmp_path, wait_and_tell) as (pair, app):
        async with http2_client(pair.door) as client:
            streams = [client.ask([*GET[:3], (":path", f"/{n}")]) for n in range(300)]
            async with asyncio.timeout(20):
                while sum(len(end.streams) for end in app.ends) < 300:
                    await asyncio.sleep(0.01)
            gate.set()
            answers = [await stream.message() for stream in streams]
        assert [answer.body for answer in answers] == [b"/%d" % n for n in range(300)]
        assert await connections_of(pair.a) == 1
        # The app's limit was not yet known when the first hundred went out.
        assert len(app.ends) <= 4


async def test_stalled_streams_do_not_delay_their_neighbours(tmp_path: Path) -> None:
    """Ten downloads and ten uploads that nobody takes, and everybody else on the same connection."""

    async def serve(conversation: Conversation) -> None:
        if conversation.request_line.split()[1] == b"/endless":
            await conversation.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
            while True:
                await conversation.send(b"10000\r\n" + b"x" * 0x10000 + b"\r\n")
        elif conversation.request_line.split()[1] == b"/deaf":
            await asyncio.sleep(60)
        else:
            await hello(conversation)

    async with (
        before_http1(tmp_path, serve) as (pair, _),
        http2_client(pair.door) as stalled,
        http2_client(pair.door) as busy,
    ):
        for _ in range(10):
            stalled.ask([*GET[:3], (":path", "/endless")])
            upload = stalled.ask([*POST[:3], (":path", "/deaf")], end=False)
            with pytest.raises(TimeoutError):  # the window closes
                async with asyncio.timeout(0.2):
                    await upload.body(b"x" * 20 * MIB)
        before = pair.a.rss() + pair.b.rss()
        loop = asyncio.get_running_loop()
        slowest = 0.0
        for _ in range(50):
            start = loop.time()
            answer = await busy.ask(GET).message()
            slowest = max(slowest, loop.time() - start)
            assert answer.body == b"/ 0"
        stream = busy.ask(POST, end=False)
        await stream.body(BODY)
        assert (await stream.message()).body == b"/ %d" % len(BODY)
        assert slowest < 0.5
        assert await connections_of(pair.a) == 1
        assert pair.a.rss() + pair.b.rss() - before < 30 * MIB
        assert pair.a.rss() < 120 * MIB
        assert pair.b.rss() < 120 * MIB


# What can go wrong --------------------------------------------------------------------------------


async def test_a_torn_response_never_looks_complete(tmp_path: Path) -> None:
    """The app resets inside a body: HTTP/2 clients see a reset, HTTP/1.1 clients no last chunk."""

    async def tear(stream: Stream) -> None:
        await stream.message()
        stream.head([(":status", "200")])
        await stream.body(b"half", end=False)
        await asyncio.sleep(0.1)
        stream.reset(2)

    async with before_http2(tmp_path, tear) as (pair, _):
        async with http2_client(pair.door) as client:
            answer = await client.ask(GET).message()
            assert (answer.status, answer.body, answer.reset) == ("200", b"half", 2)
        async with connect(pair.door) as old:
            await old.send(b"GET / HTTP/1.1\r\nHost: catalog\r\n\r\n")
            said = b""
            try:
                while data := await old.reader.read(65536):
                    said += data
            except ConnectionResetError:
                pass
            assert said.endswith(b"half\r\n")


async def test_what_the_app_refuses_unread_is_asked_again(tmp_path: Path) -> None:
    """REFUSED_STREAM proves that nothing was processed: even a POST is repeated."""
    tries: list[int] = []

    async def refuse_first(stream: Stream) -> None:
        request = await stream.message()
        tries.append(stream.number)
        if len(tries) == 1:
            stream.reset(7)
            return
        stream.head([(":status", "200")])
        await stream.body(request.body)

    async with before_http2(tmp_path, refuse_first) as (pair, _):
        async with http2_client(pair.door) as client:
            stream = client.ask(POST, end=False)
            await stream.body(b"once")
            answer = await stream.message()
            assert (answer.status, answer.body) == ("200", b"once")
        assert len(tries) == 2


async def test_an_app_that_goes_away_loses_no_request(tmp_path: Path) -> None:
    """GOAWAY: what is under way is answered there, what comes next on a new connection."""

    async def last_words(stream: Stream) -> None:
        await stream.message()
        end = stream._end
        end.write(end.wire.goaway(stream.number))
        stream.head([(":status", "200")], end=True)

    async with before_http2(tmp_path, last_words) as (pair, app):
        async with http2_client(pair.door) as client:
            for _ in range(20):
                assert (await client.ask(POST).message()).status == "200"
        assert len(app.ends) == 20


async def test_a_client_that_gives_up_stops_the_app(tmp_path: Path) -> None:
    """Its reset travels through both sidecars; the connections stay."""
    gone = asyncio.Event()

    async def serve(stream: Stream) -> None:
        request = await stream.next()
        if dict(request.headers or [])[":path"] == "/long":
            while (await stream.next()).kind != "RstStream":
                pass
            gone.set()
        else:
            stream.head([(":status", "204")], end=True)

    async with before_http2(tmp_path, serve) as (pair, app):
        async with http2_client(pair.door) as client:
            stream = client.ask([*POST[:3], (":path", "/long")], end=False)
            await stream.body(b"x", end=False)
            await client.ask(GET).message()
            stream.reset()
            async with asyncio.timeout(10):
                await gone.wait()
            assert (await client.ask(GET).message()).status == "204"
        assert len(app.ends) == 1
        assert await connections_of(pair.a) == 1


async def test_draining_finishes_streams(tmp_path: Path) -> None:
    """SIGTERM at the inbound sidecar: 50 answers under way come in full, then it ends with 0."""
    gate = asyncio.Event()

    async def wait(conversation: Conversation) -> None:
        await gate.wait()
        await hello(conversation)

    async with before_http1(tmp_path, wait) as (pair, app):
        async with http2_client(pair.door) as client:
            streams = [client.ask(GET) for _ in range(50)]
            async with asyncio.timeout(20):
                while len(app.requests) < 50:
                    await asyncio.sleep(0.01)
            pair.b.process.terminate()
            ending = asyncio.create_task(asyncio.to_thread(pair.b.process.wait, 10))
            await asyncio.sleep(0.3)
            gate.set()
            answers = [await stream.message() for stream in streams]
        assert [(a.status, a.body) for a in answers] == [("200", b"/ 0")] * 50
        assert await ending == 0


async def test_a_client_is_told_when_its_sidecar_ends(tmp_path: Path) -> None:
    """GOAWAY in two steps to the app beside it."""
    async with before_http1(tmp_path, hello) as (pair, _), http2_client(pair.door) as client:
        assert (await client.ask(GET).message()).status == "200"
        code = await asyncio.to_thread(pair.a.stop)
        assert code == 0
        async with asyncio.timeout(10):
            while len(client.goaways) < 2:
                await asyncio.sleep(0.01)
        assert client.goaways == [(2**31 - 1, 0), (1, 0)]


# Programs that everybody uses ---------------------------------------------------------------------


async def run(*command: str) -> str:
    process = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
    out, _ = await process.communicate()
    assert process.returncode == 0, command
    return out.decode()


async def test_curl(tmp_path: Path) -> None:
    """HTTP/2 with prior knowledge, HTTP/1.1 and HTTP/1.0, with a body."""
    if shutil.which("curl") is None:
        pytest.skip("curl is not installed")
    async with before_http1(tmp_path, hello) as (pair, _):
        for version in ("--http2-prior-knowledge", "--http1.1", "--http1.0"):
            command = ["curl", "-sS", version, "-d", "hello", f"http://127.0.0.1:{pair.door}/x"]
            assert await run(*command) == "/x 5"
        assert (await get(pair.door, "/x")).body == b"/x 0"


async def test_h2load(tmp_path: Path) -> None:
    """5,000 requests over 8 connections with 16 streams each, none fails."""
    if shutil.which("h2load") is None:
        pytest.skip("h2load is not installed")
    async with before_http1(tmp_path, hello) as (pair, _):
        url = f"http://127.0.0.1:{pair.door}/x"
        told = await run("h2load", "-n", "5000", "-c", "8", "-m", "16", url)
        assert "5000 succeeded, 0 failed, 0 errored" in told
        assert await connections_of(pair.a) == 1
