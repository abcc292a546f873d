"""
Segments: one stream of bytes with an end of its own, inside a connection that has none.

TLS cannot be closed in one direction here, and an end of the transport may be anything: the end of
what was said, a crash, a cut by somebody in between.  So what is said comes in segments, a length of
four bytes (big-endian) and as many bytes, and some lengths are words:

    0               END         nothing more will be said in this direction
    2^32 - 1        HEARD       your end has arrived, and so has all that came before it
    2^32 - 2        WITHDRAWN   forget about it: nothing was said, and nothing will be missed

The first segment of each direction is no data but a **word** of the protocol above, of at most
`LONGEST_WORD` bytes, which is handed on whole.  HEARD alone may come before it: it is about the other
direction.  Data are handed on as they come, in views of what was
fed: nothing is copied, and a segment may be as long as it likes.

What ends without END is broken off.  After END there is nothing but HEARD.
"""

from typing import Final, Protocol

LONGEST_WORD: Final = 512

END: Final = b"\0\0\0\0"
HEARD: Final = b"\xff\xff\xff\xff"
WITHDRAWN: Final = b"\xff\xff\xff\xfe"

_HEADER: Final = 4
_HEARD: Final = 0xFFFFFFFF
_WITHDRAWN: Final = 0xFFFFFFFE


class Sink(Protocol):
    """Hears one direction; it may close the reader, and never feeds it."""

    def on_word(self, word: bytes) -> None: ...
    def on_data(self, data: memoryview) -> None:
        """A part of a segment; the view is valid during the call."""

    def on_end(self) -> None: ...
    def on_heard(self) -> None: ...
    def on_withdrawn(self) -> None: ...
    def on_malformed(self) -> None:
        """Nothing else follows."""


def header(size: int) -> bytes:
    """Return what comes before so many bytes; not 0, which would be an end."""
    return size.to_bytes(_HEADER, "big")


def segment(data: bytes | memoryview) -> bytes:
    """Return a whole segment, for what is small or a word."""
    return header(len(data)) + data


class SegmentReader:
    """
    Attributes:
        closed: Nothing more is to be read; the sink may say so, too.
        headers: How many have been read; for who counts what that costs.
    """

    __slots__ = ("_ended", "_left", "_part", "_word", "closed", "headers")

    def __init__(self) -> None:
        self.closed = False
        self.headers = 0
        self._word: bytes | None = b""  # None: it has been handed on
        self._part = b""  # of a header
        self._left = 0  # of the segment that has begun
        self._ended = False

    def feed(self, data: memoryview, sink: Sink) -> None:
        """Read what has arrived, cut in any way."""
        at, size = 0, len(data)
        while at < size and not self.closed:
            left = self._left
            if not left:
                at = self._begin(data, at, sink)
                continue
            end = at + left
            if end > size:
                end = size
            self._left = left - (end - at)
            if self._word is None:
                sink.on_data(data[at:end])
            else:
                self._take_word(data[at:end], sink)
            at = end

    def _begin(self, data: memoryview, at: int, sink: Sink) -> int:
        """Read a header, or a part of one; return where it ends."""
        end = at + _HEADER - len(self._part)
        part = self._part + bytes(data[at:end])
        if len(part) < _HEADER:
            self._part = part
            return len(data)
        self._part = b""
        self.headers += 1
        length = int.from_bytes(part, "big")
        if length == _HEARD:
            sink.on_heard()
        elif self._ended or (self._word is not None and not 0 < length <= LONGEST_WORD):
            self._fail(sink)
        elif length == 0:
            self._ended = True
            sink.on_end()
        elif length == _WITHDRAWN:
            self.closed = True
            sink.on_withdrawn()
        else:
            self._left = length
        return end

    def _take_word(self, data: memoryview, sink: Sink) -> None:
        word = (self._word or b"") + bytes(data)
        if self._left:
            self._word = word
        else:
            self._word = None
            sink.on_word(word)

    def _fail(self, sink: Sink) -> None:
        self.closed = True
        sink.on_malformed()
