"""
The chunked transfer coding: RFC 9112 section 7.1.

    chunked-body = *( size [ extensions ] CRLF data CRLF ) 1*"0" [ extensions ] CRLF trailers CRLF

Every lenient reading of this line has been somebody's smuggling attack: `0x5`, `+5` and `5_0` as
sizes, two arbitrary bytes for a CRLF, line ends hidden in extensions.  Hence no reading here but
the grammar's.  Extensions are checked, counted and dropped: "a recipient MUST ignore unrecognized
chunk extensions", and we recognize none.
"""

import re
from typing import Final

from meshproxy.message import Fields

from . import MalformedError
from .fields import has_bare_line_end, read_trailers
from .limits import Limits

# 16 digits hold any size up to 2^64-1; leading zeros are legal, but not without end.
_SIZE: Final = rb"([0-9A-Fa-f]{1,16})"
_TOKEN: Final = rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]++"
_QUOTED: Final = rb'"(?:[\t !#-\[\]-~\x80-\xff]|\\[\t -~\x80-\xff])*"'
_EXTENSION: Final = (
    rb"[ \t]*+;[ \t]*+" + _TOKEN + rb"(?:[ \t]*+=[ \t]*+(?:" + _TOKEN + rb"|" + _QUOTED + rb"))?"
)
_size_line: Final = re.compile(_SIZE + rb"((?:" + _EXTENSION + rb")*)").fullmatch
_plain_size: Final = re.compile(rb"([0-9A-Fa-f]{1,4})\r\n").match
_LARGEST: Final = 2**63 - 1

# What is expected next.
_SIZE_LINE: Final = 0
_DATA: Final = 1
_DATA_END: Final = 2
_TRAILERS: Final = 3

_LAST_CHUNK: Final = b"0\r\n\r\n"


class ChunkReader:
    """
    Decodes one chunked body.

    Attributes:
        done: The body is complete.
        trailers: Of a complete body; None when there were none to pass on.
        error: What is wrong with the body, or None.  A value rather than an exception, because
            the data before it still counts.
    """

    __slots__ = ("_extensions", "_limits", "_missing", "_state", "done", "error", "trailers")

    def __init__(self, limits: Limits) -> None:
        self.done = False
        self.trailers: Fields | None = None
        self.error: MalformedError | None = None
        self._limits = limits
        self._state = _SIZE_LINE
        self._missing = 0
        self._extensions = 0

    def read(self, buffer: bytes) -> tuple[bytes, bytes]:
        """
        Decode as much of `buffer` as possible; return the data in it, and the bytes not yet used.

        The latter belong at the front of the next buffer, or, once `done`, to the next message.
        """
        # In the middle of a large chunk, which is most of the time: nothing to cut, no copy.
        if self._state == _DATA and len(buffer) < self._missing:
            self._missing -= len(buffer)
            return buffer, b""
        # Many small chunks become one piece of data: their number is the sender's choice, the
        # work behind us should not be.
        pieces: list[bytes] = []
        at = 0
        try:
            at = self._read_whole(buffer, at, pieces)
            while (end := self._step(buffer, at, pieces)) is not None:
                at = end
                if self._state == _SIZE_LINE:
                    at = self._read_whole(buffer, at, pieces)
        except MalformedError as error:
            self.error = error
        return b"".join(pieces), buffer[at:]

    def _read_whole(self, buffer: bytes, at: int, pieces: list[bytes]) -> int:
        """
        Read the small chunks that are all there and plain; return where the first other one begins.

        A sender may make every byte a chunk: a third of the time that `_step` takes for each.
        """
        if self._state != _SIZE_LINE:
            return at
        while (size := _plain_size(buffer, at)) is not None:
            start = size.end()
            end = start + int(size[1], 16)
            if end == start or buffer[end : end + 2] != b"\r\n":
                break  # the last one, or not all there, or wrong: that is for `_step` to say
            pieces.append(buffer[start:end])
            at = end + 2
        return at

    def _step(self, buffer: bytes, at: int, pieces: list[bytes]) -> int | None:
        """Read one element at `at`; return where it ends, or None when it is not all there."""
        state = self._state
        if state == _SIZE_LINE:
            return self._read_size(buffer, at)
        if state == _DATA:
            piece = buffer[at : at + self._missing]
            if not piece:
                return None
            pieces.append(piece)
            self._missing -= len(piece)
            if not self._missing:
                self._state = _DATA_END
            return at + len(piece)
        if state == _DATA_END:
            found = buffer[at : at + 2]
            if not b"\r\n".startswith(found):
                raise MalformedError("malformed-request", "chunk data does not end with CRLF")
            if len(found) < 2:
                return None
            self._state = _SIZE_LINE
            return at + 2
        return None if self.done else self._read_trailers(buffer, at)

    def _read_size(self, buffer: bytes, at: int) -> int | None:
        # 16 digits, the extensions, CRLF.
        bound = at + 16 + self._limits.extension + 2
        end = buffer.find(b"\r\n", at, bound)
        if end < 0:
            if len(buffer) >= bound:
                raise MalformedError("malformed-request", "chunk size line too long")
            if has_bare_line_end(buffer, at, len(buffer), complete=False):
                raise MalformedError("malformed-request", "bare CR or LF in a chunk size line")
            return None
        match = _size_line(buffer, at, end)
        if not match:
            raise MalformedError("malformed-request", f"chunk size {buffer[at:end][:64]!r}")
        extensions = len(match[2])
        self._extensions += extensions
        if extensions > self._limits.extension or self._extensions > self._limits.extensions:
            raise MalformedError("malformed-request", "too many chunk extensions")
        self._missing = int(match[1], 16)
        if self._missing > _LARGEST:
            raise MalformedError("malformed-request", "chunk size beyond 2^63-1")
        self._state = _DATA if self._missing else _TRAILERS
        return end + 2

    def _read_trailers(self, buffer: bytes, at: int) -> int | None:
        if buffer.startswith(b"\r\n", at):
            self.done = True
            return at + 2
        bound = at + self._limits.trailers
        end = buffer.find(b"\r\n\r\n", at, bound)
        complete = end >= 0
        if has_bare_line_end(
            buffer, at, end if complete else min(len(buffer), bound), complete=complete
        ):
            raise MalformedError("malformed-request", "bare CR or LF in the trailer section")
        if not complete:
            if len(buffer) >= bound:
                raise MalformedError("fields-too-large", "trailer section too large")
            return None
        lines = buffer[at:end].split(b"\r\n")
        if len(lines) > self._limits.fields:
            raise MalformedError("fields-too-large", "too many trailers")
        self.trailers = read_trailers(lines)
        self.done = True
        return end + 4


def encode_chunk(data: bytes) -> bytes:
    """Return `data` as one chunk.  No data is no chunk: an empty one would end the body."""
    return b"%x\r\n%b\r\n" % (len(data), data) if data else b""


def encode_last_chunk(trailers: Fields | None) -> bytes:
    """Return the end of a chunked body; trailers' lines go out as they stand."""
    if not trailers:
        return _LAST_CHUNK
    return b"\r\n".join([b"0", *[field[2] for field in trailers], b"\r\n"])
