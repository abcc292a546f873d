"""
HTTP servers that people use, behind two real sidecars, asked in HTTP/1.1 and in HTTP/2.

What a server tells about a request that came through the mesh is what it tells about the same
request when it came straight; and so is its answer.
"""

import asyncio
import hashlib
import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
import pytest_asyncio
from aiohttp import web

from tests.helpers.client import connect
from tests.helpers.http2_peers import http2_client
from tests.helpers.ports import free_port
from tests.helpers.programs import find, found, listening, running
from tests.helpers.services import Service, Services
from tests.interop.clients import NODE
from tests.interop.witness import BODY, FIELDS, Message, Pairs, travelling

pytestmark = [pytest.mark.integration, pytest.mark.asyncio(loop_scope="module")]

SERVERS = ["aiohttp", "node-http", "node-http2"]
PATHS = ["", "-plain"]
"""What a service is called where the sidecars speak in plaintext what the app speaks."""


# The servers --------------------------------------------------------------------------------------


async def aiohttp_app(request: web.Request) -> web.StreamResponse:
    """The same as the two in `node/`, but that aiohttp knows no trailers."""
    answer = web.StreamResponse(status=203)
    for name, value in (("X-Many", "one"), ("X-CamelCase", "Kept"), ("X-Many", "two, three")):
        answer.headers.add(name, value)
    answer.headers["Date"] = "always the same"
    answer.set_cookie("a", "1")
    answer.set_cookie("b", "2")
    body = b""
    if request.path == "/none":
        answer.set_status(204)
    elif request.path == "/cached":
        answer.set_status(304)
    elif request.path not in ("/talk", "/torn"):
        content = hashlib.sha256(await request.read()).hexdigest()
        fields = [(n.decode(), v.decode()) for n, v in request.raw_headers]
        what = f"{request.method} {request.raw_path}"
        told = {"what": what, "fields": fields, "body": content, "trailers": []}
        body = json.dumps(told).encode()
        answer.enable_chunked_encoding()
    await answer.prepare(request)
    if request.path == "/talk":
        async for part in request.content.iter_any():
            await answer.write(part)
    elif request.path == "/torn":
        await answer.write(b"half")
        assert request.transport is not None
        request.transport.close()
    elif body and request.method != "HEAD":
        await answer.write(body)
    return answer


async def start_aiohttp(stack: AsyncExitStack) -> int:
    app = web.Application(client_max_size=1 << 24)
    app.router.add_route("*", "/{tail:.*}", aiohttp_app)
    runner = web.AppRunner(app)
    await runner.setup()
    stack.push_async_callback(runner.cleanup)
    await web.TCPSite(runner, "127.0.0.1", port := free_port()).start()
    return port


Mesh = tuple[dict[str, int], Services]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def mesh(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Mesh]:
    """Yield the servers' own ports and the mesh in front of them."""
    directory = tmp_path_factory.mktemp("servers")
    async with AsyncExitStack() as stack:
        ports = {"aiohttp": await start_aiohttp(stack)}
        if find("node") is not None:
            for name in ("node-http", "node-http2"):
                port = ports[name] = free_port()
                script = NODE / f"{name.replace('node-', 'server_')}.mjs"
                log = directory / f"{name}.log"
                ready = listening(port)
                await asyncio.to_thread(
                    stack.enter_context,
                    running(found("node"), script, str(port), log=log, ready=ready),
                )
        services = Services(
            directory,
            [
                Service(
                    name + path,
                    port,
                    "http2" if name == "node-http2" else "http1",
                    plaintext=bool(path),
                )
                for name, port in ports.items()
                for path in PATHS
            ],
            settings={"half_closing_clients": True},
        )
        await asyncio.to_thread(stack.enter_context, services)
        yield ports, services


# The clients --------------------------------------------------------------------------------------


async def ask_http1(port: int, method: str, path: str, body: bytes, trailers: Pairs) -> Message:
    async with connect(port) as client:
        lines = [f"{method} {path} HTTP/1.1", "Host: catalog", *map(": ".join, FIELDS)]
        if body:
            lines += ["Transfer-Encoding: chunked", "TE: trailers", "Trailer: X-Late"]
        await client.send("\r\n".join([*lines, "\r\n"]).encode())
        if body:
            await client.send(b"%x\r\n%b\r\n0\r\n" % (len(body), body))
            await client.send("".join(f"{n}: {v}\r\n" for n, v in trailers).encode() + b"\r\n")
        answer = await client.response(method=method)
        return Message(
            f"{answer.status}", _fields(answer.head.split(b"\r\n", 1)[1]), answer.body.decode(),
            _fields(answer.trailers),
        )  # fmt: skip


def _fields(lines: bytes) -> Pairs:
    parts = [line.partition(":") for line in lines.decode().split("\r\n") if line]
    return [(name, value.strip()) for name, _, value in parts]


async def ask_http2(port: int, method: str, path: str, body: bytes, trailers: Pairs) -> Message:
    async with http2_client(port) as client:
        head = [
            (":method", method),
            (":scheme", "http"),
            (":authority", "catalog"),
            (":path", path),
        ]
        fields = [(name.lower(), value) for name, value in FIELDS]
        stream = client.ask([*head, *fields, *[("trailer", "X-Late")] * bool(body)], end=not body)
        if body:
            await stream.body(body, end=False)
            stream.head([(name.lower(), value) for name, value in trailers], end=True)
        answer = await stream.message()
        assert answer.reset is None
        return Message(answer.status or "", answer.headers, answer.body.decode(), answer.trailers)


CLIENTS = {"HTTP/1.1": ask_http1, "HTTP/2": ask_http2}
ASKED = [
    ("POST", "/echo?a=b%20c&d=%C3%A9", BODY, [("X-Late", "yes"), ("X-Late", "twice")]),
    ("GET", "/echo//x/./y;z", b"", []),
    ("HEAD", "/echo", b"", []),
    ("OPTIONS", "/echo", b"", []),
    ("GET", "/none", b"", []),
    ("GET", "/cached", b"", []),
]


def unless_missing(mesh: Mesh, server: str) -> tuple[int, Services]:
    ports, services = mesh
    if server not in ports:
        pytest.skip("not installed: node")
    return ports[server], services


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("version", CLIENTS)
@pytest.mark.parametrize("server", SERVERS)
async def test_nobody_notices_the_mesh(mesh: Mesh, server: str, version: str, path: str) -> None:
    """
    Targets, fields with their values, order and multiplicity, bodies, trailers and statuses
    arrive as they were sent, both ways; names keep their spelling where every leg is HTTP/1.1.
    """
    port, services = unless_missing(mesh, server)
    straight = ask_http2 if server == "node-http2" else ask_http1
    spelling = bool(path) and version == "HTTP/1.1" and server != "node-http2"
    for method, target, body, trailers in ASKED:
        if server == "aiohttp":
            trailers = []  # see `test_trailers_stay_with_their_request`
        expected = await straight(port, method, target, body, trailers)
        got = await CLIENTS[version](services.doors[server + path], method, target, body, trailers)
        assert told(got, spelling=spelling) == told(expected, spelling=spelling)
        answer = got.travelled(spelling=spelling)
        assert answer.what == expected.what
        assert without_lengths(answer.fields) == without_lengths(
            travelling(expected.fields, spelling=spelling)
        )
        assert answer.trailers == travelling(expected.trailers or [], spelling=spelling)


def told(answer: Message, *, spelling: bool) -> Message | None:
    """Return what the server has told of the request in its answer."""
    if not answer.body:
        return None
    it = json.loads(answer.body)
    fields = [(name, value) for name, value in it["fields"]]
    trailers = [(name, value) for name, value in it["trailers"]]
    return Message(it["what"], fields, it["body"], trailers).travelled(spelling=spelling)


def without_lengths(fields: Pairs) -> Pairs:
    """The length of what a server tells differs with the spelling and number of the fields."""
    return [field for field in fields if field[0] != "content-length"]


@pytest.mark.parametrize("server", SERVERS)
async def test_both_directions_flow_at_once(mesh: Mesh, server: str) -> None:
    """The answer begins before the request ends, and each half ends on its own."""
    _, services = unless_missing(mesh, server)
    async with connect(services.doors[server]) as old:
        await old.send(b"POST /talk HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n")
        for word in (b"one", b"two"):
            await old.send(b"3\r\n%b\r\n" % word)
            async with asyncio.timeout(10):
                if word == b"one":
                    assert (await old.head()).status in (200, 203)
                assert await old.reader.readuntil(word + b"\r\n") == b"3\r\n%b\r\n" % word
        await old.send(b"0\r\n\r\n")
        assert await old.reader.readexactly(5) == b"0\r\n\r\n"
    async with http2_client(services.doors[server]) as client:
        stream = client.open()
        stream.head(
            [(":method", "POST"), (":scheme", "http"), (":authority", "a"), (":path", "/talk")]
        )
        for word in (b"one", b"two"):
            await stream.body(word, end=False)
            heard = await stream.next()
            if word == b"one":
                assert heard.kind == "Headers"
                heard = await stream.next()
            assert heard.frame.data == word
        stream.end()
        assert (await stream.next()).ended


@pytest.mark.parametrize("server", SERVERS)
async def test_a_torn_answer_looks_torn(mesh: Mesh, server: str) -> None:
    """A server that gives up inside a body: a reset in HTTP/2, no last chunk in HTTP/1.1."""
    _, services = unless_missing(mesh, server)
    async with http2_client(services.doors[server]) as client:
        answer = await client.ask(
            [(":method", "GET"), (":scheme", "http"), (":authority", "a"), (":path", "/torn")]
        ).message()
        assert answer.body in (b"half", b"")
        assert answer.reset is not None
    async with connect(services.doors[server]) as old:
        await old.send(b"GET /torn HTTP/1.1\r\nHost: a\r\n\r\n")
        with pytest.raises((asyncio.IncompleteReadError, ConnectionError)):
            async with asyncio.timeout(10):
                await old.reader.readuntil(b"0\r\n\r\n")


@pytest.mark.parametrize("server", SERVERS)
async def test_expectations_are_met(mesh: Mesh, server: str) -> None:
    """`100 Continue` is the server's word, not ours: it comes when the server says it."""
    _, services = unless_missing(mesh, server)
    if server == "node-http2":
        pytest.skip("node's http2 says 100 only through its compatibility layer")
    async with connect(services.doors[server]) as client:
        await client.send(
            b"POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n"
        )
        assert (await client.head()).status == 100
        await client.send(b"hello")
        answer = await client.response()
        assert json.loads(answer.body)["body"] == hashlib.sha256(b"hello").hexdigest()


@pytest.mark.parametrize("server", SERVERS)
async def test_a_client_may_close_its_half(mesh: Mesh, server: str, tmp_path: Path) -> None:
    """
    Where that is what clients do, FIN after the request is no cancellation: the answer comes in full,
    then the connection ends.
    """
    _, services = unless_missing(mesh, server)
    async with connect(services.doors[server]) as client:
        await client.send(
            b"POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nConnection: close\r\n\r\nhello"
        )
        client.writer.write_eof()
        answer = await client.response()
        assert json.loads(answer.body)["body"] == hashlib.sha256(b"hello").hexdigest()
        assert await client.rest() == b""


async def test_trailers_stay_with_their_request(mesh: Mesh) -> None:
    """
    aiohttp 3.14 takes the last trailer line of a request for the first header field of the next
    request on its connection, which here is another client's.
    """
    _, services = mesh
    async with connect(services.doors["aiohttp"]) as one, connect(services.doors["aiohttp"]) as two:
        await one.send(
            b"POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
            b"3\r\nabc\r\n0\r\nX-Late: a\r\nX-User: somebody else\r\n\r\n"
        )
        assert (await one.response()).status == 203
        await two.send(b"GET /echo HTTP/1.1\r\nHost: a\r\n\r\n")
        names = [name.lower() for name, _ in json.loads((await two.response()).body)["fields"]]
        assert names == ["host", "x-forwarded-client-cert"]
