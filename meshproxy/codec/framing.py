"""
Where a message ends: RFC 9112 section 6, as one function for requests and one for responses.

Request smuggling is two hops that answer this question differently for the same bytes.  So the
rules here are the strict reading of the RFC: what it lets a recipient repair is refused, and the
answer never depends on the method of a request.

The decision is a number, the same that `RequestHead.length` speaks: bytes to come, `CHUNKED`, or
`UNTIL_CLOSE`, which only a response can be.
"""

import re
from typing import Final

from meshproxy.message import CHUNKED, TUNNEL, Fields

from . import MalformedError
from .fields import LONGEST_CACHED

UNTIL_CLOSE: Final = -2
"""Body of a response that ends with the connection (RFC 9112 section 6.3, rule 8)."""

# 19 digits hold 2^63-1, and a number of that many is converted in no time; `isdigit()` and
# `int()` also take "+5", "1_0" and digits of other scripts.
_digits: Final = re.compile(rb"[0-9]{1,19}").fullmatch
_LARGEST: Final = 2**63 - 1
_MOST_CACHED: Final = 512


def request_length(lengths: list[bytes], codings: list[bytes], *, http10: bool) -> int | None:
    """
    Return how long the body of a request is: None when it has none, a number, or `CHUNKED`.

    `lengths` and `codings` are the values of the Content-Length and Transfer-Encoding lines.

    Raises:
        MalformedError: The fields contradict each other or cannot be trusted.
    """
    if not codings:
        return content_length(lengths) if lengths else None
    check_transfer_encoding(lengths, codings, http10=http10)
    return CHUNKED


def response_length(
    method: bytes, status: int, lengths: list[bytes], codings: list[bytes], *, http10: bool
) -> tuple[int | None, int]:
    """
    Return what a response to `method` announces as its length, and what follows its head.

    The first is meant for `ResponseHead.length`; the second is a number of bytes, `CHUNKED`,
    `UNTIL_CLOSE` or `TUNNEL`.  They differ for HEAD and 304, which announce what a GET would have had.

    Raises:
        MalformedError: The fields contradict each other or cannot be trusted.
    """
    if codings:
        check_transfer_encoding(lengths, codings, http10=http10)
    announced = content_length(lengths) if lengths else None
    # RFC 9112 section 6.3, in its order.
    # 1. "Any response to a HEAD request and any response with a 1xx, 204, or 304 status code is
    #    always terminated by the first empty line after the header fields".
    #    But after a 101, what follows is another protocol (RFC 9110 section 15.2.2).
    if status < 200 or status == 204:
        return (TUNNEL, TUNNEL) if status == 101 else (None, 0)
    if method == b"HEAD" or status == 304:
        return announced, 0
    # 2. "Any 2xx response to a CONNECT request implies that the connection will become a tunnel".
    if method == b"CONNECT" and status < 300:
        return TUNNEL, TUNNEL
    # 3. and 4. Transfer-Encoding; `chunked` is the only coding that got past the check.
    if codings:
        return CHUNKED, CHUNKED
    # 5. and 6. Content-Length.
    if announced is not None:
        return announced, announced
    # 8. "the message body length is determined by the number of octets received prior to the
    #    server closing the connection".
    return CHUNKED, UNTIL_CLOSE


def check_transfer_encoding(lengths: list[bytes], codings: list[bytes], *, http10: bool) -> None:
    """
    Accept exactly one ``chunked``, alone, in HTTP/1.1.

    Raises:
        MalformedError: It is anything else.
    """
    # RFC 9112 section 6.1: "A server MAY reject a request that contains both Content-Length and
    # Transfer-Encoding".  The combination has no honest use.
    if lengths:
        raise MalformedError("malformed-request", "Content-Length and Transfer-Encoding together")
    # The same section: in an HTTP/1.0 message it MUST be treated "as if the framing is faulty".
    if http10:
        raise MalformedError("malformed-request", "Transfer-Encoding in HTTP/1.0")
    if len(codings) != 1 or codings[0].lower() != b"chunked":
        raise MalformedError("malformed-request", f"Transfer-Encoding is {codings[0][:64]!r}")


def length_of(fields: Fields) -> int:
    """
    Return the one number that the Content-Length fields agree on.

    Raises:
        MalformedError: They do not agree, or one is not a plain decimal number.
    """
    if len(fields) == 1:
        return _lengths[fields[0][1]]
    return content_length([value for _name, value, _line in fields])


class _Lengths(dict[bytes, int]):
    """Values of Content-Length that were read before; asked for another, it reads that one."""

    def __missing__(self, text: bytes) -> int:
        length = content_length([text])
        if len(text) <= LONGEST_CACHED:  # others choose what is remembered
            if len(self) >= _MOST_CACHED:
                self.clear()
            self[text] = length
        return length


_lengths: Final = _Lengths()


def content_length(lengths: list[bytes]) -> int:
    """
    Return the one number that the Content-Length lines agree on.

    Raises:
        MalformedError: They do not agree, or one is not a plain decimal number.
    """
    text = lengths[0]
    if len(lengths) > 1 or b"," in text:
        # RFC 9112 section 6.3, rule 5: a list of identical valid values may be replaced by one.
        members = {member.strip(b" \t") for line in lengths for member in line.split(b",")}
        text = members.pop()
        if members:
            raise MalformedError("malformed-request", "differing Content-Length values")
    return _number(text)


def _number(text: bytes) -> int:
    if not _digits(text) or (number := int(text)) > _LARGEST:
        raise MalformedError("malformed-request", f"Content-Length is {text[:64]!r}")
    return number
