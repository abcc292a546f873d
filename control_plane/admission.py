"""
A port that strangers can reach: who asks for nothing on it is let go.

aiohttp limits the time between two requests of a connection but not the time before the first,
and asyncio grants a TLS handshake a minute.  Without an end to both, anybody, certificate or none,
could take all descriptors of the control plane and keep proxies from their configuration
(slowloris).

Nor may there be many: the oldest connection goes when there are too many, whatever it is doing.
What honest ones want here takes milliseconds (a certificate for a token, an answer for an
operator), so they seldom are the oldest.  Only the discovery streams of proxies are for long, and
of those there is one for each workload: they do not count, once they are known (`know`).

Nor do strangers fill the log: aiohttp writes a traceback for every request that it cannot read.
Those are answered with 400 and not written down; mistakes of ours still are.
"""

import asyncio
import logging
import resource
import socket
import ssl
from collections.abc import Callable
from contextlib import suppress
from typing import Final

from aiohttp import web
from aiohttp.http import HttpProcessingError
from aiohttp.typedefs import Handler

from .config import Listen

FIRST_REQUEST_WITHIN = 10.0
"""Seconds for a TLS handshake, and as many from accept to the end of the first request's head."""

MOST_STRANGERS: Final = 256
"""Connections to one port that are no discovery streams; then the oldest goes."""

BATCH: Final = 64
"""Connections that are accepted before others have their turn."""

PAUSE: Final = 0.1
"""Seconds without accepting, when there are no descriptors left."""

log = logging.getLogger(__name__)

_Connection = web.RequestHandler


class Admission:
    """Opens a port for one application, and closes connections that ask for nothing in time."""

    def __init__(self, within: float = FIRST_REQUEST_WITHIN, most: int | None = None) -> None:
        """
        Args:
            within: Seconds.
            most: Connections of strangers; by default `MOST_STRANGERS`, or a quarter of all.
        """
        self._within = within
        possible = resource.getrlimit(resource.RLIMIT_NOFILE)[0] // 4
        self._most = min(MOST_STRANGERS, possible) if most is None else most
        self._silent: dict[_Connection, Visit] = {}
        self._strangers: dict[_Connection, Visit] = {}  # the oldest first
        logging.getLogger("aiohttp.server").addFilter(_is_worth_a_record)

    @web.middleware
    async def heard(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Take note of the connections on which requests arrive."""
        self._silent.pop(request.protocol, None)
        return await handler(request)

    def know(self, transport: asyncio.BaseTransport) -> None:
        """Who is at the other end is no stranger any more: it may stay."""
        for connection, visit in self._strangers.items():
            if visit.transport is transport:
                del self._strangers[connection]
                return

    async def listen(
        self, server: web.Server, place: Listen, context: ssl.SSLContext | None
    ) -> "Port":
        """
        Accept connections for `server`.

        Raises:
            OSError: The address or port cannot be had.
        """
        loop = asyncio.get_running_loop()
        found = await loop.getaddrinfo(place.address, place.port, type=socket.SOCK_STREAM)
        family, _, _, _, address = found[0]
        listening = socket.create_server(address[:2], family=family, backlog=1024)
        return Port(listening, lambda sock: self._admit(server, sock, context))

    def _admit(
        self, server: web.Server, sock: socket.socket, context: ssl.SSLContext | None
    ) -> None:
        connection = server()
        self._strangers[connection] = self._silent[connection] = visit = Visit(sock)
        loop = asyncio.get_running_loop()
        visit.task = loop.create_task(self._meet(connection, visit, context))
        loop.call_later(self._within, self._look, connection)
        if len(self._strangers) > self._most:
            self._strangers = {key: one for key, one in self._strangers.items() if not one.over}
        if len(self._strangers) > self._most:
            self._strangers.pop(next(iter(self._strangers))).end()

    async def _meet(
        self, connection: _Connection, visit: "Visit", context: ssl.SSLContext | None
    ) -> None:
        loop = asyncio.get_running_loop()
        try:
            visit.transport, _ = await loop.connect_accepted_socket(
                lambda: connection,
                visit.sock,
                ssl=context,
                ssl_handshake_timeout=self._within if context else None,
            )
        except OSError:  # TLS errors are such, too: nothing of it is ours
            visit.sock.close()
            self._strangers.pop(connection, None)
            self._silent.pop(connection, None)
            return
        if visit.unwanted:
            visit.end()

    def _look(self, connection: _Connection) -> None:
        visit = self._silent.pop(connection, None)
        if visit is not None:
            visit.end()


class Visit:
    """
    A connection that is not known to be of use.

    Attributes:
        transport: None until the handshake, if there is one, is over.
        unwanted: It was to end before that.
    """

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.task: asyncio.Task[None] | None = None
        self.transport: asyncio.BaseTransport | None = None
        self.unwanted = False

    @property
    def over(self) -> bool:
        """It has ended."""
        if self.transport is None:
            return self.task is not None and self.task.done()
        return self.transport.is_closing()

    def end(self) -> None:
        """End it now."""
        self.unwanted = True
        if isinstance(self.transport, asyncio.WriteTransport):
            self.transport.abort()
        else:  # the handshake hears that there is nobody any more
            with suppress(OSError):
                self.sock.shutdown(socket.SHUT_RDWR)


class Port:
    """
    A listening socket; hands over what it accepts.

    Attributes:
        sockets: It, as of an `asyncio.Server`.
    """

    def __init__(self, listening: socket.socket, admit: Callable[[socket.socket], None]) -> None:
        self.sockets = (listening,)
        self._admit = admit
        self._loop = asyncio.get_running_loop()
        self._again: asyncio.TimerHandle | None = None
        listening.setblocking(False)
        self._open()

    def _open(self) -> None:
        self._again = None
        self._loop.add_reader(self.sockets[0], self._on_acceptable)

    def _on_acceptable(self) -> None:
        for _ in range(BATCH):
            try:
                sock, _ = self.sockets[0].accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as error:  # no descriptors are left: to ask again at once would not help
                log.warning("a connection could not be accepted: %s", error.strerror)
                self._loop.remove_reader(self.sockets[0])
                self._again = self._loop.call_later(PAUSE, self._open)
                return
            sock.setblocking(False)
            self._admit(sock)

    def close(self) -> None:
        """Accept no more."""
        if self._again is not None:
            self._again.cancel()
        else:
            self._loop.remove_reader(self.sockets[0])
        self.sockets[0].close()


def _is_worth_a_record(record: logging.LogRecord) -> bool:
    error = record.exc_info[1] if record.exc_info else None
    return not isinstance(error, HttpProcessingError)
