"""
HTTP/1.1: two readers that push words into a sink, and writers that join bytes.

**Theory of operation.**  A reader holds one buffer of bytes and a state; the state says which
step takes the next bytes out of the buffer:

    request    HEAD → (SIZED | CHUNKED | SWITCHING ─ decline()) → ENDED ─ next() → HEAD …
    response   IDLE ─ expect() → HEAD → (SIZED | CHUNKED | UNTIL_CLOSE) → IDLE …
    both       any state → DEAF: malformed, or closed; nothing is read or said any more

`feed` adds bytes and runs steps until one lacks bytes or the state is one that waits for a call.
A step changes buffer and state *before* it calls the sink: so the sink may close, or say `next`
or `expect`, from within any callback, and after every call out the step looks at the state again.

**One message at a time.**  A client may pipeline, but the second request is not looked at until
the first has its response, so responses cannot overtake each other and nothing is queued but
bytes.  The connection stops reading from the socket when `held` grows.

**Switching protocols.**  After a request that asks for it nothing is read until the answer has
come: what the client says early would be data of the new protocol, or the next request, and which
of the two is not the client's to decide.  If the answer switches, whoever carries the tunnel takes
what is `held` and the connection along (`surrender`); otherwise the request was one without a body
(`decline`).

One empty line before a request is skipped (RFC 9112 section 2.2), a second one is not.  What is
malformed ends the connection; `heads`, `fields`, `framing`, `target` and `chunked` say what is.
"""

from http import HTTPStatus
from typing import Final

from meshproxy.message import CHUNKED, TUNNEL, Fields, RequestHead, ResponseHead

from . import MalformedError, RequestSink, ResponseSink
from .chunked import ChunkReader, encode_chunk, encode_last_chunk
from .heads import check_unfinished_head, read_request_head, read_response_head
from .limits import LIMITS, Limits

__all__ = [
    "LIMITS",
    "Limits",
    "RequestReader",
    "ResponseReader",
    "encode_chunk",
    "encode_informational",
    "encode_last_chunk",
    "encode_request_head",
    "encode_response_head",
    "encode_switch",
]

# States; plain numbers because they are compared several times per message.
_HEAD: Final = 0
_SIZED: Final = 1
_CHUNKED: Final = 2
_UNTIL_CLOSE: Final = 3
_ENDED: Final = 4  # of a request: wait for next(); of a response: bytes are left over
_IDLE: Final = 5  # of a response: wait for expect()
_DEAF: Final = 6
_SWITCHING: Final = 7  # of a request: wait for decline() or surrender()


class RequestReader:
    """
    Reads the requests of one connection and pushes them into a `RequestSink`.

    Attributes:
        keep_alive: The connection may serve another request after the current one.
        http10: The current request is HTTP/1.0.
        held: Bytes held back: pipelined behind the current request, or an unfinished head.
    """

    __slots__ = (
        "_blank_line_skipped", "_chunks", "_limits", "_missing", "_running", "_sink",
        "_state", "held", "http10", "keep_alive",
    )  # fmt: skip

    def __init__(self, sink: RequestSink, limits: Limits = LIMITS) -> None:
        self.keep_alive = True
        self.http10 = False
        self._sink = sink
        self._limits = limits
        self._state = _HEAD
        self._running = False
        self.held = b""
        # Of the current request
        self._blank_line_skipped = False
        self._missing = 0
        self._chunks: ChunkReader | None = None

    @property
    def in_head(self) -> bool:
        """Some but not all of a head has arrived."""
        return self._state == _HEAD and bool(self.held)

    # Bytes arrive…

    def feed(self, data: bytes) -> None:
        """Take bytes from the peer.  Whatever they are, this does not raise."""
        if self._state == _DEAF:
            return
        self.held = self.held + data if self.held else data
        # A sink that answers at once says `next` from within a step; the loop that is already
        # running then goes on, however many requests were pipelined, without recursion.
        if self._running:
            return
        self._running = True
        try:
            while self.held:
                state = self._state
                if state == _HEAD:
                    going = self._read_head()
                elif state == _SIZED:
                    going = self._read_sized()
                elif state == _CHUNKED:
                    going = self._read_chunked()
                else:
                    break
                if not going:
                    break
        except MalformedError as error:
            self.close()
            self._sink.on_request_malformed(error)
        finally:
            self._running = False

    # …a head first…

    def _read_head(self) -> bool:
        buffer = self.held
        if buffer[0] == 13 and not self._blank_line_skipped:
            return self._skip_blank_line()
        whole, end, rest = buffer.partition(b"\r\n\r\n")
        if not end or len(whole) + 4 > self._limits.head:
            check_unfinished_head(buffer, self._limits)
            return False
        self.held = rest
        # A CR or LF that stands alone is now inside some line, and no line admits one.
        lines = whole.split(b"\r\n")
        head, self.keep_alive, self.http10 = read_request_head(lines, self._limits)
        length = head.length
        if length is None:
            self._state = _ENDED  # that was all of it: no end follows
        elif length == CHUNKED:
            self._chunks = ChunkReader(self._limits)
            self._state = _CHUNKED
        else:
            self._missing = length
            self._state = _SIZED if length != TUNNEL else _SWITCHING
        self._sink.on_request_head(head)
        if length == 0 and self._state == _SIZED:
            self._end(None)
        return self._state != _DEAF

    def _skip_blank_line(self) -> bool:
        # RFC 9112 section 2.2: "a server … SHOULD ignore at least one empty line (CRLF) received
        # prior to the request-line".
        if len(self.held) < 2:
            return False
        if self.held[1] != 10:
            raise MalformedError("malformed-request", "bare CR before the request line")
        self.held = self.held[2:]
        self._blank_line_skipped = True
        return True

    # …then the body, if any…

    def _read_sized(self) -> bool:
        data = self.held
        if len(data) > self._missing:
            data, self.held = data[: self._missing], data[self._missing :]
        else:
            self.held = b""
        self._missing -= len(data)
        if self._missing:
            self._sink.on_request_data(data)
        else:
            self._state = _ENDED
            self._sink.on_request_data(data, True)
        return self._state != _DEAF

    def _read_chunked(self) -> bool:
        chunks = self._chunks
        assert chunks is not None
        data, self.held = chunks.read(self.held)
        if data:
            self._sink.on_request_data(data)
            if self._state != _CHUNKED:
                return False
        if chunks.error is not None:
            raise chunks.error
        if not chunks.done:
            return False
        self._end(chunks.trailers)
        return self._state != _DEAF

    # …and the end; what comes behind it waits until the response is done.

    def _end(self, trailers: Fields | None) -> None:
        self._state = _ENDED
        self._chunks = None
        self._sink.on_request_end(trailers)

    def next(self) -> None:
        """
        Go on: the current request has ended and its response is done.

        Pushes the next request at once when it is already here.
        """
        if self._state == _DEAF:
            return
        assert self._state == _ENDED, "next() before the end of the request"
        if not self.keep_alive:
            self.close()
            return
        self._state = _HEAD
        self._blank_line_skipped = False
        if self.held:
            self.feed(b"")

    # …unless the request asks to switch protocols.

    def decline(self) -> None:
        """The answer does not switch: the request has ended with its head."""
        if self._state == _SWITCHING:
            self._state = _ENDED

    def surrender(self) -> bytes:
        """The answer switches: return what the client has said early, and read no more."""
        early = self.held
        self.close()
        return early

    def close(self) -> None:
        """Say nothing any more, whatever arrives."""
        self._state = _DEAF
        self.held = b""
        self._chunks = None


class ResponseReader:
    """
    Reads the responses of one connection and pushes them into a `ResponseSink`.

    Attributes:
        keep_alive: The connection may carry another request after the current response, as far
            as the response tells.
    """

    __slots__ = (
        "_buffer", "_chunks", "_informational", "_limits", "_method", "_missing", "_running",
        "_sink", "_state", "keep_alive",
    )  # fmt: skip

    def __init__(self, sink: ResponseSink, limits: Limits = LIMITS) -> None:
        self.keep_alive = True
        self._sink = sink
        self._limits = limits
        self._state = _IDLE
        self._running = False
        self._buffer = b""
        # Of the current response
        self._method = b""
        self._informational = 0
        self._missing = 0
        self._chunks: ChunkReader | None = None

    @property
    def idle(self) -> bool:
        """Nothing is expected and nothing has come."""
        return self._state == _IDLE and not self._buffer

    @property
    def untouched(self) -> bool:
        """A response is expected, and not a byte of it has arrived: the request may be unread."""
        return self._state == _HEAD and not self._buffer and not self._informational

    # A request goes out…

    def expect(self, method: bytes) -> None:
        """The next response answers a request with this method.  Only when `idle`."""
        if self._state == _DEAF:
            return
        assert self._state == _IDLE, "expect() before the end of the last response"
        self._state = _HEAD
        self._method = method
        self._informational = 0
        self.keep_alive = True

    # …bytes come back…

    def feed(self, data: bytes) -> None:
        """Take bytes from the peer.  Whatever they are, this does not raise."""
        if self._state == _DEAF:
            return
        self._buffer = self._buffer + data if self._buffer else data
        if self._running:
            return
        self._running = True
        try:
            while self._buffer:
                state = self._state
                if state == _HEAD:
                    going = self._read_head()
                elif state == _SIZED:
                    going = self._read_sized()
                elif state == _CHUNKED:
                    going = self._read_chunked()
                elif state == _UNTIL_CLOSE:
                    going = self._read_until_close()
                else:
                    going = self._read_surplus()
                if not going:
                    break
        except MalformedError as error:
            self._fail("upstream-protocol-error", error.detail)
        finally:
            self._running = False

    # …a head first, perhaps after informational ones…

    def _read_head(self) -> bool:
        buffer = self._buffer
        whole, end, rest = buffer.partition(b"\r\n\r\n")
        if not end or len(whole) + 4 > self._limits.head:
            check_unfinished_head(buffer, self._limits)
            return False
        # A CR or LF that stands alone is now inside some line, and no line admits one.
        lines = whole.split(b"\r\n")
        head, follows, keep_alive = read_response_head(lines, self._method, self._limits)
        self._buffer = rest
        if head.status < 200 and head.status != 101:
            self._informational += 1
            if self._informational > self._limits.informational:
                raise MalformedError("malformed-request", "too many informational responses")
            self._sink.on_response_informational(head)
            return self._state == _HEAD
        self.keep_alive = keep_alive
        if follows == CHUNKED:
            self._chunks = ChunkReader(self._limits)
            state = _CHUNKED
        else:
            self._missing = follows
            state = _SIZED if follows >= 0 else _UNTIL_CLOSE  # or a tunnel: see `surrender`
        self._state = state
        self._sink.on_response_head(head)
        if not follows and self._state == _SIZED:
            return self._end(None)
        return self._state == state

    # …then the body, if any…

    def _read_sized(self) -> bool:
        data, self._buffer = self._buffer, b""
        missing = self._missing - len(data)
        if missing < 0:  # the negative is how many bytes are too many
            data, self._buffer = data[:missing], data[missing:]
            missing = 0
        self._missing = missing
        if missing:
            self._sink.on_response_data(data)
            return False
        if self._buffer:
            self._lose_place()
        else:
            self._state = _IDLE
        self._sink.on_response_data(data, True)
        return self._state == _ENDED

    def _read_chunked(self) -> bool:
        chunks = self._chunks
        assert chunks is not None
        data, self._buffer = chunks.read(self._buffer)
        if data:
            self._sink.on_response_data(data)
            if self._state != _CHUNKED:
                return False
        if chunks.error is not None:
            raise chunks.error
        return self._end(chunks.trailers) if chunks.done else False

    def _read_until_close(self) -> bool:
        data, self._buffer = self._buffer, b""
        self._sink.on_response_data(data)
        return False

    # …and the end.

    def _end(self, trailers: Fields | None) -> bool:
        self._chunks = None
        if self._buffer:
            self._lose_place()
        else:
            self._state = _IDLE
        self._sink.on_response_end(trailers)
        return self._state == _ENDED

    def _lose_place(self) -> None:
        # More bytes than the response has.  The sink hears the end, which is sound, with
        # `keep_alive` already False; then what is wrong.
        self.keep_alive = False
        self._state = _ENDED

    def _read_surplus(self) -> bool:
        # Somebody else's answer, or half of an attack; never the answer to the next request
        # (RFC 9112 section 9.2).
        raise MalformedError("malformed-request", "bytes that belong to no response")

    def feed_eof(self) -> None:
        """The peer will send no more."""
        state = self._state
        if state == _UNTIL_CLOSE:
            self.close()
            self._sink.on_response_end(None)
        elif state == _IDLE:
            self.close()
        elif state != _DEAF:
            # RFC 9112 section 8: an incomplete message must never pass for a complete one.
            where = "before a byte of" if self.untouched else "inside"
            self._fail("upstream-closed", f"the connection ended {where} the response")

    def surrender(self) -> bytes:
        """After the head of a tunnel: return what came with it, and read no more."""
        rest = self._buffer
        self.close()
        return rest

    def _fail(self, code: str, detail: str) -> None:
        self.close()
        self._sink.on_response_malformed(MalformedError(code, detail))

    def close(self) -> None:
        """Say nothing any more, whatever arrives."""
        self.keep_alive = False
        self._state = _DEAF
        self._buffer = b""
        self._chunks = None


# Writing.  These functions check nothing and are safe all the same, because of what they are
# given: heads out of a reader (validated byte by byte, see `fields`), heads out of HTTP/2 (whose
# codec validates alike), and fields of ours out of `message.field()`, whose callers vouch for them.


_USUAL_STATUS_LINES: Final = {
    (status.value, reason): b"HTTP/1.1 %d %b" % (status, status.phrase.encode())
    for status in HTTPStatus
    for reason in (b"", status.phrase.encode())
}
_CHUNKED_LINE: Final = b"Transfer-Encoding: chunked"
_UPGRADE_LINES: Final = b"Connection: Upgrade\r\nUpgrade: "


def encode_request_head(head: RequestHead, *, trailers: bool = False) -> bytes:
    """
    Return a request head as it goes to the next hop; Host first (RFC 9110 section 7.2).

    `mesh_fields` stay behind: they came from outside.  With `trailers`, say that we understand trailers in the response.
    """
    lines = [
        b"%b %b HTTP/1.1\r\nHost: %b" % (head.method, head.path or head.authority, head.authority)
    ]
    for _name, _value, line in head.fields:  # a comprehension would be one call more
        lines.append(line)
    length = head.length
    if length is not None:
        if length >= 0:
            lines.append(b"Content-Length: %d" % length)
        elif length == CHUNKED:
            lines.append(_CHUNKED_LINE)
        elif head.upgrade is not None:
            lines.append(_UPGRADE_LINES + head.upgrade)
    if head.expect_continue:
        lines.append(b"Expect: 100-continue")
    if trailers:
        lines.append(b"TE: trailers\r\nConnection: TE")
    lines.append(b"\r\n")
    return b"\r\n".join(lines)


def encode_response_head(head: ResponseHead, *, close: bool, http10: bool = False) -> bytes:
    """
    Return a response head as it goes to the client, who spoke HTTP/1.0 if `http10`.

    A `length` of None means that no body can follow (HEAD, 204, 304); a response that has merely
    an empty one says 0.  HTTP/1.0 knows no chunks: there `CHUNKED` means until the end of the
    connection, which the caller closes.
    """
    lines = [_USUAL_STATUS_LINES.get((head.status, head.reason)) or _status_line(head)]
    for _name, _value, line in head.fields:  # a comprehension would be one call more
        lines.append(line)
    length = head.length
    if length is not None:
        if length != CHUNKED:
            lines.append(b"Content-Length: %d" % length)
        elif http10:
            close = True
        else:
            lines.append(_CHUNKED_LINE)
    if close:
        lines.append(b"Connection: close")
    elif http10:
        lines.append(b"Connection: keep-alive")
    lines.append(b"\r\n")
    return b"\r\n".join(lines)


def encode_informational(head: ResponseHead) -> bytes:
    """Return a 1xx head; it has neither body nor say about the connection."""
    return b"\r\n".join([_status_line(head), *[field[2] for field in head.fields], b"\r\n"])


def encode_switch(head: ResponseHead) -> bytes:
    """Return the head that turns the connection into a tunnel: a 101, or a 2xx to CONNECT."""
    lines = [_status_line(head), *[field[2] for field in head.fields]]
    if head.upgrade is not None:
        lines.append(_UPGRADE_LINES + head.upgrade)
    lines.append(b"\r\n")
    return b"\r\n".join(lines)


def _status_line(head: ResponseHead) -> bytes:
    """Return the status line; reasons other than the usual one are kept as the server sent them."""
    said = (head.status, head.reason)
    return _USUAL_STATUS_LINES.get(said) or b"HTTP/1.1 %d %b" % said
