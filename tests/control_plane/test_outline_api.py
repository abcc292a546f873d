"""The outline over HTTP."""

from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer

from control_plane.outline import Outline, outline
from control_plane.outline_api import OutlineApi
from meshproxy.contract import wire
from tests.helpers.mesh import service, state, workload


async def test_what_is_answered_reads_back_as_the_outline() -> None:
    """As `meshctl` reads it."""
    mesh = state(workload("catalog"), service("catalog"))
    app = web.Application()
    OutlineApi(lambda: mesh).add_routes(app.router)
    async with TestClient(TestServer(app)) as client:
        answer = await client.get("/api/v1/outline")
        assert wire.decode(await answer.read(), Outline) == outline(mesh)
