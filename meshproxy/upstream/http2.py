"""
An HTTP/2 connection that requests go to: many exchanges at once, one stream each.

Life: dialled → streams come and go → (going away | idle too long) → … → lost.

What becomes of a request when its stream ends early decides whether it may be sent again:

    REFUSED_STREAM, or above the last stream of a GOAWAY   the endpoint has not looked at it
    any other reset                                        nobody knows
    the connection is lost                                 nobody knows

(RFC 9113 section 8.7.)
"""

import asyncio
from collections.abc import Sequence
from functools import partial
from typing import Any, Protocol

from meshproxy.codec import MalformedError
from meshproxy.codec.budget import PEER, Allowance
from meshproxy.codec.http2 import (
    CANCEL,
    CAUTIOUS_STREAMS,
    CONNECT_ERROR,
    MAX_STREAMS,
    PROTOCOL_ERROR,
    REFUSED_STREAM,
    ClientSession,
)
from meshproxy.codec.upgrade import first_of
from meshproxy.identity.tls import refused_our_certificate
from meshproxy.message import TUNNEL, Fields, RequestHead, ResponseHead
from meshproxy.multiplex import Link, Stream
from meshproxy.tunnel import keep_alive

from .http1 import DISCARD_LIMIT, DISCARD_TIME, Exchange

PINGS = 3
"""Pings that a silent sidecar may leave unanswered, one for each sweep of the pool."""


class Owner(Protocol):
    """The pool that dialled the connection."""

    @property
    def waiting(self) -> Sequence[Any]:
        """Those that wait for a connection."""

    def roomier(self, connection: "Http2Connection") -> None:
        """A stream has ended, and somebody waits."""

    def leaving(self, connection: "Http2Connection") -> None:
        """It takes no more requests."""

    def lost(self, connection: "Http2Connection") -> None:
        """It is gone."""


class Http2Stream(Stream["Http2Connection", Exchange]):
    """One attempt of an exchange."""

    __slots__ = ()

    # The request ----------------------------------------------------------------------------------

    def send_head(self, head: RequestHead) -> None:
        link = self._link
        self.method = head.method
        if head.length == TUNNEL:
            if not self._may_switch(head):
                return
            self.method = b"CONNECT"
        self.finished = not head.length
        try:
            self.id = link.session.send_head(self, head, ended=self.finished)
        except MalformedError as error:
            # Later: the exchange is about to say more.
            link.loop.call_soon(partial(self._fail, error.code))
            return
        if link.flush_due:
            return
        if link.session.greeted:
            link.flush_later()
        else:  # meanwhile the peer might say that it takes fewer streams: some would wait for ever
            link.flush_soon()

    def _may_switch(self, head: RequestHead) -> bool:
        """
        Say whether a request that asks to switch protocols may be sent now.

        Otherwise it goes out, or fails, when the peer has said what it understands.
        """
        link = self._link
        if head.upgrade is None:
            return True
        if not link.session.greeted:
            link.ungreeted.append((self, head))
            return False
        if not link.session.switches:
            link.loop.call_soon(partial(self._fail, "upgrade-not-supported"))
            return False
        return True

    def send_late(self, head: RequestHead) -> None:
        """The peer has said what it understands, and how many streams it takes."""
        if self.exchange is None:
            return
        if self._link.room <= 0:
            self._fail("stream-refused")
        else:
            self.send_head(head)

    def reset(self) -> None:
        """Nobody waits for the answer any more."""
        self.exchange = None
        if self.tunnel:
            self.tear(CONNECT_ERROR)
        else:
            self.end_by_reset(CANCEL)

    def discard(self, length: int | None) -> None:
        """
        Nobody wants the answer: let it end by itself, if little is left, else cancel it.

        A stream that ends by itself costs nobody anything; peers count those that are reset.
        """
        self.exchange = None
        if not self.finished or (length or 0) > DISCARD_LIMIT:
            self.end_by_reset(CANCEL)
        elif length != 0:
            self.pause()  # of an unknown length, at most a window's worth comes
            self._link.loop.call_later(DISCARD_TIME, self.end_by_reset, CANCEL)

    # The response ---------------------------------------------------------------------------------

    def on_response_informational(self, head: ResponseHead) -> None:
        self.responding = True
        if self.exchange is not None:
            self.exchange.on_response_informational(head)

    def on_response_head(self, head: ResponseHead) -> None:
        self.responding = True
        exchange = self.exchange
        if exchange is None:
            return
        if head.length == TUNNEL:
            self.tunnel = True
            keep_alive(self._link.transport)
            if exchange.head.upgrade is not None:  # RFC 8441 section 5: what HTTP/1.1 says with 101
                head.status, head.upgrade = 101, first_of(exchange.head.upgrade)
        exchange.on_response_head(head)

    def on_response_data(self, data: bytes, last: bool = False) -> None:
        exchange = self.exchange
        if last:
            if self.finished and not self.tunnel:  # `_hear_end`, without the call
                self.ended = True
                self.exchange = None
                self._link.served += 1
            else:
                self._hear_end()
        if exchange is not None:
            exchange.on_response_data(data, last)
        self.took(len(data))

    def on_response_end(self, trailers: Fields | None) -> None:
        exchange = self.exchange
        self._hear_end()
        if exchange is not None:
            exchange.on_response_end(trailers)

    def _hear_end(self) -> None:
        self.ended = True
        if self.tunnel and not self.finished and self.exchange is not None:
            return
        self.exchange = None
        self._link.served += 1
        if not self.finished:  # answered before it had heard all: the rest is of no use
            self.end_by_reset(CANCEL)

    def on_response_malformed(self, error: MalformedError) -> None:
        self.end_by_reset(PROTOCOL_ERROR)
        self._fail(error.code)

    # The end --------------------------------------------------------------------------------------

    def on_closed(self, code: int) -> None:
        self.gone()
        if self.exchange is None:
            pass  # as nearly always: it has its answer
        elif code == REFUSED_STREAM and not self.responding:
            self._fail("stream-refused")
        elif code == PROTOCOL_ERROR:
            self._fail("upstream-protocol-error")
        else:
            self._fail("upstream-reset")
        self._link.stream_gone()

    def on_lost(self, code: str) -> None:
        """The connection has gone."""
        self.gone()
        # Perhaps it was on its way out when we used it again; a reset, in contrast, is an answer, and
        # so is nonsense.
        closed = code == "upstream-closed"
        self._fail(code, reused=closed and self._link.served > 0 and not self.responding)

    def _fail(self, code: str, *, reused: bool = False) -> None:
        exchange, self.exchange = self.exchange, None
        if exchange is not None:
            exchange.on_response_reset(code, reused=reused)

    # One side is slower than the other ------------------------------------------------------------

    def pause_response(self) -> None:
        self.pause()

    def resume_response(self) -> None:
        self.resume()

    def on_blocked(self) -> None:
        if self.exchange is not None:
            self.exchange.on_upstream_blocked()

    def on_writable(self) -> None:
        if self.exchange is not None:
            self.exchange.on_upstream_writable()


class Http2Connection(Link[ClientSession]):
    """
    One connection to one endpoint.

    Attributes:
        served: Responses that were complete.
        idle_since: Since when, as far as the sweeps have seen, nothing was asked.
        ungreeted: What waits for the peer to say whether it understands extended CONNECT.
    """

    __slots__ = ("_owner", "_retired", "_served_before", "_to_sidecar", "_unanswered", "idle_since", "served", "ungreeted")  # fmt: skip

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        owner: Owner,
        *,
        to_sidecar: bool = False,
        allowance: Allowance = PEER,
    ) -> None:
        # What another sidecar admits we know before it says so.
        admitted = MAX_STREAMS if to_sidecar else CAUTIOUS_STREAMS
        session = ClientSession(
            self._on_going_away, admitted, self._on_greeted, allowance=allowance
        )
        super().__init__(loop, session)
        self._owner = owner
        self.ungreeted: list[tuple[Http2Stream, RequestHead]] = []
        self._to_sidecar = to_sidecar
        self._retired = False
        self._unanswered = 0
        self._served_before = 0  # the last sweep
        self.served = 0
        self.idle_since = loop.time()

    def __repr__(self) -> str:
        state = "lost" if self.transport is None else "leaving" if not self.usable else "open"
        return (
            f"<Http2Connection {state}, {len(self.session.streams)} streams, served {self.served}>"
        )

    @property
    def usable(self) -> bool:
        """Another request may be sent, now or when a stream has ended."""
        return (
            self.transport is not None
            and not self.transport.is_closing()
            and not (self._retired or self.session.going_away or self.session.closed)
        )

    @property
    def room(self) -> int:
        """How many requests may be sent now."""
        transport = self.transport
        if transport is None or self._retired or transport.is_closing():
            return 0
        return self.session.room

    @property
    def idle(self) -> bool:
        """No stream is open."""
        return not self.session.streams

    def on_connected(self) -> None:
        self.flush_soon()

    # Borrowed by exchanges ------------------------------------------------------------------------

    def lend(self, exchange: Any) -> bool:
        """Give the exchange a stream; return False when there is no room for one."""
        transport = self.transport
        session = self.session  # `room`, without the calls
        if transport is None or self._retired or transport.is_closing():
            return False
        if session.going_away or session.closed or len(session.streams) >= session.admitted:
            return False
        stream = Http2Stream(self)
        stream.exchange = exchange
        exchange.on_upstream_ready(stream)
        return True

    def _on_greeted(self) -> None:
        waiting, self.ungreeted = self.ungreeted, []
        for stream, head in waiting:
            stream.send_late(head)

    def stream_gone(self) -> None:
        if self._retired and not self.session.streams:
            self.loop.call_soon(self.close)
        elif self._owner.waiting and self.usable:
            self._owner.roomier(self)

    # Is anybody there? ----------------------------------------------------------------------------

    def sweep(self, now: float) -> None:
        """
        Ask a sidecar that has been silent whether it is still there; called every few seconds.

        Note, too, whether anything was asked since the last time: looking now costs less than
        noting the time with every answer.

        A connection whose other end has vanished without a word would take every request for
        that endpoint along.  Plain apps are not asked: gRPC servers disconnect whom they find
        too curious.
        """
        if self.session.streams or self.served != self._served_before:
            self._served_before = self.served
            self.idle_since = now
        if self.heard or not self._to_sidecar:
            self.heard = False
            self._unanswered = 0
        elif self._unanswered == PINGS:
            self.abort()
        else:
            self._unanswered += 1
            self.session.ping()
            self.flush_soon()

    # The end --------------------------------------------------------------------------------------

    def _on_going_away(self) -> None:
        """The peer processes no stream above its last; the session fails those by itself."""
        self._owner.leaving(self)
        self.retire()

    def retire(self) -> None:
        """Take no more requests, and close when those under way have ended."""
        self._retired = True
        if self.idle:
            self.loop.call_soon(self.close)

    def on_lost(self, error: Exception | None) -> None:
        code = "upstream-closed"
        if not self.session.greeted and refused_our_certificate(error):
            code = "handshake-failed"
        elif self.session.broken:
            code = "upstream-protocol-error"
        self.session.closed = True
        for stream in list(self.session.streams.values()):
            stream.on_lost(code)
        for waiting, _head in self.ungreeted:
            waiting.on_lost("connect-failed")  # nothing of it was sent
        self.ungreeted.clear()
        self.blocked_streams.clear()
        self._owner.lost(self)
