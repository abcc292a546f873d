"""Sinks that write down what they hear, so that a test can compare two readings of one message."""

import itertools
from collections.abc import Callable, Iterable
from typing import Any

from meshproxy.codec import MalformedError
from meshproxy.codec.http1 import LIMITS, Limits, RequestReader, ResponseReader
from meshproxy.message import Fields, RequestHead, ResponseHead

Word = tuple[Any, ...]


def say_request(head: RequestHead) -> Word:
    return (
        "head", head.method, head.scheme, head.authority, head.path, tuple(head.fields),
        tuple(head.mesh_fields or ()), head.length, head.expect_continue, head.upgrade,
    )  # fmt: skip


def say_response(head: ResponseHead) -> Word:
    return (head.status, head.reason, tuple(head.fields), head.length, head.upgrade)


class Recorder:
    """
    Hears requests or responses; neighbouring pieces of data become one word.

    `react` is called after each word with its name: the place to close, or to go on.
    """

    def __init__(self) -> None:
        self.words: list[Word] = []
        self.react: Callable[[str], None] = lambda _name: None

    def names(self) -> list[str]:
        return [word[0] for word in self.words]

    def body(self) -> bytes:
        return b"".join(word[1] for word in self.words if word[0] == "data")

    def _hear(self, *word: Any) -> None:
        if word[0] == "data" and self.words and self.words[-1][0] == "data":
            self.words[-1] = ("data", self.words[-1][1] + word[1])
        else:
            self.words.append(word)
        self.react(word[0])

    def on_request_head(self, head: RequestHead) -> None:
        self._hear(*say_request(head))
        if head.length is None:  # the whole request: no end follows
            self._hear("end", None)

    def on_response_head(self, head: ResponseHead) -> None:
        self._hear("head", *say_response(head))

    def on_response_informational(self, head: ResponseHead) -> None:
        self._hear("informational", *say_response(head))

    def _data(self, data: bytes, last: bool = False) -> None:
        assert type(data) is bytes, "sinks keep what they are given"
        assert data, "no empty pieces"
        self._hear("data", data)
        if last:
            self._hear("end", None)

    def _end(self, trailers: Fields | None) -> None:
        self._hear("end", None if trailers is None else tuple(trailers))

    def _malformed(self, error: MalformedError) -> None:
        self._hear("malformed", error.code)

    on_request_data = on_response_data = _data
    on_request_end = on_response_end = _end
    on_request_malformed = on_response_malformed = _malformed


class Requests(Recorder):
    """A reader of requests and its recorder; each request is answered as soon as it has ended."""

    def __init__(self, limits: Limits = LIMITS, *, answer: bool = True) -> None:
        super().__init__()
        self.reader = RequestReader(self, limits)
        if answer:
            self.react = lambda name: self.reader.next() if name == "end" else None

    def feed(self, pieces: Iterable[bytes]) -> list[Word]:
        for piece in pieces:
            self.reader.feed(piece)
        return self.words


class Responses(Recorder):
    """A reader of responses and its recorder, waiting for the answer to `method`."""

    def __init__(self, method: bytes = b"GET", limits: Limits = LIMITS) -> None:
        super().__init__()
        self.reader = ResponseReader(self, limits)
        self.reader.expect(method)

    def feed(self, pieces: Iterable[bytes], *, eof: bool = False) -> list[Word]:
        for piece in pieces:
            self.reader.feed(piece)
        if eof:
            self.reader.feed_eof()
        return self.words


def read_request(data: bytes, limits: Limits = LIMITS) -> list[Word]:
    return Requests(limits).feed([data])


def read_response(data: bytes, method: bytes = b"GET", *, eof: bool = False) -> list[Word]:
    return Responses(method).feed([data], eof=eof)


def byte_by_byte(data: bytes) -> list[bytes]:
    return [data[i : i + 1] for i in range(len(data))]


def cut(data: bytes, places: Iterable[int]) -> list[bytes]:
    """Cut `data` at `places`, in any order, some perhaps beyond its end."""
    edges = [0, *sorted({p for p in places if 0 < p < len(data)}), len(data)]
    return [data[a:b] for a, b in itertools.pairwise(edges) if a < b]
