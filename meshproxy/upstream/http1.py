"""
An HTTP/1.1 connection that requests go to: one exchange at a time, many in its life.

Life: dialled → (head → data* → end ⇄ response) → idle in the pool → … → (tunnel | lost).  It goes back to
the pool only when request *and* response are complete and nothing else has arrived: bytes left
over would become the answer to somebody else's request.  Nor does it go back when the request had
trailers: servers exist (aiohttp 3.14) that take the last of them for a header field of the next
request, which is another client's.
"""

import asyncio
import os
from typing import Any, Final, Protocol, cast

from meshproxy.codec import MalformedError, ResponseSink
from meshproxy.codec.http1 import ResponseReader, encode_last_chunk, encode_request_head
from meshproxy.codec.upgrade import (
    ACCEPT,
    KEY,
    WEBSOCKET,
    was_asked_for,
    websocket_accept,
    websocket_key,
)
from meshproxy.flow import Connection
from meshproxy.identity.tls import refused_our_certificate
from meshproxy.message import (
    CHUNKED,
    TUNNEL,
    Fields,
    RequestHead,
    ResponseHead,
    field,
    value_of,
)

from .tunnel import EndpointTunnel

DISCARD_LIMIT = 64 * 1024
DISCARD_TIME = 1.0
"""Of an answer that nobody wants, bytes and seconds for which it is read to its end."""

_SILENT: Final = ResponseReader(cast("ResponseSink", None))
"""Reads nothing: for those that have gone."""
_SILENT.close()


class Owner(Protocol):
    """The pool that dialled the connection."""

    def idle(self, connection: "Http1Connection") -> None: ...
    def switched(self, connection: Connection, tunnel: EndpointTunnel) -> None: ...
    def lost(self, connection: "Http1Connection | EndpointTunnel") -> None: ...


class Exchange(Protocol):
    """
    Who has borrowed a connection: an exchange, or what takes its place for one request.

    (A second attempt, a mirror, a health check.)
    """

    @property
    def head(self) -> RequestHead: ...
    def on_upstream_ready(self, upstream: Any) -> None: ...
    def on_upstream_blocked(self) -> None: ...
    def on_upstream_writable(self) -> None: ...
    def on_response_informational(self, head: ResponseHead) -> None: ...
    def on_response_head(self, head: ResponseHead) -> None: ...
    def on_response_data(self, data: bytes, last: bool = False) -> None: ...
    def on_response_end(self, trailers: Fields | None) -> None: ...
    def on_response_reset(self, code: str, *, reused: bool) -> None: ...


class Http1Connection(Connection):
    """One connection to one endpoint; also the stream of the exchange that has borrowed it."""

    __slots__ = (
        "_chunked",
        "_complete",
        "_discarding",
        "_exchange",
        "_heard",
        "_key",
        "_owner",
        "_reader",
        "_request_open",
        "_response_paused",
        "_spent",
        "_unwanted",
        "idle_since",
        "served",
    )

    def __init__(self, loop: asyncio.AbstractEventLoop, owner: Owner) -> None:
        super().__init__(loop)
        # For the whole connection
        self._owner = owner
        self._reader = ResponseReader(self)
        self.served = 0
        self.idle_since = 0.0
        self._spent = False  # the next request needs another connection
        # For one exchange
        self._exchange: Exchange | None = None
        self._request_open = False
        self._response_paused = False
        self._heard = False  # a byte of the response has arrived
        self._chunked = False
        self._key: bytes | None = None  # of a WebSocket, made by us
        self._complete = False  # the response has ended; what becomes of us is decided next
        self._discarding: asyncio.TimerHandle | None = None  # until then its end has to come
        self._unwanted = 0  # so much of it may come

    def __repr__(self) -> str:
        state = "lost" if self.transport is None else "busy" if self._exchange else "idle"
        return f"<Http1Connection {state}, served {self.served}>"

    @property
    def usable(self) -> bool:
        """Another request may be sent."""
        return self.transport is not None and not self.transport.is_closing()

    # Borrowed by an exchange: the request ---------------------------------------------------------

    def lend(self, exchange: Exchange) -> None:
        self._exchange = exchange
        self._heard = False
        exchange.on_upstream_ready(self)

    def retire(self) -> None:
        """Take no request after this one."""
        self._spent = True

    def send_head(self, head: RequestHead) -> None:
        self._reader.expect(head.method)
        self._request_open = head.length is not None  # without a body, that is all
        self._chunked = head.length == CHUNKED
        if head.upgrade is not None:
            head = self._with_key(head)
        self.write(encode_request_head(head))

    def _with_key(self, head: RequestHead) -> RequestHead:
        """Return a head with what HTTP/1.1 wants of a WebSocket and HTTP/2 has not."""
        self._key = None
        if head.upgrade != WEBSOCKET or value_of(head.fields, KEY) is not None:
            return head
        self._key = websocket_key(os.urandom(16))
        fields = [*head.fields, field(b"Sec-WebSocket-Key", self._key)]
        with_key = RequestHead(head.method, head.authority, head.path, fields, head.length)
        with_key.upgrade = head.upgrade
        return with_key

    def send_data(self, data: bytes, last: bool = False) -> None:
        if self._chunked:
            self.write(b"%x\r\n" % len(data))
            self.write(data)
            self.write(b"\r\n")
        else:
            self.write(data)
        if last:
            self.send_end(None)

    def send_end(self, trailers: Fields | None) -> None:
        if self._chunked:
            self.write(encode_last_chunk(trailers))
            if trailers:
                self._spent = True
        self._request_open = False

    def reset(self) -> None:
        """Nobody waits for the answer any more; half a conversation cannot be reused."""
        self._exchange = None
        self._reader.close()  # what TLS has decrypted already may still arrive
        self.abort()

    def discard(self, length: int | None) -> None:
        """
        Nobody wants the answer, but the connection may be of use: read on, if little is left.

        Args:
            length: Of its body, as its head has announced it.
        """
        self._exchange = None
        if self._request_open or (length or 0) > DISCARD_LIMIT:
            self.reset()
            return
        if self._response_paused:
            self.resume_response()
        self._unwanted = DISCARD_LIMIT
        self._discarding = self.loop.call_later(DISCARD_TIME, self.reset)

    # The response ---------------------------------------------------------------------------------

    def on_bytes(self, data: bytes) -> None:
        self._heard = True
        self._reader.feed(data)
        if self._complete:  # not before the reader's stack has unwound: see codec/__init__.py
            self._complete = False
            self._give_back()

    def on_response_informational(self, head: ResponseHead) -> None:
        if self._exchange is not None:
            self._exchange.on_response_informational(head)

    def on_response_head(self, head: ResponseHead) -> None:
        if head.length == TUNNEL:
            self._switch(head)
        elif self._exchange is not None:
            self._exchange.on_response_head(head)

    def on_response_data(self, data: bytes, last: bool = False) -> None:
        exchange = self._exchange
        if last:
            self._exchange = None
            self.served += 1
            self._complete = True
        if exchange is not None:
            exchange.on_response_data(data, last)
        elif self._discarding is not None:
            self._unwanted -= len(data)
            if self._unwanted < 0 and not last:
                self.reset()

    def on_response_end(self, trailers: Fields | None) -> None:
        exchange, self._exchange = self._exchange, None
        self.served += 1
        self._complete = True
        if exchange is not None:
            exchange.on_response_end(trailers)

    def on_response_malformed(self, error: MalformedError) -> None:
        self._fail(error.code)
        self.abort()

    def _switch(self, head: ResponseHead) -> None:
        """The endpoint leaves HTTP, if it was asked to."""
        exchange = self._exchange
        if exchange is None:
            return
        why = self._unasked(head, exchange.head)
        if why:
            self.on_response_malformed(MalformedError("upstream-protocol-error", why))
            return
        self._exchange = None
        rest = self._reader.surrender()
        tunnel = EndpointTunnel(self.loop, self._owner, exchange)
        tunnel.take_over(self)
        self._owner.switched(self, tunnel)
        asked: Any = exchange  # nothing but an exchange asks for this
        asked.on_upstream_switched(tunnel)
        asked.on_response_head(head)
        if rest:
            tunnel.on_bytes(rest)

    def _unasked(self, head: ResponseHead, request: RequestHead) -> str:
        """Say what is wrong with an answer that switches protocols; nothing if it may."""
        if head.status != 101:  # the codec has seen to it that this is a 2xx to CONNECT
            return ""
        if not was_asked_for(head.upgrade, request.upgrade):
            return f"101 to {head.upgrade!r}, asked for {request.upgrade!r}"
        if self._key is not None:
            if value_of(head.fields, ACCEPT) != websocket_accept(self._key):
                return "wrong Sec-WebSocket-Accept"
            # The answer to a question that the client has not asked (RFC 8441 section 5).
            head.fields = [f for f in head.fields if f[0] != ACCEPT]
        return ""

    def _give_back(self) -> None:
        """The response is complete; is the connection fit for another request?"""
        if self._discarding is not None:
            self._keep()
        if self._response_paused:
            self._response_paused = False
            self.resume_reading()
        if self._request_open:
            self.abort()  # a server that has answered early may never read the rest
        elif not self._reader.keep_alive or not self._reader.idle or self._spent:
            self.close()
        else:
            self._owner.idle(self)

    def _keep(self) -> None:
        """An answer that was not wanted has ended."""
        if self._discarding is not None:
            self._discarding.cancel()
            self._discarding = None

    # The end --------------------------------------------------------------------------------------

    def on_eof(self) -> bool:
        self._reader.feed_eof()
        return False

    def on_lost(self, error: Exception | None) -> None:
        self._keep()
        code = "upstream-closed"
        if not self._heard and not self.served and refused_our_certificate(error):
            code = "handshake-failed"
        self._fail(code)
        self._reader = _SILENT  # ours knows us: together they would wait for the cycle collector
        self._owner.lost(self)

    def _fail(self, code: str) -> None:
        self._reader.close()
        exchange, self._exchange = self._exchange, None
        if exchange is not None:
            exchange.on_response_reset(code, reused=self.served > 0 and not self._heard)

    # One side is slower than the other ------------------------------------------------------------

    def pause_response(self) -> None:
        self._response_paused = True
        self.pause_reading()

    def resume_response(self) -> None:
        self._response_paused = False
        self.resume_reading()

    def on_blocked(self) -> None:
        if self._exchange is not None:
            self._exchange.on_upstream_blocked()

    def on_writable(self) -> None:
        if self._exchange is not None:
            self._exchange.on_upstream_writable()
