"""
HTTP clients that people use, through two real sidecars, before HTTP/1.1 apps and HTTP/2 apps.

Each client talks to an app directly and then through the mesh: both must have heard the same.
"""

import asyncio
import shutil
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest
import pytest_asyncio

from tests.helpers.client import connect
from tests.helpers.http2 import POST
from tests.helpers.http2_peers import http2_client
from tests.helpers.programs import needs, output_of
from tests.helpers.services import Service, Services
from tests.interop import clients
from tests.interop.clients import Ask
from tests.interop.witness import Message, Witness, witness

pytestmark = [pytest.mark.integration, pytest.mark.asyncio(loop_scope="module")]

HTTP1: dict[str, tuple[str, Ask]] = {
    "curl, HTTP/1.0": ("curl", clients.curl("--http1.0")),
    "curl, HTTP/1.1": ("curl", clients.curl("--http1.1")),
    "http.client": ("python", clients.python),
    "aiohttp": ("python", clients.of_aiohttp),
    "httpx, HTTP/1.1": ("python", clients.of_httpx(http2=False)),
    "node http": ("node", clients.node("http")),
}
HTTP2: dict[str, tuple[str, Ask]] = {
    "curl, HTTP/2": ("curl", clients.curl("--http2-prior-knowledge")),
    "nghttp": ("nghttp", clients.nghttp),
    "httpx, HTTP/2": ("python", clients.of_httpx(http2=True)),
    "node http2": ("node", clients.node("http2")),
}
PATHS = ["http1", "http2", "plain-http1", "plain-http2"]
"""What the app speaks; `plain` where the sidecars speak the same between them."""


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def mesh(
    tmp_path_factory: pytest.TempPathFactory,
) -> AsyncIterator[tuple[Services, Witness]]:
    async with witness() as it:
        http1, http2 = it.ports["http1"], it.ports["http2"]
        services = Services(
            tmp_path_factory.mktemp("mesh"),
            [
                Service("http1", http1),
                Service("http2", http2, "http2"),
                Service("plain-http1", http1, plaintext=True),
                Service("plain-http2", http2, "http2", plaintext=True),
            ],
        )
        await asyncio.to_thread(services.__enter__)
        yield services, it
        await asyncio.to_thread(services.__exit__)


async def heard(ask: Ask, url: str, it: Witness, *, spelling: bool) -> tuple[list[Message], ...]:
    """Return what the client and what the app have heard."""
    it.seen.clear()
    told = await ask(url)
    return [m.travelled(spelling=spelling) for m in told], [
        m.travelled(spelling=spelling) for m in it.seen
    ]


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("name", [*HTTP1, *HTTP2])
async def test_nobody_notices_the_mesh(
    mesh: tuple[Services, Witness], name: str, path: str
) -> None:
    """
    Targets, fields with their values, order and multiplicity, bodies, trailers and statuses
    arrive as they were sent, both ways; names keep their spelling where every leg is HTTP/1.1.
    """
    services, it = mesh
    program, ask = (HTTP1 | HTTP2)[name]
    if program != "python" and shutil.which(program) is None:
        pytest.skip(f"not installed: {program}")
    spelling = name in HTTP1 and path == "plain-http1"
    direct = f"http://127.0.0.1:{it.ports['http1' if name in HTTP1 else 'http2']}"
    expected, asked = await heard(ask, direct, it, spelling=spelling)
    if name == "curl, HTTP/1.0":  # has no chunks, so no trailers: those of the test's app are wrong
        expected = [replace(message, trailers=[]) for message in expected]
    told, seen = await heard(ask, services.url(path).removesuffix("/"), it, spelling=spelling)
    assert seen == asked
    assert told == expected


async def test_names_behind_http2_are_spelled_as_old_programs_expect(
    mesh: tuple[Services, Witness],
) -> None:
    """HTTP/2 has them in lower case; the apps and clients of HTTP/1.1 behind it never see that."""
    services, it = mesh
    it.seen.clear()
    async with http2_client(services.doors["http1"]) as client:
        fields = [("content-length", "3"), ("etag", '"v"'), ("x-many", "one"), ("cookie", "a=b")]
        stream = client.ask([*POST, *fields, ("sec-websocket-key", "x")], end=False)
        await stream.body(b"abc")
        assert (await stream.message()).status == "203"
    [seen] = it.seen
    names = ["Host", "ETag", "X-Many", "Cookie", "Sec-WebSocket-Key", "Content-Length"]
    assert [name for name, _ in seen.fields if name in names] == names
    async with connect(services.doors["http2"]) as old:
        await old.send(b"POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\nx")
        answer = await old.response()
    lines = answer.head.decode("latin-1").split("\r\n")[1:-2]
    assert [line.partition(":")[0] for line in lines] == [
        "X-Many", "Set-Cookie", "X-Camelcase", "X-Many", "X-Empty", "Set-Cookie",
        "X-Beyond-Ascii", "Content-Type", "Trailer", "Transfer-Encoding",
    ]  # fmt: skip
    assert answer.trailers.startswith(b"X-Sum: ")


@needs("h2load")
@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("options", [["--h1"], ["-m", "20"]], ids=["HTTP/1.1", "HTTP/2"])
async def test_h2load(
    mesh: tuple[Services, Witness], path: str, options: list[str], tmp_path: Path
) -> None:
    """500 uploads over 5 connections: all are answered, with all the bytes."""
    services, it = mesh
    it.seen.clear()
    upload = tmp_path / "upload"
    upload.write_bytes(b"x" * 2000)
    printed = await output_of(
        "h2load", "-n", "500", "-c", "5", *options, "-d", upload, services.url(path, "/echo")
    )
    assert "500 succeeded, 0 failed, 0 errored, 0 timeout" in printed
    assert len(it.seen) == 500
    assert len({message.body for message in it.seen}) == 1
