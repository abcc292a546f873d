"""
The other end of an HTTP/2 connection, made of other libraries than ours (hyperframe, hpack).

It says whatever a test wants, valid or not, and shows every frame that came back.
"""

from collections.abc import Iterable, Sequence
from typing import Any

import hpack
from hyperframe.frame import (
    ContinuationFrame,
    DataFrame,
    Frame,
    GoAwayFrame,
    HeadersFrame,
    PingFrame,
    RstStreamFrame,
    SettingsFrame,
    WindowUpdateFrame,
)

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
Headers = Sequence[tuple[str, str]]

GET: Headers = (
    (":method", "GET"),
    (":scheme", "http"),
    (":authority", "catalog"),
    (":path", "/"),
)
POST: Headers = ((":method", "POST"), *GET[1:])


class Heard:
    """
    One frame that arrived.

    Attributes:
        headers: The fields of a HEADERS frame, decoded.
    """

    def __init__(self, frame: Frame, headers: list[tuple[str, str]] | None) -> None:
        self.kind = type(frame).__name__.removesuffix("Frame")
        self.stream = frame.stream_id
        self.frame: Any = frame
        self.headers = headers
        self.ended = "END_STREAM" in frame.flags

    def __repr__(self) -> str:
        return f"<{self.kind} {self.stream} {self.headers or ''}{' END_STREAM' * self.ended}>"


class Wire:
    """Frames to bytes and bytes to frames, with the state of HPACK for both directions."""

    def __init__(self) -> None:
        self._encoder = hpack.Encoder()
        self._decoder = hpack.Decoder()
        self._rest = b""

    # Saying ---------------------------------------------------------------------------------------

    def hello(self, **settings: int) -> bytes:
        """Return a client's preface."""
        return PREFACE + self.settings(**settings)

    def settings(self, **settings: int) -> bytes:
        """Return SETTINGS; keys are `s4=65535`."""
        return bytes(SettingsFrame(0, {int(key[1:]): v for key, v in settings.items()}).serialize())

    def settings_ack(self) -> bytes:
        return bytes(SettingsFrame(0, flags=["ACK"]).serialize())

    def remember(self, size: int) -> None:
        """Refer only to so much of what was said before, as the peer's SETTINGS ask."""
        self._encoder.header_table_size = min(size, 4096)

    def headers(self, stream: int, headers: Headers, *, end: bool = True) -> bytes:
        """Return HEADERS; a block that is too large for one frame continues in others."""
        block = self._encoder.encode(headers)
        first = HeadersFrame(stream, block[:16384])
        if end:
            first.flags.add("END_STREAM")
        frames: list[Frame] = [first]
        frames += [
            ContinuationFrame(stream, block[at : at + 16384])
            for at in range(16384, len(block), 16384)
        ]
        frames[-1].flags.add("END_HEADERS")
        return b"".join(frame.serialize() for frame in frames)

    def data(self, stream: int, data: bytes, *, end: bool = False) -> bytes:
        return bytes(DataFrame(stream, data, flags=["END_STREAM"] if end else []).serialize())

    def reset(self, stream: int, code: int = 8) -> bytes:
        return bytes(RstStreamFrame(stream, code).serialize())

    def ping(self, data: bytes = b"12345678", *, ack: bool = False) -> bytes:
        return bytes(PingFrame(0, data, flags=["ACK"] if ack else []).serialize())

    def window(self, stream: int, increment: int) -> bytes:
        return bytes(WindowUpdateFrame(stream, increment).serialize())

    def goaway(self, last: int, code: int = 0) -> bytes:
        return bytes(GoAwayFrame(0, last, code).serialize())

    # Hearing --------------------------------------------------------------------------------------

    def hear(self, data: bytes) -> list[Heard]:
        """Return the frames that are complete now."""
        self._rest = (self._rest + data).removeprefix(PREFACE)
        heard = []
        while len(self._rest) >= 9:
            frame, length = Frame.parse_frame_header(memoryview(self._rest[:9]))
            if len(self._rest) < 9 + length:
                break
            frame.parse_body(memoryview(self._rest[9 : 9 + length]))
            self._rest = self._rest[9 + length :]
            headers = None
            if isinstance(frame, HeadersFrame):
                assert "END_HEADERS" in frame.flags
                headers = [(str(n), str(v)) for n, v in self._decoder.decode(frame.data)]
            heard.append(Heard(frame, headers))
        return heard


def of(heard: Iterable[Heard], kind: str, stream: int | None = None) -> list[Heard]:
    """Return the frames of one kind (and stream)."""
    return [h for h in heard if h.kind == kind and stream in (None, h.stream)]
