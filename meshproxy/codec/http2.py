"""
HTTP/2: two sessions that push words into a sink for each stream.  The only file that knows ngh2.

**Theory of operation.**  A session is one connection without its socket.  `feed` takes bytes and
says what they mean, stream by stream; `send_…` take words; `data_to_send` returns the bytes that
both have produced.  The owner flushes once in a turn of its loop or two, always everything: asked for less,
nghttp2 would serve one stream after another.

    bytes ─ feed ─▶ ngh2 ─ events ─▶ on_request_head, on_request_data, … of the stream's sink
    bytes ◀─ data_to_send ─ ngh2 ◀── send_head, send_data, send_end, reset

Closing of streams shows up in either direction: `on_closed` is the last thing a sink hears, and
may come out of `feed` as well as out of `data_to_send`.  As everywhere (`codec/__init__.py`), a
sink may send and may `close` the session, but never feeds.

**Flow control** is end to end: received data is credited to the peer only by `acknowledge`, that
is, when the other side of the exchange has taken it.  A stream has a window of 1 MiB.  The window
of the connection is as large as the protocol allows: with a smaller one, the few streams that
nobody reads would in the end hold all of it, and stop every other stream.  What bounds the sum is
`HELD_LIMIT`: above it all windows shrink until readers have caught up.

**Budgets.**  See `budget.py`; here is counted what spends from them.

**ngh2** is young, and this is what we have learned about it:

* Every send can raise, because the peer may have reset a stream whose event is still unread.
* After a fatal error `data_to_send` itself raises; then nothing but closing is left.
* Requests above the peer's limit of streams are queued silently: we count, and never send them.
* RST_STREAM overtakes what is queued on a stream: a complete answer is flushed first.
* Unacknowledged data of streams that are gone counts against the connection and is credited here.
"""

from collections.abc import Callable
from typing import Any, Final, Protocol

import ngh2

from meshproxy.message import Fields, RequestHead, ResponseHead
from meshproxy.native import mypyc_attr

from . import MalformedError
from .budget import PEER, STRANGER, Allowance, Budget
from .http2_heads import (
    HEADER_LIST_LIMIT,
    read_request_head,
    read_response_head,
    read_trailers,
    request_headers,
    response_headers,
    trailer_headers,
)

__all__ = [
    "CANCEL",
    "CAUTIOUS_STREAMS",
    "CONNECT_ERROR",
    "INTERNAL_ERROR",
    "MAX_STREAMS",
    "NO_ERROR",
    "PEER",
    "REFUSED_STREAM",
    "RequestStream",
    "STRANGER",
    "ClientSession",
    "ServerSession",
    "Session",
]

NO_ERROR: Final = 0x0
PROTOCOL_ERROR: Final = 0x1
INTERNAL_ERROR: Final = 0x2
REFUSED_STREAM: Final = 0x7
CANCEL: Final = 0x8
CONNECT_ERROR: Final = 0xA
ENHANCE_YOUR_CALM: Final = 0xB

STREAM_WINDOW: Final = 1024 * 1024
"""Bytes a peer may send on a stream that nobody reads."""
SMALL_WINDOW: Final = 64 * 1024
"""The same while too much is held."""
WORTH_SAYING: Final = 8 * 1024
"""Bytes of a stream that are credited together: a small part of any window, and more than most bodies."""
HELD_LIMIT: Final = 32 * 1024 * 1024
"""Bytes held for slow readers on one connection above which windows shrink."""
CONNECTION_WINDOW: Final = 2**31 - 1
MAX_STREAMS: Final = 1000
"""Concurrent streams that we admit, and the most that we open whatever the peer admits."""

_ROUND_TRIP: Final = b"shutdown"

_SETTING_PUSH: Final = 2
_SETTING_STREAMS: Final = 3
_SETTING_WINDOW: Final = 4
_SETTING_HEADERS: Final = 6
_SETTING_CONNECT: Final = 8

CAUTIOUS_STREAMS: Final = 100
"""What we take for a server's limit before it has said one (RFC 9113 section 6.5.2)."""

_CONFIGURATION: Final = ngh2.Configuration(
    auto_window_update=False,
    # Never the limit: we count ourselves.
    peer_max_concurrent_streams=MAX_STREAMS,
    # Our own budgets are tighter and know whom they deal with.
    stream_reset_rate_limit=(1_000_000, 100_000),
    # A list above the announced limit is answered on its stream; a connection that many share is
    # given up only for one that is beyond all reason.
    max_inbound_header_list_size=4 * HEADER_LIST_LIMIT,
    max_send_header_block_length=4 * HEADER_LIST_LIMIT,
)


# The classes of the commonest events, each an attribute look-up less.
_REQUEST: Final = ngh2.RequestReceived
_RESPONSE: Final = ngh2.ResponseReceived
_DATA: Final = ngh2.DataReceived
_CLOSED: Final = ngh2.StreamClosed
_TRAILERS: Final = ngh2.TrailersReceived


class Sink(Protocol):
    """
    One stream, as its session sees it.

    Attributes:
        finished: Our half has been said to the end.
    """

    finished: bool

    def on_closed(self, code: int) -> None:
        """The stream is gone, with this error code; 0 after a complete conversation."""


class RequestStream(Sink, Protocol):
    """A stream of a server; like a `RequestSink`, it hears no end where there is no body."""

    def on_request_head(self, head: RequestHead) -> None: ...
    def on_request_data(self, data: bytes, last: bool = False) -> None: ...
    def on_request_end(self, trailers: Fields | None) -> None: ...
    def on_request_malformed(self, error: MalformedError) -> None: ...


class ResponseStream(Sink, Protocol):
    """
    A stream of a client.

    Attributes:
        method: Of its request as it went out; the answer to HEAD has no body, the one to CONNECT
            may open a tunnel.
    """

    method: bytes

    def on_response_informational(self, head: ResponseHead) -> None: ...
    def on_response_head(self, head: ResponseHead) -> None: ...
    def on_response_data(self, data: bytes, last: bool = False) -> None: ...
    def on_response_end(self, trailers: Fields | None) -> None: ...
    def on_response_malformed(self, error: MalformedError) -> None: ...
    def on_lost(self, code: str) -> None:
        """The connection has gone; said by who owns it."""


@mypyc_attr(allow_interpreted_subclasses=True)
class Session:
    """
    What both ends of a connection have in common.

    Attributes:
        closed: Nothing will be read or said any more; flush what is there and close the socket.
        calmed: It was closed because the peer has spent its budget.
        broken: It was closed because what the peer said is no HTTP/2, if anybody is left to care.
        held: Bytes that sinks have been given and have not acknowledged.
        streams: Those that are open, by number.
        on_part: Called when what has come was no whole frame, or no whole head, or nothing to us.
    """

    __slots__ = ("_control", "_engine", "_left_over", "_now", "_ours", "_small", "_torn", "_useful", "broken", "calmed", "closed", "held", "on_part", "streams")  # fmt: skip

    streams: dict[int, Any]

    def __init__(self, engine: ngh2.Connection, allowance: Allowance) -> None:
        self._engine = engine
        self._control = Budget(*allowance.control)
        self._torn = Budget(*allowance.torn)
        self._ours: set[int] = set()  # streams that we reset ourselves, for our own reasons
        self._small = False
        self._left_over = 0  # by streams that are gone, to be credited
        self._useful = 0  # frames that earn, since the last that spent
        self._now = 0.0
        self.closed = False
        self.calmed = False
        self.broken = False
        self.held = 0
        self.on_part: Callable[[], None] = _nobody

    # Bytes arrive ---------------------------------------------------------------------------------

    def feed(self, data: bytes | memoryview, now: float) -> None:
        """Take bytes from the peer.  Whatever they are, this does not raise."""
        if self.closed:
            return
        self._now = now
        try:
            self._engine.receive_data(data)
        except ngh2.NGH2Error:
            self._dispatch(self._engine.events())
            self.closed = self.broken = True
            return
        events = self._engine.events()
        if events:
            self._dispatch(events)
        else:
            self.on_part()

    def _dispatch(self, events: list[Any]) -> None:
        """Tell each to the method that it is for, the commonest first; stop when closed."""
        raise NotImplementedError

    def _on_other(self, event: Any) -> None:
        kind = event.__class__
        if kind is ngh2.ConnectionClosed:
            self.closed = True
        elif kind is not ngh2.StreamReset:  # after which StreamClosed comes, with the same code
            self._spend()  # what moves no request along, and costs

    def _spend(self) -> None:
        """The peer made us do something that serves no request."""
        if self._useful:
            self._control.earn(self._useful)
            self._useful = 0
        if not self._control.spend(self._now):
            self.calm()

    def _on_stream_torn(self, stream_id: int, code: int, sink: Sink | None) -> None:
        """A stream was closed with an error, or some that we reset are not closed yet."""
        if stream_id in self._ours:
            self._ours.discard(stream_id)
        elif code and (sink is None or not sink.finished) and not self._torn.spend(self._now):
            self.calm()
        if sink is not None:
            sink.on_closed(code)

    def calm(self) -> None:
        """The peer wears us out: say so, and close."""
        if not self.closed:
            self.calmed = True
            self._guarded(self._engine.terminate_connection, ENHANCE_YOUR_CALM)
            self.closed = True

    # Bytes leave ----------------------------------------------------------------------------------

    def data_to_send(self) -> bytes:
        """Return all that is to be sent now; streams that end with it hear `on_closed`."""
        try:
            data = self._engine.data_to_send()
        except ngh2.NGH2Error:
            self.closed = True
            return b""
        if not self.closed:
            events = self._engine.events()
            if events:  # flushed requests make none, whole responses do
                self._dispatch(events)
            if not (self._engine.want_read or self._engine.want_write):
                # After a GOAWAY in order no stream is open by now; after the one that the engine has
                # just sent for an error of the peer's, those that are will hear why.
                self.closed = self.broken = True
        return data

    @property
    def wants_write(self) -> bool:
        """There is something to flush."""
        return self._engine.want_write

    def queued(self, stream_id: int) -> int:
        """Return the bytes of a stream that wait for the peer's window or for a flush."""
        try:
            return self._engine.queued_body_size(stream_id)
        except ngh2.NGH2Error:
            return 0

    def send_data(self, stream_id: int, data: bytes | memoryview, last: bool = False) -> None:
        self._useful += 2  # the peer may credit it
        try:
            self._engine.send_data(stream_id, data, end_stream=last)
        except ngh2.NGH2Error:  # the stream has gone: see `_guarded`
            return

    def send_end(self, stream_id: int, trailers: Fields | None) -> None:
        try:
            if trailers:
                self._engine.send_trailers(stream_id, trailer_headers(trailers))
            else:
                self._engine.end_stream(stream_id)
        except ngh2.NGH2Error:
            return

    def reset(self, stream_id: int, code: int) -> None:
        """End a stream for a reason of our own; its sink hears `on_closed` in time."""
        if self._guarded(self._engine.reset_stream, stream_id, code):
            self._ours.add(stream_id)

    def ping(self) -> None:
        """Make the peer say something."""
        self._guarded(self._engine.ping)

    def _guarded(self, action: Callable[..., object], *arguments: object) -> bool:
        """
        Do it unless the stream or the connection has gone, of which an event tells or told.

        The words that every request says have this `try` in them: a call less.
        """
        try:
            action(*arguments)
        except (ngh2.NGH2Error, ValueError):
            return False
        return True

    # Credit ---------------------------------------------------------------------------------------

    def hold(self, amount: int) -> None:
        """Received data stays unacknowledged because its reader is slow."""
        self.held += amount
        if self.held > HELD_LIMIT and not self._small:
            self._small = True
            self._guarded(self._engine.update_settings, {_SETTING_WINDOW: SMALL_WINDOW})

    def acknowledge(self, stream_id: int, amount: int) -> None:
        """Data has been taken: the peer may send as much again, also when its stream has gone."""
        if amount:
            try:
                self._engine.acknowledge_received_data(amount, stream_id)
            except (ngh2.NGH2Error, ValueError):
                return

    def settle(self, stream_id: int, amount: int) -> None:
        """Credit what a stream that is gone has left over: to the connection, and rarely."""
        self._left_over += amount
        if self._left_over >= SMALL_WINDOW:
            amount, self._left_over = self._left_over, 0
            self.acknowledge(stream_id, amount)

    def release(self, stream_id: int, amount: int) -> None:
        """Data that was held has been taken."""
        self.held -= amount
        self.acknowledge(stream_id, amount)
        if self._small and self.held < HELD_LIMIT // 2:
            self._small = False
            self._guarded(self._engine.update_settings, {_SETTING_WINDOW: STREAM_WINDOW})

    # Life of the connection -----------------------------------------------------------------------

    def close(self) -> None:
        """Say goodbye now; streams that are still open are lost."""
        if not self.closed:
            self._guarded(self._engine.terminate_connection, NO_ERROR)
            self.closed = True


def _nobody() -> None:
    """Nobody wants to know."""


def _nothing(stream_id: int) -> RequestStream:
    """Nothing is opened where nobody is."""
    raise RuntimeError(f"stream {stream_id} on a connection that has gone")


class ServerSession(Session):
    """
    The end that requests come to; `open_stream` makes the sink of each.

    Attributes:
        streams: Those that are open.
    """

    __slots__ = ("_last", "_open_stream")

    def __init__(
        self, open_stream: Callable[[int], RequestStream], allowance: Allowance = STRANGER
    ) -> None:
        engine = ngh2.Connection(ngh2.Role.SERVER, _CONFIGURATION)
        super().__init__(engine, allowance)
        self._open_stream = open_stream
        self.streams: dict[int, RequestStream] = {}
        self._last = 0
        engine.initiate_connection(
            {
                _SETTING_STREAMS: MAX_STREAMS,
                _SETTING_WINDOW: STREAM_WINDOW,
                _SETTING_HEADERS: HEADER_LIST_LIMIT,
                _SETTING_CONNECT: 1,  # RFC 8441 section 3: CONNECT with :protocol is understood
            }
        )
        engine.set_local_window_size(CONNECTION_WINDOW)

    def forget(self) -> None:
        """Know nothing of its connection, which has gone: both would wait for the cycle collector."""
        self.closed = True
        self.on_part = _nobody
        self._open_stream = _nothing

    # Requests -------------------------------------------------------------------------------------

    def _on_ping_answered(self, event: ngh2.PingAcknowledged) -> None:
        if event.opaque_data == _ROUND_TRIP:
            self.refuse_more()
        self._spend()

    def _dispatch(self, events: list[Any]) -> None:
        for event in events:
            kind = event.__class__
            if kind is _REQUEST:
                self._on_head(event)
            elif kind is _CLOSED:
                self._on_stream_closed(event)
            elif kind is _DATA:
                self._on_data(event)
            elif kind is _TRAILERS:
                self._on_trailers(event)
            elif kind is ngh2.PingAcknowledged:
                self._on_ping_answered(event)
            else:
                self._on_other(event)
            if self.closed:
                return

    def _on_head(self, event: ngh2.RequestReceived) -> None:
        stream_id, ended = event.stream_id, event.end_stream
        self._last = stream_id
        self._useful += 4
        self.streams[stream_id] = stream = self._open_stream(stream_id)
        try:
            head = read_request_head(event.headers, ended=ended)
        except MalformedError as error:
            stream.on_request_malformed(error)
            return
        stream.on_request_head(head)
        if ended and head.length is not None and not self.closed:
            stream.on_request_end(None)

    def _on_data(self, event: ngh2.DataReceived) -> None:
        stream_id, data, ended = event.stream_id, event.data, event.end_stream
        stream = self.streams.get(stream_id)
        if stream is None:
            self.acknowledge(stream_id, len(data))
            return
        if data:
            self._useful += 2
            stream.on_request_data(data, ended)
        elif ended:
            stream.on_request_end(None)
        else:
            self._spend()

    def _on_trailers(self, event: ngh2.TrailersReceived) -> None:
        stream = self.streams.get(event.stream_id)
        if stream is None:
            return
        try:
            trailers = read_trailers(event.headers)
        except MalformedError as error:
            stream.on_request_malformed(error)
        else:
            stream.on_request_end(trailers)

    def _on_stream_closed(self, event: ngh2.StreamClosed) -> None:
        stream_id, code = event.stream_id, event.error_code
        stream = self.streams.pop(stream_id, None)
        if code or self._ours:
            self._on_stream_torn(stream_id, code, stream)
        elif stream is not None:
            stream.on_closed(code)

    # Responses ------------------------------------------------------------------------------------

    def send_informational(self, stream_id: int, head: ResponseHead) -> None:
        self._guarded(self._engine.send_informational_response, stream_id, response_headers(head))

    def send_head(self, stream_id: int, head: ResponseHead, *, ended: bool) -> None:
        """Begin the response; with `ended` this is all of it."""
        try:
            self._engine.send_response(stream_id, response_headers(head), end_stream=ended)
        except ngh2.NGH2Error:
            return
        self._useful += 4

    # Going away -----------------------------------------------------------------------------------

    def announce_shutdown(self) -> None:
        """
        First step of a graceful shutdown (RFC 9113 section 6.8): no new requests, please.

        Those already on their way are still served, until `refuse_more`: by itself after a round
        trip, which a ping measures, or by a call, for peers that do not answer it.
        """
        self._guarded(self._engine.send_shutdown_notice)
        self._guarded(self._engine.ping, _ROUND_TRIP)

    def refuse_more(self) -> None:
        """Second step: streams above the last one seen are not processed, and the peer knows."""
        if not self.closed:
            self._guarded(self._send_goaway)

    def _send_goaway(self) -> None:
        self._engine.send_goaway(NO_ERROR, last_stream_id=self._last)


class ClientSession(Session):
    """
    The end that requests come from.

    Attributes:
        going_away: The peer takes no new requests on this connection.
        greeted: The peer's settings have arrived.
        switches: The peer understands CONNECT with :protocol, which must not be sent otherwise
            (RFC 8441 section 3); not known before it has greeted.
        streams: Those that are open.
        admitted: How many the peer takes at once.
    """

    __slots__ = ("_header_limit", "_on_going_away", "_on_greeted", "admitted", "going_away", "greeted", "switches")  # fmt: skip

    def __init__(
        self,
        on_going_away: Callable[[], None],
        admitted: int = CAUTIOUS_STREAMS,
        on_greeted: Callable[[], None] = lambda: None,
        *,
        allowance: Allowance = PEER,
    ) -> None:
        """Begin; `admitted` holds until the peer says how many streams it takes."""
        engine = ngh2.Connection(ngh2.Role.CLIENT, _CONFIGURATION)
        super().__init__(engine, allowance)
        self._on_going_away = on_going_away
        self._on_greeted = on_greeted
        self.streams: dict[int, ResponseStream] = {}
        self.admitted = admitted
        self._header_limit = HEADER_LIST_LIMIT
        self.going_away = False
        self.greeted = False
        self.switches = False
        engine.initiate_connection(
            {
                _SETTING_PUSH: 0,
                _SETTING_WINDOW: STREAM_WINDOW,
                _SETTING_HEADERS: HEADER_LIST_LIMIT,
            }
        )
        engine.set_local_window_size(CONNECTION_WINDOW)

    @property
    def room(self) -> int:
        """How many more requests the peer would take at once."""
        if self.going_away or self.closed:
            return 0
        return self.admitted - len(self.streams)

    # Requests -------------------------------------------------------------------------------------

    def send_head(self, stream: ResponseStream, head: RequestHead, *, ended: bool) -> int:
        """
        Begin a request and return its stream's number; with `ended` this is all of it.

        Raises:
            MalformedError: The peer would not take it, and might close the connection over it:
                `fields-too-large`; or it takes no request at all any more: `stream-refused`.
        """
        headers, size = request_headers(head)
        if size > self._header_limit:
            raise MalformedError(
                "fields-too-large", f"{size} bytes, the peer takes {self._header_limit}"
            )
        try:
            stream_id = self._engine.send_request(headers, end_stream=ended)
        except ngh2.NGH2Error as error:
            raise MalformedError("stream-refused", str(error)) from None
        self.streams[stream_id] = stream
        return stream_id

    # Responses ------------------------------------------------------------------------------------

    def _on_goaway(self, _: ngh2.GoAwayReceived) -> None:
        self.going_away = True
        self._on_going_away()

    def _on_settings(self, event: ngh2.SettingsReceived) -> None:
        self._spend()
        current = self._engine.remote_settings
        self.switches = bool(current.get(_SETTING_CONNECT))
        self.admitted = min(current.get(_SETTING_STREAMS, MAX_STREAMS), MAX_STREAMS)
        # Where nothing was announced we assume that the peer takes what we would.
        self._header_limit = event.settings.get(_SETTING_HEADERS, self._header_limit)
        if not self.greeted:
            self.greeted = True
            self._on_greeted()

    def _on_informational(self, event: ngh2.InformationalResponseReceived) -> None:
        stream = self.streams.get(event.stream_id)
        if stream is None:
            return
        self._spend()
        if self.closed:
            return
        try:
            head = read_response_head(event.headers, stream.method, ended=False)
        except MalformedError as error:
            stream.on_response_malformed(_fault_of_upstream(error))
        else:
            stream.on_response_informational(head)

    def _dispatch(self, events: list[Any]) -> None:
        for event in events:
            kind = event.__class__
            if kind is _RESPONSE:
                self._on_head(event)
            elif kind is _DATA:
                self._on_data(event)
            elif kind is _CLOSED:
                self._on_stream_closed(event)
            elif kind is _TRAILERS:
                self._on_trailers(event)
            else:
                self._on_rare(event)
            if self.closed:
                return

    def _on_rare(self, event: Any) -> None:
        kind = event.__class__
        if kind is ngh2.InformationalResponseReceived:
            self._on_informational(event)
        elif kind is ngh2.SettingsReceived:
            self._on_settings(event)
        elif kind is ngh2.GoAwayReceived:
            self._on_goaway(event)
        else:
            self._on_other(event)

    def _on_head(self, event: ngh2.ResponseReceived) -> None:
        stream_id, ended = event.stream_id, event.end_stream
        stream = self.streams.get(stream_id)
        if stream is None:
            return
        self._useful += 4
        try:
            head = read_response_head(event.headers, stream.method, ended=ended)
        except MalformedError as error:
            stream.on_response_malformed(_fault_of_upstream(error))
            return
        stream.on_response_head(head)
        if ended and not self.closed:
            stream.on_response_end(None)

    def _on_data(self, event: ngh2.DataReceived) -> None:
        stream_id, data, ended = event.stream_id, event.data, event.end_stream
        stream = self.streams.get(stream_id)
        if stream is None:
            self.acknowledge(stream_id, len(data))
            return
        if data:
            self._useful += 2
            stream.on_response_data(data, ended)
        elif ended:
            stream.on_response_end(None)
        else:
            self._spend()

    def _on_trailers(self, event: ngh2.TrailersReceived) -> None:
        stream = self.streams.get(event.stream_id)
        if stream is None:
            return
        try:
            trailers = read_trailers(event.headers)
        except MalformedError as error:
            stream.on_response_malformed(_fault_of_upstream(error))
        else:
            stream.on_response_end(trailers)

    def _on_stream_closed(self, event: ngh2.StreamClosed) -> None:
        stream_id, code = event.stream_id, event.error_code
        stream = self.streams.pop(stream_id, None)
        if code or self._ours:
            self._on_stream_torn(stream_id, code, stream)
        elif stream is not None:
            stream.on_closed(code)


def _fault_of_upstream(error: MalformedError) -> MalformedError:
    """A response that is not valid is never the client's mistake."""
    return MalformedError("upstream-protocol-error", error.detail)
