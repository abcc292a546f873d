"""How the API answers: JSON, and of what went wrong a status and one sentence."""

from typing import Any

from aiohttp import web

from meshproxy.contract import wire


def say(value: Any, status: int = 200) -> web.Response:
    """Return a value as JSON."""
    return web.Response(status=status, body=wire.encode(value), content_type="application/json")


def refuse(status: int, sentence: str) -> web.Response:
    """Return what went wrong."""
    return say({"error": sentence}, status)
