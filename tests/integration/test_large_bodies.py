"""Large bodies between two sidecars: over connections of their own, whole, and through a restart."""

import hashlib
from pathlib import Path
from typing import Any

import pytest

from tests.helpers.client import connect
from tests.helpers.environment import until
from tests.helpers.origin import Conversation, hello, origin
from tests.helpers.pair import Pair

pytestmark = pytest.mark.integration

LARGE = bytes(range(256)) * 4096
"""One MiB."""


async def store(conversation: Conversation) -> None:
    """Answer with a digest of what came, or send much."""
    method, path, _ = conversation.request_line.split()
    if method == b"POST":
        digest = hashlib.sha256(await conversation.body()).hexdigest().encode()
        await conversation.send(b"HTTP/1.1 200 OK\r\nContent-Length: 64\r\n\r\n" + digest)
    elif path == b"/large":
        head = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(LARGE)
        await conversation.send(head + LARGE)
    else:
        await hello(conversation)


def bulk(pair: Pair) -> dict[str, int]:
    """Return what A says of its connections for large bodies."""
    [cluster] = pair.a.get("/clusters")
    [endpoint] = cluster["endpoints"]
    told: dict[str, Any] = endpoint.get("bulk", {"connections": 0, "idle": 0})
    return told


async def test_large_bodies_have_a_connection_of_their_own(tmp_path: Path) -> None:
    """Uploads from the second on, downloads from the third; what is small never."""
    digest = hashlib.sha256(LARGE).hexdigest().encode()
    request = b"POST / HTTP/1.1\r\nHost: catalog\r\nContent-Length: %d\r\n\r\n" % len(LARGE)
    async with origin(store) as app:
        with Pair(tmp_path, app.port) as pair:
            async with connect(pair.door) as client:

                async def ask(data: bytes) -> bytes:
                    await client.send(data)
                    response = await client.response()
                    assert response.status == 200
                    return response.body

                for _ in range(3):
                    await ask(b"GET / HTTP/1.1\r\nHost: catalog\r\n\r\n")
                assert bulk(pair)["connections"] == 0
                assert await ask(request + LARGE) == digest
                await until(lambda: bulk(pair)["idle"] == 1)
                for _ in range(3):
                    assert await ask(request + LARGE) == digest
                for _ in range(3):
                    assert await ask(b"GET /large HTTP/1.1\r\nHost: catalog\r\n\r\n") == LARGE
                assert bulk(pair)["connections"] == 1
                told = pair.b.metrics()
    # Both ways count as what they are at the door of B.
    assert 'protocol="http"' in told
    assert 'protocol="http2"' in told


async def test_a_restart_of_the_other_end_tears_no_large_body(tmp_path: Path) -> None:
    """Connections that rest are left alone while it drains, and the next bodies go to its successor."""
    digest = hashlib.sha256(LARGE).hexdigest().encode()
    request = b"POST / HTTP/1.1\r\nHost: catalog\r\nContent-Length: %d\r\n\r\n" % len(LARGE)
    async with origin(store) as app:
        with Pair(tmp_path, app.port) as pair:
            async with connect(pair.door) as client:
                for turn in range(12):
                    await client.send(request + LARGE)
                    response = await client.response()
                    assert (response.status, response.body) == (200, digest), turn
                    if turn == 0:
                        await until(lambda: bulk(pair)["idle"] == 1)
                    elif turn == 4:
                        pair.b.restart()
