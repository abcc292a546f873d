"""
A lane: a TLS connection between two sidecars that carries one opaque connection and no other.

On a trunk (`downstream/trunk.py`) an opaque connection is a stream among many: new ones cost next to
nothing, but its bytes are cut into frames of 16 KiB, copied into them and out of them, and credited.
Where much is moved, a handshake is the cheaper price: here the bytes go from the one socket through
the cipher into the other, with a length before them (`codec/segments.py`).

    A  authority ▶ data* ▶ END                    B  accepted | a refusal's code ▶ data* ▶ END

Both may speak at once; A does not wait for the answer, as on a trunk.  Each half ends on its own, and
what breaks off without END is a reset, however TLS itself may have ended.

**Whose turn it is.**  A loop reads from a socket up to 32 times before it looks at the next, and here
that may be 8 MiB.  After `BURST` a lane rests until the turn has ended, or eight of them would keep
everybody else waiting for a tenth of a second.

**Who closes.**  Closing a TLS transport gives its peer a second or two to take the rest.  That may be
much, to somebody slow.  So each end is acknowledged (HEARD), and a side closes when all that it has said
has arrived and it has heard all: then there is nothing left that could be lost.
"""

import asyncio
from typing import Final

from meshproxy.codec.segments import END, HEARD, WITHDRAWN, SegmentReader, header, segment
from meshproxy.flow import COUNTED, RECEIVED, Connection
from meshproxy.relay import Bytes
from meshproxy.tunnel import SIDECARS, end_with_reset, keep_alive, vanished

ACCEPTED: Final = b"accepted"
"""The word of B, when the app's socket stands; a code of `refusal.py` where it does not."""

BURST: Final = 1 << 20
"""Bytes after which the others of this loop have their turn: it would read thirty times as much."""

HEADER_COSTS: Final = 2048
"""Bytes that take as long as to begin a segment: a peer may send 50,000 with what is read at once."""

_ONE_RECORD: Final = 16 * 1024 - 4
"""What is not larger leaves in one TLS record with its header."""


class Lane(Connection):
    """
    What both sides have in common; subclasses say who hears of it.

    Attributes:
        said_end: Our direction has ended.
        heard_end: The peer's direction has ended.
    """

    __slots__ = (
        "_arrived", "_listed", "_paused", "_reader", "_resting", "_turned", "heard_end", "said_end",
    )  # fmt: skip

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(loop)
        self._reader = SegmentReader()
        self.said_end = False
        self.heard_end = False
        self._arrived = False  # all that we have said
        self._turned = 0  # bytes that have gone through in this turn of the loop
        self._listed = False  # for its end
        self._resting = False  # until then
        self._paused = False  # by the relay

    def __repr__(self) -> str:
        state = "lost" if self.transport is None else "open"
        return (
            f"<{type(self).__name__} {state}, said end {self.said_end}, heard end {self.heard_end}>"
        )

    # What subclasses fill in, besides `on_word`, `on_data` and `on_withdrawn` of a `segments.Sink` --

    def on_word(self, word: bytes) -> None: ...
    def on_data(self, data: memoryview) -> None: ...
    def on_withdrawn(self) -> None: ...
    def on_malformed(self) -> None: ...

    def on_other_end(self) -> None:
        """The peer's direction has ended."""

    def on_torn(self, error: Exception | None) -> None:
        """The connection has gone before both directions had ended."""

    def on_gone(self) -> None:
        """The connection has gone, in whatever way; the last word."""

    # Sending --------------------------------------------------------------------------------------

    def send_word(self, word: bytes) -> None:
        """Say the first segment."""
        self._say(segment(word))

    def send_data(self, data: Bytes) -> None:
        transport = self.transport
        if transport is None or self.said_end or not data or transport.is_closing():
            return
        if self._goes_on_too_long(len(data)):
            self.on_blocked()
        if len(data) <= _ONE_RECORD:
            transport.write(segment(data))
        else:
            # Encrypted before the call returns, so a view of the shared buffer need not be copied.
            transport.writelines((header(len(data)), data))
        if self.turn.tight:
            self.mark()

    def send_end(self) -> None:
        if not self.said_end:
            self.said_end = True
            self._say(END)

    def _say(self, data: bytes) -> None:
        if self.transport is not None:
            self.transport.write(data)

    def pause(self) -> None:
        self._paused = True
        self.pause_reading()

    def resume(self) -> None:
        self._paused = False
        if not self._resting:
            self.resume_reading()

    def _goes_on_too_long(self, amount: int) -> bool:
        """Count what this turn has moved; say whether it is time to let others have theirs."""
        self._turned += amount
        if not self._listed:
            self._listed = True
            turn = self.turn
            if not turn.waiting:
                turn.schedule()
            turn.waiting.append(self)
        if self._turned < BURST or self._resting:
            return False
        self._resting = True
        return True

    def flush(self) -> None:
        """The turn has ended."""
        self._listed = False
        self._turned = 0
        if self._resting:
            self._resting = False
            if self.transport is None or self.transport.is_closing():
                return
            if not self._paused:
                self.resume_reading()
            if not self.blocked:
                self.on_writable()

    def reset(self) -> None:
        """End both halves, and let the peer see that it is no end."""
        self.abort()

    def look(self) -> None:
        """See whether anybody is there; called every few seconds."""
        if vanished(self.transport, SIDECARS):
            self.abort()

    def withdraw(self) -> None:
        """End both halves quietly: nothing was said, and nothing will be missed."""
        self.said_end = self.heard_end = True
        self._reader.closed = True
        self._say(WITHDRAWN)
        self.close()

    def abort(self) -> None:
        self._reader.closed = True
        if self.transport is not None and not self.transport.is_closing():
            end_with_reset(self.transport)
        super().abort()

    # Receiving ------------------------------------------------------------------------------------

    def on_connected(self) -> None:
        keep_alive(self.transport, SIDECARS)

    def buffer_updated(self, nbytes: int) -> None:
        if nbytes >= COUNTED:
            self.turn.came(nbytes)
        if self._goes_on_too_long(nbytes):
            self.pause_reading()
        reader = self._reader
        reader.feed(RECEIVED[:nbytes], self)
        headers, reader.headers = reader.headers, 0
        if self._goes_on_too_long(headers * HEADER_COSTS) and not reader.closed:
            self.pause_reading()

    def on_bytes(self, data: bytes) -> None:
        self._reader.feed(memoryview(data), self)

    def on_end(self) -> None:
        self.heard_end = True
        self._say(HEARD)
        self.on_other_end()
        self._close_if_done()

    def on_heard(self) -> None:
        if not self.said_end:
            self.on_malformed()
            return
        self._arrived = True
        self._close_if_done()

    def _close_if_done(self) -> None:
        if self._arrived and self.heard_end:
            self.close()

    def on_lost(self, error: Exception | None) -> None:
        self._reader.closed = True
        if not (self.said_end and self.heard_end):
            self.said_end = self.heard_end = True
            self.on_torn(error)
        self.on_gone()
