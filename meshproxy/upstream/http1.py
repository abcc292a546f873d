"""
An HTTP/1.1 connection that requests go to: one exchange at a time, many in its life.

Life: dialled → (head → data* → end ⇄ response) → idle in the pool → … → lost.  It goes back to
the pool only when request *and* response are complete and nothing else has arrived: bytes left
over would become the answer to somebody else's request.  Nor does it go back when the request had
trailers: servers exist (aiohttp 3.14) that take the last of them for a header field of the next
request, which is another client's.
"""

import asyncio
from typing import Protocol

from meshproxy.codec import MalformedError
from meshproxy.codec.http1 import ResponseReader, encode_last_chunk, encode_request_head
from meshproxy.exchange import Exchange
from meshproxy.flow import Connection
from meshproxy.identity.tls import refused_our_certificate
from meshproxy.message import CHUNKED, Fields, RequestHead, ResponseHead


class Owner(Protocol):
    """The pool that dialled the connection."""

    def idle(self, connection: "Http1Connection") -> None: ...
    def lost(self, connection: "Http1Connection") -> None: ...


class Http1Connection(Connection):
    """One connection to one endpoint; also the stream of the exchange that has borrowed it."""

    __slots__ = (
        "_chunked",
        "_complete",
        "_exchange",
        "_heard",
        "_owner",
        "_reader",
        "_request_open",
        "_response_paused",
        "_said_trailers",
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
        self._said_trailers = False
        # For one exchange
        self._exchange: Exchange | None = None
        self._request_open = False
        self._response_paused = False
        self._heard = False  # a byte of the response has arrived
        self._chunked = False
        self._complete = False  # the response has ended; what becomes of us is decided next

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
        self._request_open = True
        self._heard = False
        exchange.on_upstream_ready(self)

    def send_head(self, head: RequestHead) -> None:
        self._reader.expect(head.method)
        self._chunked = head.length == CHUNKED
        self.write(encode_request_head(head))

    def send_data(self, data: bytes) -> None:
        if self._chunked:
            self.write(b"%x\r\n" % len(data))
            self.write(data)
            self.write(b"\r\n")
        else:
            self.write(data)

    def send_end(self, trailers: Fields | None) -> None:
        if self._chunked:
            self.write(encode_last_chunk(trailers))
            self._said_trailers = bool(trailers)
        self._request_open = False

    def reset(self) -> None:
        """Nobody waits for the answer any more; half a conversation cannot be reused."""
        self._exchange = None
        self._reader.close()  # what TLS has decrypted already may still arrive
        self.abort()

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
        if head.status == 101:  # nobody asked for another protocol
            self.on_response_malformed(MalformedError("upstream-protocol-error", "unasked 101"))
        elif self._exchange is not None:
            self._exchange.on_response_head(head)

    def on_response_data(self, data: bytes) -> None:
        if self._exchange is not None:
            self._exchange.on_response_data(data)

    def on_response_end(self, trailers: Fields | None) -> None:
        exchange, self._exchange = self._exchange, None
        self.served += 1
        self._complete = True
        if exchange is not None:
            exchange.on_response_end(trailers)

    def on_response_malformed(self, error: MalformedError) -> None:
        self._fail(error.code)
        self.abort()

    def _give_back(self) -> None:
        """The response is complete; is the connection fit for another request?"""
        if self._response_paused:
            self._response_paused = False
            self.resume_reading()
        if self._request_open:
            self.abort()  # a server that has answered early may never read the rest
        elif not self._reader.keep_alive or not self._reader.idle or self._said_trailers:
            self.close()
        else:
            self._owner.idle(self)

    # The end --------------------------------------------------------------------------------------

    def on_eof(self) -> bool:
        self._reader.feed_eof()
        return False

    def on_lost(self, error: Exception | None) -> None:
        code = "upstream-closed"
        if not self._heard and not self.served and refused_our_certificate(error):
            code = "handshake-failed"
        self._fail(code)
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
