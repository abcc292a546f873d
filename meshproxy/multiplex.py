"""
Many streams on one transport: what the HTTP/2 connections of both sides share.

    exchange ─ send_data ─▶ Stream ─▶ session ─┐ once in one turn of the loop, or two
    exchange ◀─ on_…_data ─ Stream ◀─ session ◀┴▶ transport

`flow.py` says how a slow side stops a fast one; here the same holds stream by stream:

* **Sending.**  What the peer's window does not admit waits in the session.  Above the high-water
  mark the stream is `blocked` and the exchange pauses the other side, until a flush has brought it
  down.  While the transport itself is blocked nothing is flushed, so all streams fill up alike.
* **Receiving.**  While the exchange has paused a stream, what arrives on it is passed on but not
  acknowledged: the peer's window closes, and only for this stream.  What it takes is acknowledged in
  pieces of `WORTH_SAYING`: a small message would cost a call each time and change no window.
"""

import asyncio
from typing import Any, Generic, TypeVar

from meshproxy.codec.http2 import WORTH_SAYING, Session
from meshproxy.flow import COUNTED, RECEIVED, Connection
from meshproxy.message import Fields

SessionT = TypeVar("SessionT", bound=Session)
LinkT = TypeVar("LinkT", bound="Link[Any]")
ExchangeT = TypeVar("ExchangeT")


class Stream(Generic[LinkT, ExchangeT]):
    """
    One exchange's part of a connection.

    Both sides' streams have the same state, so that one is made with one call.

    Attributes:
        id: Number of the stream; 0 before it has one and when it is gone.
        exchange: Whose part it is; None when it has taken its leave, or has not come yet.
        method: Of the request.
        blocked: More waits to be sent than the high-water mark.
        finished: Our half has been said to the end.
        ended: The other half has been heard to the end.
        responding: The response has begun.
        tunnel: It has switched protocols: each half ends by itself.
    """

    __slots__ = (
        "_held", "_link", "_owed", "_paused", "_waiting", "blocked", "ended", "exchange", "finished",
        "id", "method", "responding", "tunnel",
    )  # fmt: skip

    def __init__(self, link: LinkT, stream_id: int = 0) -> None:
        self._link = link
        self.id = stream_id
        self.exchange: ExchangeT | None = None
        self.method = b""
        self.blocked = False
        self.finished = False
        self.ended = False
        self.responding = False
        self.tunnel = False
        self._waiting = 0  # at most this much waits to be sent
        self._paused = False
        self._held = 0
        self._owed = 0  # bytes that were passed on and are not credited yet

    @property
    def address(self) -> str:
        """The IP address of the other end."""
        return self._link.address

    @property
    def unsent(self) -> int:
        """How many bytes wait for the peer's window, or for the connection to take them."""
        return self._link.session.queued(self.id) if self.id else 0

    # Sending --------------------------------------------------------------------------------------

    def send_data(self, data: bytes | memoryview, last: bool = False) -> None:
        if not self.id or self.finished:
            return
        self.finished = last
        link = self._link
        session: Session = link.session
        session.send_data(self.id, data, last)
        if not link.flush_due:
            link.flush_later()
        self._waiting += len(data)
        high = link.turn.high
        if self._waiting > high and not self.blocked:
            self._waiting = session.queued(self.id)
            if self._waiting > high:
                self.blocked = True
                link.blocked_streams.append(self)
                self.on_blocked()

    def send_end(self, trailers: Fields | None) -> None:
        if self.id and not self.finished:
            self.finished = True
            link = self._link
            link.session.send_end(self.id, trailers)
            if not link.flush_due:
                link.flush_later()

    def flushed(self) -> bool:
        """After a flush: say whether enough of it has left for the stream to go on."""
        self._waiting = self._link.session.queued(self.id) if self.id else 0
        return self._waiting <= self._link.turn.low

    def on_blocked(self) -> None: ...
    def on_writable(self) -> None: ...

    # Receiving ------------------------------------------------------------------------------------

    def took(self, amount: int) -> None:
        """Data was passed on: credit it to the peer, when it is worth saying and the exchange goes on."""
        if self._paused:
            self._held += amount
            self._link.session.hold(amount)
            return
        self._owed += amount
        if self._owed >= WORTH_SAYING:
            owed, self._owed = self._owed, 0
            self._link.session.acknowledge(self.id, owed)

    def pause(self) -> None:
        self._paused = True

    def resume(self) -> None:
        self._paused = False
        if self._held:
            held, self._held = self._held, 0
            self._link.session.release(self.id, held)
            self._link.flush_soon()

    # The end --------------------------------------------------------------------------------------

    def tear(self, code: int) -> None:
        """Say no more, for what was said cannot be completed; but that goes out before."""
        link = self._link
        if link.put_off and not link.turn.joined:
            link.flush()
        self.end_by_reset(code)

    def end_by_reset(self, code: int) -> None:
        """Say and hear no more on this stream; what is still to be sent on it is dropped."""
        if self.id:
            self.resume()
            self._link.session.reset(self.id, code)
            self._link.flush_soon()
            self.finished = True

    def gone(self) -> None:
        """The stream is closed on both sides."""
        if self._paused:
            self.resume()
        if self._owed:
            owed, self._owed = self._owed, 0
            self._link.session.settle(self.id, owed)
        self.finished = True
        self.id = 0


class Link(Connection, Generic[SessionT]):
    """
    A connection that carries many exchanges.

    Attributes:
        flush_due: There will be a flush at the end of this turn.
        put_off: There will be one at the end of the next turn, unless one comes before.
        heard: Something has arrived; whoever wants to know since when sets it to False.
        blocked_streams: Those that wait for a flush to bring them down to the low-water mark.
    """

    __slots__ = ("blocked_streams", "flush_due", "heard", "put_off", "session")

    def __init__(self, loop: asyncio.AbstractEventLoop, session: SessionT) -> None:
        super().__init__(loop)
        self.session = session
        self.blocked_streams: list[Stream[Any, Any]] = []
        self.flush_due = False
        self.put_off = False
        self.heard = False

    # Bytes arrive ---------------------------------------------------------------------------------

    def buffer_updated(self, nbytes: int) -> None:
        if nbytes >= COUNTED:
            self.turn.came(nbytes)
        # The session copies what it keeps: no need to copy the shared buffer before.
        self.on_bytes(RECEIVED[:nbytes])

    def on_bytes(self, data: bytes | memoryview) -> None:
        self.heard = True
        session = self.session
        turn = self.turn
        turn.joined = True
        try:
            session.feed(data, self.loop.time())
            if session.closed:
                self.close()
            elif not (self.flush_due or self.put_off) and session.wants_write:
                self.flush_soon()
        finally:
            turn.joined = False

    # Bytes leave ----------------------------------------------------------------------------------

    def flush_soon(self) -> None:
        """Flush at the end of this turn of the loop."""
        if not self.flush_due:
            self.flush_due = True
            turn = self.turn
            if not turn.waiting:
                turn.schedule()
            turn.waiting.append(self)

    def flush_later(self) -> None:
        """
        Flush at the end of the next turn, or of this one if what is passed on has come joined.

        Where one of many connections speaks, others are about to: one poll later there is more for
        the same record and system call.  What has come joined would gain nothing: then one sidecar
        rests while another works.
        """
        turn = self.turn
        if turn.joined:
            self.flush_soon()
        elif not self.put_off:
            self.put_off = True
            if not turn.late:
                turn.schedule_late()
            turn.late.append(self)

    def flush(self) -> None:
        """Send now all that the peer's windows admit."""
        self.flush_due = self.put_off = False
        transport = self.transport
        if transport is None or self.blocked or transport.is_closing():
            return
        data = self.session.data_to_send()
        if data:
            transport.write(data)
            if self.turn.tight:
                self.mark()
        if self.blocked_streams:
            self._unblock()
        if self.session.closed:
            self.close()

    def _unblock(self) -> None:
        """Some bytes have left: let the streams go on that waited for it."""
        waiting, self.blocked_streams = self.blocked_streams, []
        for stream in waiting:
            if stream.flushed():
                stream.blocked = False
                stream.on_writable()
            else:
                self.blocked_streams.append(stream)

    def on_writable(self) -> None:
        self.flush()

    # The end --------------------------------------------------------------------------------------

    def close(self) -> None:
        """Say goodbye, and close once everything written has left."""
        self.session.close()
        if self.transport is not None and not self.transport.is_closing():
            data = self.session.data_to_send()
            if data:
                self.transport.write(data)
            self.transport.close()

    def abort(self) -> None:
        self.session.closed = True
        super().abort()
