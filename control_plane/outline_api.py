"""
The API's part for `meshctl authz check` and `meshctl explain`: which names mean whom.

    GET /api/v1/outline
"""

from collections.abc import Callable

from aiohttp import web

from . import answers
from .outline import outline
from .store import State


class OutlineApi:
    """Answers from the state in force."""

    def __init__(self, state: Callable[[], State]) -> None:
        self._state = state

    def add_routes(self, router: web.UrlDispatcher) -> None:
        router.add_get("/api/v1/outline", self._outline)

    async def _outline(self, _request: web.Request) -> web.Response:
        return answers.say(outline(self._state()))
