"""
An HTTP/1.1 connection that requests come from: bytes in, an exchange for each request.

Life of a connection: head → exchange → response → (next head | close | tunnel).  One request at a
time: what a client sends ahead (pipelining, RFC 9112 section 9.3.2) waits in the reader.  So does
what it sends behind a request that asks to switch protocols, until the answer has come.
"""

import asyncio
import socket
from collections.abc import Callable
from math import inf
from typing import Any, Final, Protocol, cast

from meshproxy.codec import MalformedError, RequestSink
from meshproxy.codec.http1 import (
    RequestReader,
    encode_informational,
    encode_last_chunk,
    encode_response_head,
    encode_switch,
)
from meshproxy.codec.upgrade import ACCEPT, KEY, WEBSOCKET, websocket_accept
from meshproxy.flow import Connection
from meshproxy.local_reply import local_reply
from meshproxy.message import (
    CHUNKED,
    TUNNEL,
    Fields,
    RequestHead,
    ResponseHead,
    field,
    value_of,
)
from meshproxy.refusal import refusal
from meshproxy.tunnel import channel_of, end_with_reset

from . import tunnel
from .tunnel import ClientTunnel

FIRST_TIMEOUT = 60.0
"""Seconds for the first byte of a new connection."""

HEAD_TIMEOUT = 10.0
"""Seconds for a request head once its first byte has come (hazards: slowloris)."""

IDLE_TIMEOUT = 3600.0
"""Seconds between requests; longer than any sane client's own, so that it closes first."""

CLOSE_TIMEOUT = tunnel.CLOSE_TIMEOUT
"""Seconds for the end of an answer to leave before a closing connection is cut."""

BODY_TIMEOUT = 60.0
"""Seconds without a byte of a request body that has begun, while we are ready to take it."""

HALF_CLOSED_TIMEOUT = 30.0
"""Seconds for which a client that says no more is believed to listen, without a sign that it does."""

LINGER_TIMEOUT = 2.0
"""Seconds in which a client may notice that we answered before it had said all."""

DISCARD_LIMIT = 256 * 1024
"""Bytes of a body read in vain, to keep the connection, once the request has been answered."""

HELD_LIMIT = 64 * 1024
"""Bytes a client may send ahead of its turn before it is no longer read from."""

_SILENT: Final = RequestReader(cast("RequestSink", None))
"""Reads nothing: for those that have gone."""
_SILENT.close()


class Exchange(Protocol):
    """What answers a request: `meshproxy.exchange`, or the admin's pages."""

    def on_request_head(self, head: RequestHead) -> None: ...
    def on_request_data(self, data: bytes, last: bool = False) -> None: ...
    def on_request_end(self, trailers: Fields | None) -> None: ...
    def on_request_reset(self) -> None: ...
    def on_downstream_blocked(self) -> None: ...
    def on_downstream_writable(self) -> None: ...


class Owner(Protocol):
    """
    The listener that accepted the connection.

    Attributes:
        half_closing: A client that says no more may still listen.
    """

    draining: bool
    half_closing: bool
    hop: str

    def switched(self, connection: Connection, tunnel: ClientTunnel) -> None:
        """The tunnel has taken the connection's place."""

    def started_over(self, connection: Connection, authority: bytes, early: bytes) -> None:
        """The client begins anew, with `authority`; `early` is what it has said of that."""

    def closed(self, connection: "Http1Connection | ClientTunnel") -> None: ...
    def malformed(self, code: str) -> None: ...


class Http1Connection(Connection):
    """One client's connection."""

    protocol = "http"

    __slots__ = (
        "_begin",
        "_chunked",
        "_close",
        "_discarded",
        "_head_sent",
        "_heard_end",
        "_last",
        "_lingering",
        "_owner",
        "_reader",
        "_request_open",
        "_response_open",
        "_switching",
        "_turn_due",
        "_waits_for_continue",
        "deadline",
        "exchange",
    )

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        owner: Owner,
        begin: Callable[[Any], Exchange],  # Any: this connection, as whatever class it has
    ) -> None:
        super().__init__(loop)
        # For the whole connection
        self._owner = owner
        self._begin = begin
        self._reader = RequestReader(self)
        self._last = False  # no request after the current one
        self._lingering = False
        self._heard_end = False
        self._turn_due = False  # the next request waits until the client has read its answers
        self.deadline = inf  # of the loop's clock: when the listener's sweep ends the wait
        # For one request
        self.exchange: Exchange | None = None
        self._request_open = False
        self._response_open = False
        self._head_sent = False
        self._chunked = False
        self._close = False
        self._waits_for_continue = False
        self._discarded = 0
        self._switching: RequestHead | None = None  # asks to switch, not answered yet

    @property
    def idle(self) -> bool:
        """Between requests, with nothing of the next one seen."""
        return not (
            self._request_open or self._response_open or self._turn_due or self._reader.in_head
        )

    # Bytes arrive ---------------------------------------------------------------------------------

    def on_connected(self) -> None:
        self.deadline = self.loop.time() + FIRST_TIMEOUT

    def on_bytes(self, data: bytes) -> None:
        if self._lingering:
            return
        reader = self._reader
        reader.feed(data)
        if not reader.held:  # as after most reads: exactly one request
            return
        if self._response_open or self._turn_due:
            if not self._request_open and len(reader.held) > HELD_LIMIT:
                self.pause_reading()
        elif reader.in_head:
            self.deadline = min(self.deadline, self.loop.time() + HEAD_TIMEOUT)

    def on_eof(self) -> bool:
        """
        The client says no more; as a rule it has gone, and its request goes with it.

        It might still listen (``nc -N``): RFC 9112 section 9.6 says that a half-close does not "imply
        that the client is no longer interested in a response".  But nearly all who send FIN while
        they wait have closed their socket, and that cannot be told apart before we write to them
        (docs/decisions/0025).  Where the owner says that clients half-close, a whole request is
        answered, and waited for with a limit, for it may hang (see `expire`); an unfinished one is
        not: its end will never come.
        """
        self._last = True
        self._close = True
        self._heard_end = True
        if self.transport is None or not self.transport.can_write_eof():
            return False  # over TLS there is no half-close to keep
        if self.exchange is not None and not self._owner.half_closing:
            self.abort()  # closing would first wait until it has taken what was written
            return False
        listens = self._turn_due or (self._response_open and not self._request_open)
        if listens:
            self.deadline = min(self.deadline, self.loop.time() + HALF_CLOSED_TIMEOUT)
        return listens

    # The request ----------------------------------------------------------------------------------

    def on_request_head(self, head: RequestHead) -> None:
        length = head.length
        self._request_open = length is not None
        self._response_open = True
        self.deadline = inf
        if length and not head.expect_continue:
            self.deadline = self.loop.time() + BODY_TIMEOUT
        self._head_sent = False
        self._waits_for_continue = head.expect_continue
        self._close = self._last or not self._reader.keep_alive
        if length == TUNNEL:
            self._request_open = False  # as far as it is HTTP, it has been said
            self._switching = head
            self.deadline = inf
        self.exchange = exchange = self._begin(self)
        exchange.on_request_head(head)

    def on_request_data(self, data: bytes, last: bool = False) -> None:
        if self.exchange is not None:
            self._request_open = not last
            self.deadline = inf if last else self.loop.time() + BODY_TIMEOUT
            self.exchange.on_request_data(data, last)
            return
        self._discarded += len(data)
        if self._discarded > DISCARD_LIMIT:
            self._linger()
        elif last:
            self.on_request_end(None)

    def on_request_end(self, trailers: Fields | None) -> None:
        self._request_open = False
        if self.exchange is not None:
            self.deadline = inf
            self.exchange.on_request_end(trailers)
        else:  # it has been answered already
            self._turn()

    def on_request_malformed(self, error: MalformedError) -> None:
        """Answer what can be answered and close: where the next message begins is unknown."""
        self._owner.malformed(error.code)
        exchange, self.exchange = self.exchange, None
        if exchange is not None:  # inside a body: half of it must not be taken for all of it
            exchange.on_request_reset()
        if self._response_open and self._head_sent:
            self.abort()
            return
        if self._request_open and not self._response_open:
            # Answered in full before the body went wrong: a second answer would be one to nothing.
            self._linger()
            return
        # Of half a body, an unknown part was sent.
        sent = 0 if exchange is None else None
        head, body = local_reply(refusal(error.code), None, hop=self._owner.hop, sent=sent)
        self.write(encode_response_head(head, close=True) + body)
        self._linger()

    # The response ---------------------------------------------------------------------------------

    def send_informational(self, head: ResponseHead) -> None:
        if head.status == 100:
            self._waits_for_continue = False
            if self._request_open:
                self.deadline = self.loop.time() + BODY_TIMEOUT
        if not self._reader.http10:  # HTTP/1.0 has no 1xx (RFC 9110 section 15.2)
            self.write(encode_informational(head))

    def send_head(self, head: ResponseHead) -> None:
        if self._switching is not None:
            self._decline()
        http10 = self._reader.http10
        self._head_sent = True
        if self._waits_for_continue and self._request_open:
            # It may never send its body after another answer than `100 Continue`, so where its
            # next request begins would be a guess (RFC 9110 section 10.1.1).
            self._close = True
        self._chunked = head.length == CHUNKED and not http10
        if self._owner.draining or (head.length == CHUNKED and http10):
            self._close = True
        self.write(encode_response_head(head, close=self._close, http10=http10))

    def send_data(self, data: bytes, last: bool = False) -> None:
        if self._chunked:
            self.write(b"%x\r\n" % len(data))
            self.write(data)
            self.write(b"\r\n")
        else:
            self.write(data)
            if last and not self._request_open:  # `send_end` after most answers, without the call
                self.exchange = None
                self._response_open = False
                self._turn()
                return
        if last:
            self.send_end(None)

    def send_end(self, trailers: Fields | None) -> None:
        if self._chunked:
            self.write(encode_last_chunk(trailers))
        self.exchange = None
        self._response_open = False
        if not self._request_open:
            self._turn()
        elif self._close:
            self._linger()
        else:  # answered before all was said: the rest is read and dropped, then all goes on
            self._discarded = 0
            self.deadline = self.loop.time() + LINGER_TIMEOUT

    def reset(self) -> None:
        """The response cannot be completed: the client must not take what it has for all of it."""
        self.exchange = None
        self.flush()
        if self._reader.http10:
            # For HTTP/1.0 the end of the connection may be the end of the body; RST is no such end.
            end_with_reset(self.transport)
        self.abort()

    # Switching protocols --------------------------------------------------------------------------

    def switch(self, head: ResponseHead) -> ClientTunnel:
        """
        Send the head that opens a tunnel (101, or 2xx to CONNECT), and return the tunnel.

        It has the transport from now on.  What the client has said early goes to the exchange
        before this returns, its end included.
        """
        request, exchange = self._switching, self.exchange
        assert request is not None
        assert exchange is not None
        self._switching = self.exchange = None
        key = value_of(request.fields, KEY) if head.upgrade == WEBSOCKET else None
        if key is not None and value_of(head.fields, ACCEPT) is None:
            # An endpoint behind HTTP/2 has no part in this; see `codec/upgrade.py`.
            head.fields = [*head.fields, field(b"Sec-WebSocket-Accept", websocket_accept(key))]
        self.write(encode_switch(head))
        early = self._reader.surrender()
        successor = ClientTunnel(self.loop, self._owner, exchange)
        successor.take_over(self)
        if self._heard_end:
            successor.heard_end = True
            successor.look_after()
        self._owner.switched(self, successor)
        if early:
            exchange.on_request_data(early)
        if self._heard_end:
            exchange.on_request_end(None)
        return successor

    def start_over(self, head: ResponseHead) -> bool:
        """Send the head (200 to CONNECT), and let the listener read on with whatever follows."""
        request = self._switching
        assert request is not None
        self._switching = self.exchange = None
        self.write(encode_switch(head))
        early = self._reader.surrender()
        if self._heard_end:  # and said nothing of what it has asked leave for
            self.close()
        else:
            self.flush()
            self._owner.started_over(self, request.authority, early)
        return True

    def _decline(self) -> None:
        """
        The answer does not switch: the request was like any other.

        But a client that has gone ahead has done so in the other protocol, or wants us to read
        that as its next request: the connection ends.
        """
        self._switching = None
        self._reader.decline()
        if self._reader.held:
            self._close = True

    # The next one, or the end ---------------------------------------------------------------------

    def _turn(self) -> None:
        if self._close:
            self._close_after_answer()
            return
        if self.blocked:
            # Who asks without reading the answers would fill our memory with them.
            self._turn_due = True
            self.pause_reading()
            self.deadline = self.loop.time() + IDLE_TIMEOUT
            return
        reader = self._reader
        if reader.held:
            self.resume_reading()
        reader.next()
        if not self._response_open:
            wait = HEAD_TIMEOUT if reader.held else IDLE_TIMEOUT
            self.deadline = self.loop.time() + wait

    def _close_after_answer(self) -> None:
        """Close; but a client that may be sending its next request already must get the answer."""
        if not self._owner.draining or self.transport is None or not self.transport.can_write_eof():
            self._reader.close()
            self.close()
            return
        self._linger()
        if self.transport.get_write_buffer_size():  # it has not even left yet
            self.deadline = self.loop.time() + CLOSE_TIMEOUT

    def _linger(self) -> None:
        """
        Close, but let the client read our answer first.

        Closing a socket with unread bytes makes the kernel send RST, which can destroy the answer
        on its way (RFC 9112 section 9.6).
        """
        self._reader.close()
        self._lingering = True
        self._request_open = self._response_open = False
        self.deadline = self.loop.time() + LINGER_TIMEOUT
        self.resume_reading()
        self.flush()
        if self.transport is not None and self.transport.can_write_eof():
            self.transport.write_eof()

    def drain(self) -> None:
        """Close when the current exchange is done; at once when there is none (cf. `Listener.drain`)."""
        self._last = self._close = True
        if self.idle and not self._lingering:
            self.close()

    def close(self) -> None:
        """Close once everything written has left, but do not wait for a client that never reads."""
        self.deadline = self.loop.time() + CLOSE_TIMEOUT
        super().close()

    def expire(self) -> None:
        """The deadline has passed."""
        self.deadline = inf
        if self._reader.in_head and not self._lingering:
            self.on_request_malformed(MalformedError("head-timeout", "the head took too long"))
        elif self._request_open and self.exchange is not None:
            self.on_request_malformed(MalformedError("body-timeout", "the body stopped coming"))
        elif self._response_open and self._head_sent and self._listens():
            self.deadline = self.loop.time() + HALF_CLOSED_TIMEOUT
        else:
            self.abort()

    def _listens(self) -> bool:
        """Say whether a half-closed client has taken, so far, what was written to it."""
        channel = channel_of(self.transport)
        return channel is None or not channel.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)

    def on_lost(self, error: Exception | None) -> None:  # noqa: ARG002  # the hook's shape
        self._reader.close()
        self._reader = _SILENT  # ours knows us: together they would wait for the cycle collector
        exchange, self.exchange = self.exchange, None
        if exchange is not None:
            exchange.on_request_reset()
        self._owner.closed(self)

    # One side is slower than the other ------------------------------------------------------------

    def pause_request(self) -> None:
        self.deadline = inf  # it is not the client who is slow
        self.pause_reading()

    def resume_request(self) -> None:
        if self._request_open and not self._waits_for_continue:
            self.deadline = self.loop.time() + BODY_TIMEOUT
        self.resume_reading()

    def on_blocked(self) -> None:
        if self.exchange is not None:
            self.exchange.on_downstream_blocked()

    def on_writable(self) -> None:
        if self._turn_due:
            self._turn_due = False
            self.resume_reading()
            self._turn()
        elif self.exchange is not None:
            self.exchange.on_downstream_writable()
