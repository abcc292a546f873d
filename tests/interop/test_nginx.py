"""nginx behind two real sidecars, as the app of many, and before them, as one more proxy."""

import asyncio
import gzip
import os
import re
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest
import pytest_asyncio

from tests.helpers.client import Response, connect, get
from tests.helpers.http2 import GET
from tests.helpers.http2_peers import http2_client
from tests.helpers.ports import free_port
from tests.helpers.programs import found, listening, needs, output_of, running
from tests.helpers.services import Service, Services
from tests.interop.witness import BODY, Message, Pairs, Witness, sha, witness

pytestmark = [
    pytest.mark.integration,
    pytest.mark.asyncio(loop_scope="module"),
    needs("nginx"),
]

TEXT = b"".join(b"%d: a line of a text\n" % number for number in range(10_000))

# As an app: static files, compression, limits.  As a client: `proxy_pass` in its two versions of
# HTTP/1 and `grpc_pass` for HTTP/2, each to the app itself and to the door of the mesh.
CONFIGURATION = """
daemon off;
worker_processes 1;
pid {directory}/nginx.pid;
error_log stderr warn;
events {{ worker_connections 512; }}
http {{
  access_log off;
  client_body_temp_path {directory}/t1; proxy_temp_path {directory}/t2;
  fastcgi_temp_path {directory}/t3; uwsgi_temp_path {directory}/t4; scgi_temp_path {directory}/t5;
  types {{ text/plain txt; }}
  default_type application/octet-stream;
  server {{
    listen 127.0.0.1:{http1};
    listen 127.0.0.1:{http2} http2;
    root {directory}/files;
    client_max_body_size 1m;
    gzip on; gzip_types text/plain; gzip_http_version 1.0;
    add_header X-Connection $connection always;
    add_header X-Many one; add_header X-Many two;
    location = /small {{ return 200 $request_length; }}
    location = /upload {{ proxy_pass http://127.0.0.1:{http1}/small; }}
    location = /moved {{ return 301 /text.txt; }}
  }}
  {proxies}
}}
"""
PROXY = """
  server {{
    listen 127.0.0.1:{listen};
    location / {{
      proxy_pass http://127.0.0.1:{to};
      proxy_pass_header Date; proxy_pass_header Server;
    }}
  }}
"""
KEEPING = """
  server {{
    listen 127.0.0.1:{listen};
    location / {{
      proxy_pass http://to_{listen};
      proxy_http_version 1.1;
      proxy_set_header Connection "";
      proxy_request_buffering off; proxy_buffering off;
    }}
  }}
  upstream to_{listen} {{ server 127.0.0.1:{to}; keepalive 4; }}
"""
GRPC = """
  server {{
    listen 127.0.0.1:{listen} http2;
    location / {{ grpc_pass grpc://127.0.0.1:{to}; }}
  }}
"""
WAYS = {"HTTP/1.0": PROXY, "HTTP/1.1": KEEPING, "HTTP/2": GRPC}


@dataclass
class Mesh:
    """
    Attributes:
        straight, through: By way, where nginx passes requests on to the witness, and to the mesh.
    """

    services: Services
    witness: Witness
    straight: dict[str, int]
    through: dict[str, int]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def mesh(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Mesh]:
    directory = tmp_path_factory.mktemp("nginx")
    (directory / "files").mkdir()
    (directory / "files" / "text.txt").write_bytes(TEXT)
    (directory / "files" / "data").write_bytes(BODY)
    if os.getuid() == 0:  # its worker is nobody
        for folder in (directory, *directory.parents):
            if folder.name.startswith(("pytest-", "popen-")) or folder == directory:
                folder.chmod(0o755)
    async with AsyncExitStack() as stack:
        it = await stack.enter_async_context(witness())
        http1, http2 = free_port(), free_port()
        services = Services(
            directory,
            [
                Service("http1", http1),
                Service("http1-plain", http1, plaintext=True),
                Service("http2", http2, "http2"),
                Service("witness", it.ports["http1"]),
                Service("witness2", it.ports["http2"], "http2"),
            ],
        )
        straight = {way: free_port() for way in WAYS}
        through = {way: free_port() for way in WAYS}
        proxies = ""
        for way, text in WAYS.items():
            app, door = ("http2", "witness2") if way == "HTTP/2" else ("http1", "witness")
            proxies += text.format(listen=straight[way], to=it.ports[app])
            proxies += text.format(listen=through[way], to=services.doors[door])
        configuration = directory / "nginx.conf"
        configuration.write_text(
            CONFIGURATION.format(
                directory=directory, http1=http1, http2=http2, proxies=proxies,
            )
        )  # fmt: skip
        await asyncio.to_thread(stack.enter_context, services)
        nginx = running(
            found("nginx"), "-p", directory, "-c", configuration,
            log=directory / "nginx.log", ready=listening(through["HTTP/2"]),
        )  # fmt: skip
        await asyncio.to_thread(stack.enter_context, nginx)
        yield Mesh(services, it, straight, through)


# As the app ---------------------------------------------------------------------------------------


APPS = ["http1", "http1-plain", "http2"]


@pytest.mark.parametrize("app", APPS)
async def test_files(mesh: Mesh, app: str) -> None:
    """Whole, by range, by several ranges, only the head, unchanged since, moved, missing."""
    port = mesh.services.doors[app]
    whole = await get(port, "/data")
    assert (whole.status, sha(whole.body)) == (200, sha(BODY))
    assert re.findall(rb"x-many: (\w+)", whole.head.lower()) == [b"one", b"two"]
    tag = whole.header("etag")
    assert tag is not None
    part = await get(port, "/data", extra="Range: bytes=100-199\r\n")
    assert (part.status, part.header("content-range")) == (206, "bytes 100-199/300000")
    assert part.body == BODY[100:200]
    parts = await get(port, "/data", extra="Range: bytes=0-9,-10\r\n")
    assert (parts.status, parts.body.count(b"Content-Range: ")) == (206, 2)
    assert BODY[:10] in parts.body
    assert BODY[-10:] in parts.body
    beyond = await get(port, "/data", extra="Range: bytes=300000-\r\n")
    assert (beyond.status, beyond.header("content-range")) == (416, "bytes */300000")
    same = await get(port, "/data", extra=f"If-None-Match: {tag}\r\n")
    assert (same.status, same.header("etag"), same.body) == (304, tag, b"")
    # An absolute Location names the port that nginx listens on; it is the app's word.
    assert (await get(port, "/moved")).status == 301
    assert (await get(port, "/missing")).status == 404
    async with connect(port) as client:
        for _ in range(2):
            await client.send(b"HEAD /data HTTP/1.1\r\nHost: a\r\n\r\n")
            head = await client.response(method="HEAD")
            assert (head.status, head.header("content-length")) == (200, "300000")


@pytest.mark.parametrize("app", APPS)
async def test_compression(mesh: Mesh, app: str) -> None:
    """What nginx compresses on the way out, in chunks, is not touched."""
    answer = await get(mesh.services.doors[app], "/text.txt", extra="Accept-Encoding: gzip\r\n")
    assert answer.header("content-encoding") == "gzip"
    assert answer.header("transfer-encoding") == "chunked"
    assert gzip.decompress(answer.body) == TEXT
    plain = await get(mesh.services.doors[app], "/text.txt")
    assert (plain.header("content-encoding"), plain.body) == (None, TEXT)


@pytest.mark.parametrize("app", APPS)
async def test_connections_are_kept(mesh: Mesh, app: str) -> None:
    """Twenty requests of one client, and twenty of twenty, reach nginx over one connection."""
    port = mesh.services.doors[app]
    seen = set()
    async with connect(port) as client:
        for _ in range(20):
            await client.send(b"GET /small HTTP/1.1\r\nHost: a\r\n\r\n")
            seen.add((await client.response()).header("x-connection"))
    for _ in range(20):
        seen.add((await get(port, "/small")).header("x-connection"))
    assert len(seen) == 1


@pytest.mark.parametrize("app", APPS)
async def test_expectations_and_limits(mesh: Mesh, app: str) -> None:
    """100 before a body that nginx takes, 413 instead of it before one that it does not."""
    port = mesh.services.doors[app]

    async def upload(size: int) -> Response:
        async with connect(port) as client:
            head = "POST /upload HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\n"
            await client.send(f"{head}Content-Length: {size}\r\n\r\n".encode())
            first = await client.head()
            if first.status == 100:
                await client.send(b"x" * size)
                return await client.response()
            return first

    if app != "http2":  # there nginx 1.22 says nothing before it has the body
        assert (await upload(1_000_000)).status == 200
    assert (await upload(2_000_000)).status == 413
    async with connect(port) as client:
        await client.send(b"POST /upload HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n")
        await client.send(b"%x\r\n%b\r\n0\r\n\r\n" % (len(BODY), BODY))
        assert (await client.response()).status == 200


@needs("curl")
@pytest.mark.parametrize("app", APPS)
@pytest.mark.parametrize("version", ["--http1.0", "--http1.1", "--http2-prior-knowledge"])
async def test_curl(mesh: Mesh, app: str, version: str, tmp_path: Path) -> None:
    """A resumed, compressed and an ordinary download, and an upload with `Expect`."""
    url = mesh.services.url(app)
    out = tmp_path / "out"
    out.write_bytes(BODY[:1234])
    await output_of("curl", "-sSf", version, "-C", "-", "-o", out, url + "data")
    assert out.read_bytes() == BODY
    await output_of("curl", "-sSf", version, "--compressed", "-o", out, url + "text.txt")
    assert out.read_bytes() == TEXT
    await output_of("curl", "-sSf", version, "--expect100-timeout", "0.1", "-H", "Expect: 100-continue", "-d", f"@{out}", "-o", tmp_path / "answer", url + "upload")  # fmt: skip


# As a client --------------------------------------------------------------------------------------


async def pass_on(way: str, port: int, it: Witness, body: bytes) -> tuple[Message, Message]:
    """Send a request by nginx; return what comes back, and what the app has seen."""
    it.seen.clear()
    fields: Pairs = [("x-many", "one"), ("x-many", "two, three"), ("x-case", "Kept")]
    if way == "HTTP/2":
        async with http2_client(port) as client:
            method = "POST" if body else "GET"
            stream = client.ask([(":method", method), *GET[1:], *fields], end=not body)
            if body:
                await stream.body(body)
            answer = await stream.message()
            assert answer.reset is None
            told = Message(answer.status or "", answer.headers, sha(answer.body), answer.trailers)
    else:
        async with connect(port) as client:
            head = "".join(f"{name}: {value}\r\n" for name, value in fields)
            method, length = "GET", ""
            if body:
                method, length = "POST", f"Content-Length: {len(body)}\r\n"
            head = f"{method} / HTTP/1.1\r\nHost: catalog\r\n{head}{length}\r\n"
            await client.send(head.encode() + body)
            response = await client.response()
            parts = [line.partition(": ") for line in response.head.decode().split("\r\n")[1:-2]]
            told = Message(
                str(response.status), [(n, v) for n, _, v in parts], sha(response.body), None
            )
    [seen] = it.seen
    return told.travelled(spelling=False), seen.travelled(spelling=False)


@pytest.mark.parametrize("body", [b"", BODY], ids=["GET", "POST"])
@pytest.mark.parametrize("way", WAYS)
async def test_nginx_passes_requests_on(mesh: Mesh, way: str, body: bytes) -> None:
    """In HTTP/1.0, in HTTP/1.1 over kept connections, and in HTTP/2: as without a mesh."""
    for _ in range(3):
        straight = await pass_on(way, mesh.straight[way], mesh.witness, body)
        through = await pass_on(way, mesh.through[way], mesh.witness, body)
        assert [_dateless(m) for m in through] == [_dateless(m) for m in straight]


def _dateless(message: Message) -> Message:
    fields = [(name, value) for name, value in message.fields if name != "date"]
    return Message(message.what, fields, message.body, message.trailers)
