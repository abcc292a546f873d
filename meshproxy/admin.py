"""
The admin pages: what an operator, a probe or Prometheus may ask one proxy.

    /metrics         Prometheus text format
    /healthz/live    200 while the process serves
    /healthz/ready   200 once there is a configuration (and a certificate, where one is needed)
    /config          the snapshot in force
    /clusters        clusters, endpoints, their connections
    /certs           the proxy's certificate and the roots it trusts: facts, never a key
    /denials?id=…    who was denied what and by which rule, by the id that the caller was told
    POST /drain      drain and end, as on SIGTERM; only where the bootstrap says `admin.drain`

Nothing else can be done here, and no page shows a key, a token or a secret.

Served by the same HTTP/1.1 codec and connection as traffic; a page is an exchange that answers at
once.  There is no password: whoever can connect may read, so it listens on loopback, or on a Unix
socket that is the proxy's own user's.  A browser can connect to loopback, too, on behalf of any web
page, so only addresses and `localhost` are accepted as Host (a page must not read through a name
that it made resolve to loopback: DNS rebinding), and requests of other origins not at all.
"""

import asyncio
import logging
import socket
from collections.abc import Callable, Sequence
from ipaddress import ip_address
from math import inf
from typing import Any, Final
from urllib.parse import parse_qs

from meshproxy import descriptors
from meshproxy.contract import wire
from meshproxy.downstream.http1 import Http1Connection
from meshproxy.downstream.tunnel import ClientTunnel
from meshproxy.flow import Connection, as_protocol
from meshproxy.message import TUNNEL, Fields, RequestHead, ResponseHead, field, value_of

log = logging.getLogger("meshproxy.admin")

PAUSE = 0.1
"""Seconds without accepting after that has failed."""

SWEEP = 5.0
"""Seconds between two looks at the visits' deadlines."""

Page = Callable[[], tuple[int, bytes]]
"""Makes a page: its status and body."""

Finding = Callable[[str], tuple[int, bytes]]
"""The same, of what has this id, or all without one."""

_TYPES: Final = {
    "json": field(b"Content-Type", b"application/json"),
    "text": field(b"Content-Type", b"text/plain; version=0.0.4; charset=utf-8"),
}
_SAFE: Final = (
    field(b"X-Content-Type-Options", b"nosniff"),
    field(b"Cache-Control", b"no-store"),
    field(b"Content-Security-Policy", b"default-src 'none'; frame-ancestors 'none'"),
)
_SAME_ORIGIN: Final = (None, b"none", b"same-origin")

MOST_VISITS: Final = 64
"""Connections at a time.  Then the oldest goes: who holds many must not keep a probe out."""


class Admin:
    """
    Serves the pages on one address.

    Attributes:
        sockets: What it listens on.
    """

    draining = False
    half_closing = True  # a page that is made in a thread is no work to be cancelled
    hop = "admin"

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._pages: dict[bytes, tuple[str, Page]] = {}
        self._findings: dict[bytes, Finding] = {}
        self._slow: set[bytes] = set()
        self._actions: dict[bytes, Page] = {}
        self._connections: dict[Http1Connection | ClientTunnel, None] = {}  # oldest first
        self._greeting: set[asyncio.Task[Any]] = set()
        self.sockets: list[socket.socket] = []
        self._sweep: asyncio.TimerHandle | None = None

    def page(self, path: str, kind: str, make: Page, *, slow: bool = False) -> None:
        """Offer a page; a slow one is made in a thread, so that no request waits for it."""
        self._pages[path.encode()] = (kind, make)
        if slow:
            self._slow.add(path.encode())

    def finding(self, path: str, find: Finding, *, slow: bool = False) -> None:
        """Offer a page of JSON in which one looks something up: ``?id=…``."""
        self.page(path, "json", lambda: find(""), slow=slow)
        self._findings[path.encode()] = find

    def action(self, path: str, act: Page) -> None:
        """Offer something to be done, by POST."""
        self._actions[path.encode()] = act

    def is_slow(self, head: RequestHead) -> bool:
        """Say whether the answer to a request is better made in a thread."""
        return head.path.partition(b"?")[0] in self._slow

    async def start(self, sockets: Sequence[socket.socket]) -> None:
        """Serve on these listening sockets."""
        self.sockets = list(sockets)
        for sock in self.sockets:
            self._listen(sock)
        self._on_sweep()

    def _listen(self, listening: socket.socket) -> None:
        if listening in self.sockets:
            self._loop.add_reader(listening.fileno(), self._on_acceptable, listening)

    def _on_acceptable(self, listening: socket.socket) -> None:
        """
        Accept one, with a descriptor that is for nobody else.

        The loop's own server would reset who comes when there is none left: that is how libuv gets
        rid of them.
        """
        try:
            with descriptors.borrowed():
                sock, _ = listening.accept()
        except (BlockingIOError, InterruptedError, ConnectionAbortedError):
            return
        except OSError as error:
            log.error("accept failed: %s", error)
            self._loop.remove_reader(listening.fileno())
            self._loop.call_later(PAUSE, self._listen, listening)
            return
        task = self._loop.create_task(self._greet(sock))
        self._greeting.add(task)
        task.add_done_callback(self._greeting.discard)

    async def _greet(self, sock: socket.socket) -> None:
        sock.setblocking(False)
        try:
            await self._loop.connect_accepted_socket(lambda: as_protocol(self._accept()), sock)
        except OSError:  # the visitor has gone meanwhile
            sock.close()

    def _accept(self) -> Http1Connection:
        connection = Http1Connection(self._loop, self, lambda c: _Visit(c, self))
        if len(self._connections) >= MOST_VISITS:
            next(iter(self._connections)).abort()
        self._connections[connection] = None
        return connection

    def stop_listening(self) -> None:
        """Accept no more; visits that are under way go on."""
        # Closed, never shut down: another process may go on accepting from the same sockets.
        for listening in self.sockets:
            self._loop.remove_reader(listening.fileno())
            listening.close()
        self.sockets.clear()

    def close(self) -> None:
        """Stop listening and end all visits."""
        if self._sweep is not None:
            self._sweep.cancel()
        self.stop_listening()
        for connection in list(self._connections):
            connection.abort()

    def answer(self, head: RequestHead) -> tuple[int, str, bytes]:
        """Return status, kind and body for a request."""
        if not _is_local_or_literal(head.authority):
            return (
                403,
                "text",
                b"this address is not served under that name: use localhost or an address\n",
            )
        if not _is_same_origin(head):
            return 403, "text", b"requests of other web sites are not served\n"
        path = head.path.partition(b"?")[0]
        if path in self._actions and head.method == b"POST":
            status, body = self._actions[path]()
            return status, "text", body
        if head.method not in (b"GET", b"HEAD") or path in self._actions:
            return 405, "text", b"pages are read with GET, and what can be done is done with POST\n"
        page = self._pages.get(path)
        if page is None:
            index = b"".join(b"%s\n" % path for path in sorted(self._pages))
            return (200 if head.path == b"/" else 404), "text", index
        kind, make = page
        if path in self._findings:
            status, body = self._findings[path](_id_in(head.path))
        else:
            status, body = make()
        return status, kind, body

    # The owner of connections ---------------------------------------------------------------------

    def closed(self, connection: Http1Connection | ClientTunnel) -> None:
        self._connections.pop(connection, None)

    def switched(self, connection: Connection, tunnel: ClientTunnel) -> None:  # noqa: ARG002  # the word's shape
        raise AssertionError("no page switches protocols")

    def started_over(self, connection: Connection, authority: bytes, early: bytes) -> None:  # noqa: ARG002  # the word's shape
        raise AssertionError("no page accepts CONNECT")

    def malformed(self, code: str) -> None:
        """Nothing to count: these are not the mesh's requests."""

    def _on_sweep(self) -> None:
        now = self._loop.time()
        for connection in [c for c in self._connections if c.deadline < now < inf]:
            connection.expire()
        self._sweep = self._loop.call_later(SWEEP, self._on_sweep)


def _id_in(target: bytes) -> str:
    found = parse_qs(target.partition(b"?")[2].decode("latin-1")).get("id", [""])
    return found[0]


def _is_local_or_literal(authority: bytes) -> bool:
    host, colon, port = authority.rpartition(b":")
    name = (host if colon and port.isdigit() else authority).decode("latin-1").lower()
    if name == "localhost":
        return True
    try:
        ip_address(name.removeprefix("[").removesuffix("]"))
    except ValueError:
        return False
    return True


def _is_same_origin(head: RequestHead) -> bool:
    """Say whether no browser says that another web site asks (Fetch Metadata; RFC 6454)."""
    origin = value_of(head.fields, b"origin")
    ours = origin is None or origin == b"http://" + head.authority
    return ours and value_of(head.fields, b"sec-fetch-site") in _SAME_ORIGIN


class _Visit:
    """The exchange of one page view."""

    def __init__(self, connection: Http1Connection, admin: Admin) -> None:
        self._connection = connection
        self._admin = admin
        self._head: RequestHead | None = None
        self._gone = False
        self._thread: asyncio.Future[tuple[int, str, bytes]] | None = None

    def on_request_head(self, head: RequestHead) -> None:
        self._head = head
        if head.length in (None, TUNNEL):  # no other protocol is spoken here
            self.on_request_end(None)

    def on_request_data(self, data: bytes, last: bool = False) -> None:  # noqa: ARG002  # not read
        if last:
            self.on_request_end(None)

    def on_request_end(self, trailers: Fields | None) -> None:  # noqa: ARG002  # the word's shape
        assert self._head is not None
        if self._admin.is_slow(self._head):
            loop = self._connection.loop
            try:
                self._thread = loop.run_in_executor(None, self._answer, self._head)
            except RuntimeError:  # no memory for a thread's stack: then all wait until it is made
                self._send(*self._answer(self._head))
                return
            self._thread.add_done_callback(lambda made: self._send(*made.result()))
        else:
            self._send(*self._answer(self._head))

    def _answer(self, head: RequestHead) -> tuple[int, str, bytes]:
        try:
            return self._admin.answer(head)
        except OSError as error:  # no descriptor to read a file, or to load what makes the page
            log.error("%s cannot be made: %s", head.path.decode("latin-1"), error)
            return 503, "text", f"this page cannot be made now: {error.strerror}\n".encode()

    def _send(self, status: int, kind: str, body: bytes) -> None:
        if self._gone:
            return
        assert self._head is not None
        connection = self._connection
        connection.send_head(ResponseHead(status, [_TYPES[kind], *_SAFE], length=len(body)))
        if self._head.method != b"HEAD":
            connection.send_data(body)
        connection.send_end(None)

    def on_request_reset(self) -> None:
        self._gone = True

    def on_downstream_blocked(self) -> None: ...
    def on_downstream_writable(self) -> None: ...


def as_json(value: object) -> bytes:
    """Return a page's body; specs are written as in the contract."""
    import json  # only people ask for it, and most sidecars are never asked

    return json.dumps(json.loads(wire.encode(value)), indent=2).encode() + b"\n"
