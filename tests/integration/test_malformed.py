"""
Answers that come when nobody has asked, against a real sidecar.

What is malformed in itself is a vector: `tests/conformance/vectors/`.  Here stands what needs time.
"""

import asyncio
import contextlib
from pathlib import Path

import pytest

from tests.conformance.sidecar import sidecar_before
from tests.helpers.client import get
from tests.helpers.origin import Conversation, origin
from tests.helpers.pair import Sidecar

pytestmark = pytest.mark.integration


@pytest.mark.parametrize("later", [False, True])
async def test_what_was_not_asked_for_answers_nobody(tmp_path: Path, later: bool) -> None:
    """Bytes behind an answer, at once or while the connection rests, are not the next answer."""

    async def poisons(conversation: Conversation) -> None:
        poison = b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\npoison"
        answer = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
        await conversation.send(answer if later else answer + poison)
        if later:
            await asyncio.sleep(0.02)
            with contextlib.suppress(ConnectionError):
                await conversation.send(poison)

    async with origin(poisons) as app:
        sidecar, port = sidecar_before(tmp_path, app.port)
        await asyncio.to_thread(sidecar.start)
        try:
            for _ in range(10):
                response = await get(port)
                assert (response.status, response.body) == (200, b"ok")
                if later:
                    await _closed(sidecar)
            assert app.connections == 10
        finally:
            await asyncio.to_thread(sidecar.__exit__)


async def _closed(sidecar: Sidecar) -> None:
    """Wait until the sidecar has closed its connection to the app."""
    async with asyncio.timeout(10):
        while True:
            [cluster] = await asyncio.to_thread(sidecar.get, "/clusters")
            if cluster["endpoints"][0]["connections"] == 0:
                return
            await asyncio.sleep(0.01)
