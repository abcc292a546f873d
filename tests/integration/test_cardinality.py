"""
Names that an attacker chooses must not become series that a proxy keeps for ever.

A proxy that has a series for each host, path or method it has seen is filled up by anybody who can
send requests, and so is the Prometheus that scrapes it.
"""

import asyncio
from pathlib import Path

import pytest

from tests.helpers.client import connect, get
from tests.helpers.door import Door
from tests.helpers.origin import hello, origin

pytestmark = pytest.mark.integration

BATCH = 250


async def attack(port: int, numbers: range, host: str) -> None:
    """Send requests with names that nobody has used before, a connection for each batch."""
    for start in numbers[::BATCH]:
        async with connect(port) as client:
            last = start + BATCH - 1
            await client.send(b"".join(request(n, host) for n in range(start, last)))
            await client.send(request(last, host, "Connection: close\r\n"))
            assert (await client.rest()).count(b"HTTP/1.1 ") == BATCH


def request(number: int, host: str, more: str = "") -> bytes:
    authority = host.format(number)
    return (
        f"M{number} http://{authority}/p{number}?q={number} HTTP/1.1\r\nHost: {authority}\r\n"
        f"User-Agent: agent-{number}\r\nX-{number}: {number}\r\n{more}\r\n"
    ).encode()


def series(metrics: str) -> int:
    return sum(not line.startswith("#") for line in metrics.splitlines())


async def test_100_000_names_make_no_series(tmp_path: Path) -> None:
    """Hosts, paths and methods of 34,000 requests: fewer than 2,000 series, and memory stays."""
    async with origin(hello) as app:
        made = Door(tmp_path, app.port)
        with made.sidecar as sidecar:

            async def wave(first: int, refused: int, answered: int) -> None:
                """What nobody knows is refused; of what the app answers, only the host is known."""
                await asyncio.gather(
                    attack(made.proxy, range(first, first + refused), "h{}.example.com"),
                    attack(made.port, range(first, first + answered), "catalog"),
                )

            await wave(0, 2_000, 500)
            before, memory = series(sidecar.metrics()), sidecar.rss()
            await wave(100_000, 32_000, 2_000)
            metrics = sidecar.metrics()
            assert series(metrics) <= before + 5 < 2_000
            assert sidecar.rss() < memory + (5 << 20)
            for name in ("example.com", "M100001", "p100001", "agent"):
                assert name not in metrics
            assert (await get(made.port)).status == 200
