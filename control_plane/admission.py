"""
A port that strangers can reach: who asks for nothing on it is let go.

aiohttp limits the time between two requests of a connection but not the time before the first,
and asyncio grants a TLS handshake a minute.  Without an end to both, anybody, certificate or none,
could take all descriptors of the control plane and keep proxies from their configuration
(slowloris).

Nor do strangers fill the log: aiohttp writes a traceback for every request that it cannot read.
Those are answered with 400 and not written down; mistakes of ours still are.
"""

import asyncio
import logging
import ssl

from aiohttp import web
from aiohttp.http import HttpProcessingError
from aiohttp.typedefs import Handler

from .config import Listen

FIRST_REQUEST_WITHIN = 10.0
"""Seconds for a TLS handshake, and as many from accept to the end of the first request's head."""

_Connection = web.RequestHandler


class Admission:
    """Opens a port for one application, and closes connections that ask for nothing in time."""

    def __init__(self, within: float = FIRST_REQUEST_WITHIN) -> None:
        self._within = within
        self._silent: set[_Connection] = set()
        logging.getLogger("aiohttp.server").addFilter(_is_worth_a_record)

    @web.middleware
    async def heard(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Take note of the connections on which requests arrive."""
        self._silent.discard(request.protocol)
        return await handler(request)

    async def listen(
        self, server: web.Server, place: Listen, context: ssl.SSLContext | None
    ) -> asyncio.Server:
        """
        Accept connections for `server`.

        Raises:
            OSError: The address or port cannot be had.
        """
        loop = asyncio.get_running_loop()

        def accept() -> _Connection:
            connection = server()
            self._silent.add(connection)
            loop.call_later(self._within, self._look, connection)
            return connection

        return await loop.create_server(
            accept,
            place.address,
            place.port,
            ssl=context,
            ssl_handshake_timeout=self._within if context else None,
            backlog=1024,
        )

    def _look(self, connection: _Connection) -> None:
        if connection in self._silent:
            self._silent.discard(connection)
            connection.force_close()


def _is_worth_a_record(record: logging.LogRecord) -> bool:
    error = record.exc_info[1] if record.exc_info else None
    return not isinstance(error, HttpProcessingError)
