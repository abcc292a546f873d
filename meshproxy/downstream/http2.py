"""
An HTTP/2 connection that requests come from: bytes in, an exchange for each stream.

Life of a connection: preface → streams → (shutdown in two steps | close).  Life of a stream: head →
exchange → response → gone.  Every stream is the downstream of its own exchange; what one of them
does, its neighbours do not notice.

A stream that was answered before its request was complete is ended with RST_STREAM(NO_ERROR) once
the answer has left (RFC 9113 section 8.1): the client need not send the rest, and we need not
read it.
"""

import asyncio
from collections.abc import Callable
from math import inf
from typing import Any, Protocol

from meshproxy.codec import MalformedError
from meshproxy.codec.budget import Allowance
from meshproxy.codec.http2 import (
    CONNECT_ERROR,
    INTERNAL_ERROR,
    NO_ERROR,
    PROTOCOL_ERROR,
    RequestStream,
    ServerSession,
)
from meshproxy.codec.http2_heads import declined
from meshproxy.local_reply import local_reply
from meshproxy.message import TUNNEL, Fields, RequestHead, ResponseHead
from meshproxy.multiplex import Link, Stream
from meshproxy.refusal import refusal
from meshproxy.tunnel import keep_alive

from .http1 import CLOSE_TIMEOUT, FIRST_TIMEOUT, HEAD_TIMEOUT, IDLE_TIMEOUT, Exchange

SHUTDOWN_TIMEOUT = 2.0
"""Seconds for the client to answer the first step of a shutdown before the second comes anyway."""


class Owner(Protocol):
    """The listener that accepted the connection."""

    hop: str

    def closed(self, connection: "Http2Connection") -> None: ...
    def malformed(self, code: str) -> None: ...


class AnsweredEarly(Protocol):
    """A stream whose request is still open although it has been answered."""

    def end_early(self) -> bool: ...


class Http2Stream(Stream["Http2Connection", Exchange]):
    """One request and its answer; the downstream of an exchange."""

    protocol = "http2"

    __slots__ = ()

    # The request ----------------------------------------------------------------------------------

    def on_request_head(self, head: RequestHead) -> None:
        # As it came over the wire, where Upgrade is CONNECT.
        self.method = head.method if head.length != TUNNEL else b"CONNECT"
        self.ended = head.length is None
        self.exchange = exchange = self._link.begin(self)
        exchange.on_request_head(head)

    def on_request_data(self, data: bytes, last: bool = False) -> None:
        self.ended = last
        if self.exchange is not None:
            self.exchange.on_request_data(data, last)
        self.took(len(data))

    def on_request_end(self, trailers: Fields | None) -> None:
        self.ended = True
        if self.exchange is not None:
            self.exchange.on_request_end(trailers)

    def on_request_malformed(self, error: MalformedError) -> None:
        """Answer what can be answered; the other streams are not to blame."""
        connection = self._link
        connection.owner.malformed(error.code)
        exchange, self.exchange = self.exchange, None
        if exchange is not None:  # inside a body: half of it must not be taken for all of it
            exchange.on_request_reset()
        if self.responding or self.finished:
            self.end_by_reset(PROTOCOL_ERROR)
            return
        # Of half a body, an unknown part was sent.
        sent = 0 if exchange is None else None
        head, body = local_reply(refusal(error.code), None, hop=connection.owner.hop, sent=sent)
        self.send_head(head)
        self.send_data(body)
        self.send_end(None)

    # The response ---------------------------------------------------------------------------------

    def send_informational(self, head: ResponseHead) -> None:
        if self.id and not self.responding:
            self._link.session.send_informational(self.id, head)
            self._link.flush_soon()

    def send_head(self, head: ResponseHead) -> None:
        if not self.id:
            return
        self.responding = True
        if self.method == b"CONNECT":
            head = declined(head)
        self.finished = not head.length or self.method == b"HEAD" or head.status in (204, 304)
        link = self._link
        link.session.send_head(self.id, head, ended=self.finished)
        if not link.flush_due:
            link.flush_later()

    def switch(self, head: ResponseHead) -> "Http2Stream":
        """Open the tunnel: both directions of this stream, each to its own end."""
        self.responding = self.tunnel = True
        if self.id:
            link = self._link
            link.session.send_head(self.id, head, ended=False)
            link.flush_soon()
            keep_alive(link.transport)
        return self

    def start_over(self, head: ResponseHead) -> bool:  # noqa: ARG002  # the word's shape
        """A stream is no connection."""
        return False

    def send_data(self, data: bytes | memoryview, last: bool = False) -> None:
        Stream.send_data(self, data, last)  # `super()` is a call, too
        if last:
            self.exchange = None
            if not self.ended:
                self._answered_early()

    def send_end(self, trailers: Fields | None) -> None:
        if self.tunnel and not self.ended:
            Stream.send_end(self, None)
            return
        if not self.finished:
            Stream.send_end(self, trailers)
        self.exchange = None
        if not self.ended:
            self._answered_early()

    def _answered_early(self) -> None:
        if self.id:
            self.pause()  # nobody takes the rest: no credit for more
            self._link.answered_early.append(self)

    def reset(self) -> None:
        """The response cannot be completed: the client must not take what it has for all of it."""
        self.exchange = None
        # RFC 9113 section 8.5: an error of the connection behind a tunnel is a CONNECT_ERROR.
        self.tear(CONNECT_ERROR if self.tunnel else INTERNAL_ERROR)

    def end_early(self) -> bool:
        """After a flush: say whether the answer has left, so that the rest may be refused."""
        if self.id and not self.ended:
            if self._link.session.queued(self.id):
                return False
            self.end_by_reset(NO_ERROR)
        return True

    # The end --------------------------------------------------------------------------------------

    def on_closed(self, code: int) -> None:  # noqa: ARG002  # why does not matter to the exchange
        if self.tunnel and self.ended and self.finished:
            self.exchange = None  # both halves have ended: that is no reset
        self.gone()
        exchange = self.exchange
        if exchange is not None:
            self.exchange = None
            exchange.on_request_reset()
        link = self._link
        if not link.session.streams:
            link.stream_gone()

    # One side is slower than the other ------------------------------------------------------------

    def pause_request(self) -> None:
        self.pause()

    def resume_request(self) -> None:
        self.resume()

    def on_blocked(self) -> None:
        if self.exchange is not None:
            self.exchange.on_downstream_blocked()

    def on_writable(self) -> None:
        if self.exchange is not None:
            self.exchange.on_downstream_writable()


class Http2Connection(Link[ServerSession]):
    """
    One client's connection.

    Attributes:
        deadline: Of the loop's clock: when the listener's sweep ends the wait.
        answered_early: Streams whose request is still open although they have been answered.
    """

    __slots__ = ("_draining", "answered_early", "begin", "deadline", "owner")

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        owner: Owner,
        begin: Callable[[Any], Any],  # what `open_stream` has made, and what answers it
        allowance: Allowance,
    ) -> None:
        super().__init__(loop, ServerSession(self.open_stream, allowance))
        self.owner = owner
        self.begin = begin
        self.session.on_part = self._on_part
        self.deadline = inf
        self.answered_early: list[AnsweredEarly] = []
        self._draining = False

    def __repr__(self) -> str:
        state = "lost" if self.transport is None else "open"
        return f"<Http2Connection {state}, {len(self.session.streams)} streams>"

    @property
    def idle(self) -> bool:
        """No stream is open."""
        return not self.session.streams

    # Streams come and go --------------------------------------------------------------------------

    def open_stream(self, stream_id: int) -> RequestStream:
        """Return what hears of a stream that the client has opened."""
        return Http2Stream(self, stream_id)

    def on_connected(self) -> None:
        self.deadline = self.loop.time() + FIRST_TIMEOUT
        self.flush_soon()

    def _on_part(self) -> None:
        """While no stream is open, only a head that has begun, or nonsense, says nothing yet."""
        if not self.session.streams and not self._draining:
            self.deadline = min(self.deadline, self.loop.time() + HEAD_TIMEOUT)

    def stream_gone(self) -> None:
        if not self.session.streams and not self._draining:
            self.deadline = self.loop.time() + IDLE_TIMEOUT

    def flush(self) -> None:
        super().flush()
        if self.answered_early and not self.blocked:
            self.answered_early = [s for s in self.answered_early if not s.end_early()]

    # The end --------------------------------------------------------------------------------------

    def drain(self) -> None:
        """Take no new streams and close when those that are open have ended."""
        if not self._draining and not self.session.closed:
            self._draining = True
            self.deadline = self.loop.time() + SHUTDOWN_TIMEOUT
            self.session.announce_shutdown()
            self.flush_soon()

    def expire(self) -> None:
        """The deadline has passed."""
        self.deadline = inf
        if self.session.streams and not (self._draining or self.session.closed):
            return  # it was set when there was none; the last that goes sets the next
        if self.session.closed:  # and still not gone: the client does not read what we say
            self.abort()
        elif self._draining:
            self.session.refuse_more()
            self.flush_soon()
        else:
            self.drain()

    def close(self) -> None:
        self.deadline = self.loop.time() + CLOSE_TIMEOUT
        super().close()

    def on_lost(self, error: Exception | None) -> None:  # noqa: ARG002  # the hook's shape
        self.session.forget()
        if self.session.calmed:
            self.owner.malformed("connection-abused")
        for stream in list(self.session.streams.values()):
            stream.on_closed(INTERNAL_ERROR)
        self.session.streams.clear()
        self.blocked_streams.clear()
        self.answered_early.clear()
        self.owner.closed(self)
