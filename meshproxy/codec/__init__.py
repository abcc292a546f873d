"""
Bytes to words and words to bytes: no sockets, no clock, no policy.

Every codec speaks the same four words, pushed into a sink as soon as they are known:

    head → data* → end          `reset` is possible at any moment, and nothing follows it;
                                trailers ride on `end`; informational heads may precede `head`

so that HTTP/1.1 and HTTP/2 meet in `exchange.py` without either knowing about the other.

Push has a price: inside `on_request_head` the sink may answer, and the answer may close the
connection while the reader's loop is still on the stack.  Hence one rule: **a sink may write and
may close, but never feeds; the reader re-checks that it is still open after every call out.**
"""

from typing import Protocol

from meshproxy.message import Fields, RequestHead, ResponseHead


class MalformedError(Exception):
    """
    What arrived is not what the protocol allows.  Handed to sinks as a value, never raised at them.

    Attributes:
        code: A code of `refusal.py`.
        detail: What exactly is wrong; for logs, never sent to the peer.
    """

    def __init__(self, code: str, detail: str) -> None:
        super().__init__(f"{code}: {detail}")
        self.code = code
        self.detail = detail


class RequestSink(Protocol):
    """
    Hears the requests of one connection.

    A head whose `length` is None is a whole request: neither data nor an end follows it.  Nor does
    an end follow data that are the `last`, as far as the reader can tell when it has them.
    """

    def on_request_head(self, head: RequestHead) -> None: ...
    def on_request_data(self, data: bytes, last: bool = False) -> None: ...
    def on_request_end(self, trailers: Fields | None) -> None: ...
    def on_request_malformed(self, error: MalformedError) -> None: ...


class ResponseSink(Protocol):
    """Hears the responses of one connection; no end follows data that are the `last`."""

    def on_response_informational(self, head: ResponseHead) -> None: ...
    def on_response_head(self, head: ResponseHead) -> None: ...
    def on_response_data(self, data: bytes, last: bool = False) -> None: ...
    def on_response_end(self, trailers: Fields | None) -> None: ...
    def on_response_malformed(self, error: MalformedError) -> None: ...
