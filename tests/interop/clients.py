"""
HTTP clients that people use: each asks the same five things and tells what it has heard.

A client is a function of a URL; `POST`, `GET`, `HEAD`, a 204 and a 304, in this order.
"""

import asyncio
import http.client
import json
import re
from collections.abc import Awaitable, Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from urllib.parse import urlsplit

import aiohttp
import httpx

from tests.helpers.programs import output_of
from tests.interop.witness import BODY, FIELDS, Message, Pairs, sha

Ask = Callable[[str], Awaitable[list[Message]]]

NODE = Path(__file__).parent / "node"

ASKED: list[tuple[str, str, Pairs, bytes]] = [
    ("POST", "/echo?a=b%20c&d=%C3%A9", [], BODY),
    ("GET", "/echo//x/./y;z", [], b""),
    ("HEAD", "/echo", [], b""),
    ("GET", "/none", [], b""),
    ("GET", "/cached", [("If-None-Match", '"v1"')], b""),
]


def curl(*options: str) -> Ask:
    async def ask(url: str) -> list[Message]:
        with TemporaryDirectory() as folder:
            return [await _curl(url, Path(folder), options, *asked) for asked in ASKED]

    return ask


async def _curl(
    url: str, folder: Path, options: tuple[str, ...], method: str, path: str, extra: Pairs,
    body: bytes,
) -> Message:  # fmt: skip
    command: list[str | Path] = ["curl", "-sS", *options, "--path-as-is"]
    command += ["-D", folder / "heads", "-o", folder / "b"]
    command += ["-I"] if method == "HEAD" else ["-X", method]
    for name, value in FIELDS + extra:
        command += ["-H", f"{name}: {value}" if value else f"{name};"]
    if body:
        (folder / "up").write_bytes(body)
        command += ["-H", "Content-Type: x/y", "--data-binary", f"@{folder / 'up'}"]
    (folder / "b").write_bytes(b"")
    await output_of(*command, url + path)
    # A block for each head; trailers come behind the last one.
    blocks = (folder / "heads").read_text("latin-1").replace("\r\n", "\n").strip("\n").split("\n\n")
    head, *rest = blocks[0].split("\n"), *blocks[1:]
    trailers = _split(rest[0].split("\n")) if rest else []
    data = b"" if method == "HEAD" else (folder / "b").read_bytes()
    return Message(head[0].split(" ")[1], _split(head[1:]), sha(data), trailers)


def _split(lines: list[str]) -> Pairs:
    return [(name, value.strip()) for name, _, value in (line.partition(":") for line in lines)]


async def nghttp(url: str) -> list[Message]:
    """It prints header fields of responses as they come, and then the frame they were in."""
    with TemporaryDirectory() as folder:
        upload = Path(folder) / "up"
        upload.write_bytes(BODY)
        told = []
        for method, path, extra, body in ASKED:
            command = ["nghttp", "-v", "-n", "-H", f":method: {method}"]
            for name, value in FIELDS + extra:
                # It takes no field without a value.
                command += ["-H", f"{name}: {value}"] if value else []
            command += ["-d", str(upload)] if body else []
            printed = await output_of(*command, url + path)
            told.append(_read_nghttp(printed))
        return told


def _read_nghttp(printed: str) -> Message:
    sections: list[Pairs] = [[]]
    for line in printed.splitlines():
        if found := re.search(r"recv \(stream_id=\d+\) (:?[^:]+): ?(.*)$", line):
            sections[-1].append((found[1], found[2]))
        elif "recv HEADERS frame" in line:
            sections.append([])
    head, trailers = sections[0], sections[1]
    return Message(dict(head)[":status"], head, None, trailers)


async def python(url: str) -> list[Message]:
    """`http.client`, as old as the Web."""

    def ask() -> list[Message]:
        connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=20)
        told = []
        for method, path, extra, body in ASKED:
            connection.putrequest(method, path)
            for name, value in FIELDS + extra:
                connection.putheader(name, value)
            if body:
                connection.putheader("Content-Length", str(len(body)))
            connection.endheaders(body or None)
            response = connection.getresponse()
            fields = [(n, v) for n, v in response.headers.raw_items()]
            told.append(Message(str(response.status), fields, sha(response.read()), None))
        connection.close()
        return told

    return await asyncio.to_thread(ask)


async def of_aiohttp(url: str) -> list[Message]:
    told = []
    async with aiohttp.ClientSession(requote_redirect_url=False) as session:
        for method, path, extra, body in ASKED:
            options: dict[str, Any] = {"headers": FIELDS + extra, "allow_redirects": False}
            async with session.request(method, url + path, data=body or None, **options) as it:
                fields = [(n.decode("latin-1"), v.decode("latin-1")) for n, v in it.raw_headers]
                told.append(Message(str(it.status), fields, sha(await it.read()), None))
    return told


def of_httpx(*, http2: bool) -> Ask:
    async def ask(url: str) -> list[Message]:
        told = []
        async with httpx.AsyncClient(
            http1=not http2, http2=http2, trust_env=False, timeout=20
        ) as client:
            for method, path, extra, body in ASKED:
                it = await client.request(
                    method, url + path, headers=FIELDS + extra, content=body or None
                )
                fields = [(n.decode("latin-1"), v.decode("latin-1")) for n, v in it.headers.raw]
                told.append(Message(str(it.status_code), fields, sha(it.content), None))
        return told

    return ask


def node(module: str) -> Ask:
    async def ask(url: str) -> list[Message]:
        with TemporaryDirectory() as folder:
            upload = Path(folder) / "up"
            upload.write_bytes(BODY)
            asked = json.dumps([[m, p, FIELDS + e, bool(body)] for m, p, e, body in ASKED])
            printed = await output_of("node", NODE / f"client_{module}.mjs", url, asked, upload)
        return [
            Message(
                str(it["status"]), [(n, v) for n, v in it["fields"]], it["body"],
                [(n, v) for n, v in it["trailers"]],
            )
            for it in json.loads(printed)
        ]  # fmt: skip

    return ask
