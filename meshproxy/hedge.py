"""
The second attempt of an exchange, under way beside the first: to its endpoint, an exchange.

It says the whole request, which has come in full, and hands the exchange what it hears: the head of
an answer, and where that was the first one all the rest.  When one begins, and why, says
`policies/hedging.py`.

Called from: the storyboard (`exchange.py`), and connections (`upstream/`).
"""

from collections.abc import Sequence
from typing import Any, Protocol

from meshproxy.message import Fields, RequestHead, ResponseHead
from meshproxy.refusal import refusal


class Upstream(Protocol):
    """What the exchange knows as `neighbours.Upstream`, as far as this file does."""

    blocked: bool

    def send_head(self, head: RequestHead) -> None: ...
    def send_data(self, data: bytes, last: bool = False) -> None: ...
    def send_end(self, trailers: Fields | None) -> None: ...
    def reset(self) -> None: ...
    def discard(self, length: int | None) -> None: ...
    def pause_response(self) -> None: ...
    def resume_response(self) -> None: ...


class Endpoint(Protocol):
    """The server that is asked."""

    active: int
    version: str

    # As in `neighbours.Endpoint`, which is told of exchanges: to it, this is one.
    def acquire(self, exchange: Any) -> None: ...
    def forget(self, exchange: Any) -> None: ...
    def judge(
        self, status: int, grpc_status: str | None, code: str, seconds: float, began: float
    ) -> None: ...


class First(Protocol):
    """The exchange, which has an attempt of its own."""

    head: RequestHead
    trailers: Fields | None

    @property
    def endpoint(self) -> Any: ...  # as in `exchange.Exchange`, which knows less of it
    @property
    def body(self) -> Sequence[bytes] | None: ...
    def on_second_ready(self) -> None: ...
    def on_second_answer(self, second: "SecondAttempt", head: ResponseHead) -> None: ...
    def on_second_failed(self, code: str, *, sent: bool, reused: bool) -> None: ...
    def on_response_informational(self, head: ResponseHead) -> None: ...
    def on_response_data(self, data: bytes, last: bool = False) -> None: ...
    def on_response_end(self, trailers: Fields | None) -> None: ...
    def on_response_reset(self, code: str, *, reused: bool) -> None: ...


class SecondAttempt:
    """
    One attempt.

    Attributes:
        attempts: More than one, whichever it is: to the limits of its endpoint, a retry.
        began: When its endpoint was picked.
        sent: The request was said, or begun to be.
        won: It is the exchange's only attempt now.
    """

    __slots__ = ("_endpoint", "_first", "began", "sent", "upstream", "won")

    attempts = 2

    def __init__(self, first: First, endpoint: Endpoint, began: float) -> None:
        self._first = first
        self._endpoint: Endpoint | None = endpoint
        self.began = began
        self.upstream: Upstream | None = None
        self.sent = False
        self.won = False

    def __repr__(self) -> str:
        return f"<SecondAttempt at {self.endpoint}{' won' if self.won else ''}>"

    @property
    def endpoint(self) -> Endpoint | None:
        """Whom it asks; None when it is over."""
        return self._first.endpoint if self.won else self._endpoint

    @property
    def head(self) -> RequestHead:
        """What is asked."""
        return self._first.head

    # The request ----------------------------------------------------------------------------------

    def begin(self) -> None:
        endpoint = self._endpoint
        assert endpoint is not None
        endpoint.active += 1
        endpoint.acquire(self)

    def on_upstream_ready(self, upstream: Upstream) -> None:
        """A connection is ours: say all of the request."""
        first = self._first
        self.upstream = upstream
        self.sent = True
        first.on_second_ready()
        upstream.send_head(first.head)
        for data in first.body or ():
            upstream.send_data(data)
        if first.head.length is not None:
            upstream.send_end(first.trailers)

    def on_upstream_failed(self, code: str) -> None:
        """No connection could be had."""
        self._first.on_second_failed(code, sent=False, reused=False)

    # The answer -----------------------------------------------------------------------------------

    def on_response_informational(self, head: ResponseHead) -> None:
        if self.won:
            self._first.on_response_informational(head)

    def on_response_head(self, head: ResponseHead) -> None:
        self._first.on_second_answer(self, head)

    def on_response_data(self, data: bytes, last: bool = False) -> None:
        self._first.on_response_data(data, last)

    def on_response_end(self, trailers: Fields | None) -> None:
        self._first.on_response_end(trailers)

    def on_response_reset(self, code: str, *, reused: bool) -> None:
        """The attempt ended without a complete response."""
        self.upstream = None
        if self.won:
            self._first.on_response_reset(code, reused=reused)
        else:
            sent = refusal(code).processed
            self._first.on_second_failed(code, sent=sent, reused=reused)

    def on_upstream_blocked(self) -> None:
        """The rest waits in the connection: the client has nothing more to say."""

    def on_upstream_writable(self) -> None:
        """Nobody was told to wait."""

    # The end --------------------------------------------------------------------------------------

    def give_up(self) -> None:
        """Nobody waits for its answer any more."""
        upstream, self.upstream = self.upstream, None
        if upstream is not None:
            upstream.reset()
        elif self._endpoint is not None:
            self._endpoint.forget(self)

    def discard(self, head: ResponseHead) -> None:
        """Its answer, of which this is the head, is not wanted."""
        upstream, self.upstream = self.upstream, None
        if upstream is not None:
            upstream.discard(head.length)

    def end(self, status: int, grpc_status: str | None, code: str, seconds: float) -> None:
        """Give back what it held, and tell its endpoint how it went (`neighbours.Endpoint.judge`)."""
        endpoint, self._endpoint = self._endpoint, None
        if endpoint is not None:
            endpoint.active -= 1
            endpoint.judge(status, grpc_status, code, seconds, self.began)
