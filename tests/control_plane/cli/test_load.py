"""A steady load of requests and an honest count."""

import asyncio
from collections.abc import AsyncIterator

import pytest
from aiohttp import ClientSession, web
from aiohttp.test_utils import TestServer

from control_plane.cli.load import Load
from tests.control_plane.cli.local.children import eventually


class Site:
    """A server that gives the answers of a list, the last one for ever."""

    def __init__(self) -> None:
        self.answers = [(200, b"right")]
        app = web.Application()
        app.router.add_get("/", self.answer)
        self.server = TestServer(app)

    async def answer(self, _request: web.Request) -> web.Response:
        status, body = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        return web.Response(status=status, body=body)

    def load(self, rate: float = 500) -> Load:
        return Load(str(self.server.make_url("/")), rate, lambda body: body == b"right", workers=2)


@pytest.fixture
async def site() -> AsyncIterator[Site]:
    site = Site()
    await site.server.start_server()
    yield site
    await site.server.close()


async def test_everything_is_counted(site: Site) -> None:
    """Right answers, wrong statuses and wrong bodies, each once."""
    site.answers = [(503, b"no"), (200, b"wrong"), (200, b"right")]
    load = site.load()
    running = asyncio.create_task(load.run())
    await eventually(lambda: load.answered >= 5)
    load.stop()
    await running

    assert load.failures == {"503 no": 1, "200 with a body that is not the storefront's": 1}
    assert load.requests == load.answered + 2
    p50 = load.latency(0.5)
    assert p50 is not None
    assert 0 < p50 < 5


async def test_nobody_there_is_a_failure(site: Site) -> None:
    """Not an exception."""
    load = site.load()
    await site.server.close()

    async with ClientSession() as session:
        problem = await load.once(session)

    assert problem is not None
    assert "Cannot connect" in problem
    assert load.latency(0.5) is None


async def test_the_rate_is_kept(site: Site) -> None:
    """Never more than was asked for, whatever the server could do."""
    load = site.load(rate=40)
    loop = asyncio.get_running_loop()
    began = loop.time()
    running = asyncio.create_task(load.run())
    await eventually(lambda: load.answered >= 8)
    load.stop()
    await running

    assert load.answered <= 40 * (loop.time() - began) + 2
