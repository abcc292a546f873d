"""
Traffic for the compiler to learn from: the ways that nearly every request takes, and how often.

    python -m bench.training

`deploy/compiled.py` has it run on a build that counts, and then has the compiler lay out the code
by what was counted: what is used together lies together, and what is used once in a million requests
(every refusal, every error) is out of the way.  So it must have everything in it that is to be fast:
requests of both protocols, with all policies and with none, one at a time and many; bodies; opaque
connections; handshakes.  It needs no program but Python.
"""

import asyncio
import sys
import tempfile
from pathlib import Path
from typing import Final

import uvloop

from . import inproc, load
from .clients import LoadError, ours
from .peers import Running, start_pair, start_single
from .peers.ours import Ours
from .process import StartError
from .site import ADDRESSES, Service, Site, accepts

REQUESTS: Final = 1600
"""Of each kind, in memory."""

SECONDS: Final = 1.0
"""Of each kind, with processes."""

CONNECTIONS: Final = 16
BODY: Final = 1 << 20


async def in_memory(requests: int = REQUESTS) -> None:
    """Send requests of each protocol through the parts of one sidecar and of two."""
    for path in (inproc.HOP, inproc.PAIR, inproc.GRPC):
        for batch in inproc.BATCHES:
            for everything in (False, True):
                with tempfile.TemporaryDirectory(prefix="meshproxy-training-") as folder:
                    course = inproc.Course(path, batch, Path(folder), everything=everything)
                    await asyncio.sleep(0)
                    await course.greet()
                    await course.run(max(1, requests // batch))
                    course.check()
                    course.close()


def with_processes(seconds: float = SECONDS) -> None:
    """Send requests, bodies and opaque connections through sidecars that run."""
    with tempfile.TemporaryDirectory(prefix="meshproxy-training-") as folder, Site(Path(folder)) as site:  # fmt: skip
        _start_apps(site)
        single = start_single(Ours(), site, "single")
        pair = start_pair(Ours(), site, "pair")
        for running in (single, pair):
            for size in (100, 1024):
                _requests(running, "web", size, 1, seconds)
                _requests(running, "web", size, CONNECTIONS, seconds)
        _requests(pair, "bulk", BODY, CONNECTIONS // 2, seconds)
        uvloop.run(_uploads(pair.services["bulk"], CONNECTIONS // 2, seconds))
        for what in ("up", "down", "connect", "ping"):
            for connections in (1, CONNECTIONS):
                entry = pair.services["tcp"].entry
                ours("tcp", what, entry, connections, seconds, seconds=seconds)
        ours(
            "handshakes", pair.services["web"].between, site.a.certificate, site.a.key, site.root,
            pair.peer.alpn, CONNECTIONS, seconds, seconds=seconds,
        )  # fmt: skip


def _start_apps(site: Site) -> None:
    http, tcp = site.ports.free(ADDRESSES), site.ports.free(ADDRESSES)
    origin = site.python("origin", site.subfolder("apps"), "bench.origin", str(http), str(tcp))
    for port in (http, tcp):
        origin.until(f"port {port} answers", lambda port=port: accepts(port))  # type: ignore[misc]
    site.services = (
        Service("web", "http1", http), Service("bulk", "http1", http), Service("tcp", "tcp", tcp),
    )  # fmt: skip


def _requests(running: Running, service: str, size: int, connections: int, seconds: float) -> None:
    to = running.services[service]
    found = uvloop.run(load.call(to.url(size), to.host, connections, seconds))
    if found.failed:
        raise LoadError(f"{found.failed} of {found.requests} requests to {service} have failed")


async def _uploads(to: Service, connections: int, seconds: float) -> None:
    """Send bodies, as many as are taken in `seconds`."""
    until = asyncio.get_running_loop().time() + seconds
    head = f"POST {to.path('upload')} HTTP/1.1\r\nHost: {to.host}\r\nContent-Length: {BODY}\r\n\r\n"

    async def one_after_another() -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", to.entry)
        while asyncio.get_running_loop().time() < until:
            writer.write(head.encode() + bytes(BODY))
            await writer.drain()
            answer = await reader.readuntil(b"\r\n\r\n")
            if not answer.startswith(b"HTTP/1.1 204 "):
                raise LoadError(f"an upload was answered {answer[:40]!r}")
        writer.close()
        await writer.wait_closed()

    await asyncio.gather(*(one_after_another() for _ in range(connections)))


def main() -> None:
    uvloop.run(in_memory())
    with_processes()


if __name__ == "__main__":
    try:
        main()
    except (LoadError, StartError) as error:
        sys.exit(f"bench.training: {error}")
