"""RFC 9112 section 6.3 as tables."""

import pytest

from meshproxy.codec import MalformedError, framing
from meshproxy.codec.fields import LONGEST_CACHED
from meshproxy.codec.framing import (
    UNTIL_CLOSE,
    content_length,
    length_of,
    request_length,
    response_length,
)
from meshproxy.message import CHUNKED, TUNNEL, field

NOTHING: list[bytes] = []


@pytest.mark.parametrize(
    ("lengths", "codings", "expected"),
    [
        (NOTHING, NOTHING, None),
        ([b"0"], NOTHING, 0),
        ([b"5"], NOTHING, 5),
        ([b"010"], NOTHING, 10),
        ([b"5", b"5"], NOTHING, 5),
        ([b"5, 5"], NOTHING, 5),
        ([b"9223372036854775807"], NOTHING, 2**63 - 1),
        (NOTHING, [b"chunked"], CHUNKED),
        (NOTHING, [b"Chunked"], CHUNKED),
    ],
)
def test_request_lengths(lengths: list[bytes], codings: list[bytes], expected: int | None) -> None:
    """What is plain is understood; leading zeros and equal repetitions mean one plain number."""
    assert expected == request_length(lengths, codings, http10=False)


@pytest.mark.parametrize(
    "lengths",
    [
        [b""], [b"+5"], [b"-5"], [b"5_0"], [b"0x5"], [b"5 "], [b" 5"], [b"5 5"], [b"5.0"], [b"5e1"],
        [b"five"], [b"5,"], [b"5,6"], [b"5", b"6"], [b"5", b"05"], [b"5;a"], [b"\xd9\xa5"],
        [b"\xef\xbc\x95"], [b"9223372036854775808"], [b"18446744073709551621"], [b"0" * 20],
    ],
)  # fmt: skip
def test_odd_content_lengths_are_refused(lengths: list[bytes]) -> None:
    """Anything but ASCII digits that all agree is refused, and so is what overflows 63 bits."""
    with pytest.raises(MalformedError) as caught:
        content_length(lengths)
    assert caught.value.code == "malformed-request"


def test_five_thousand_digits_are_refused_before_they_are_converted() -> None:
    """Converting takes quadratic time, and raises something else above 4,300 digits."""
    with pytest.raises(MalformedError):
        content_length([b"9" * 5000])


@pytest.mark.parametrize(
    ("lengths", "codings", "http10"),
    [
        ([b"5"], [b"chunked"], False),
        ([b"0"], [b"chunked"], False),
        (NOTHING, [b"chunked"], True),
        (NOTHING, [b"chunked", b"chunked"], False),
        (NOTHING, [b"chunked, chunked"], False),
        (NOTHING, [b"gzip, chunked"], False),
        (NOTHING, [b"chunked, gzip"], False),
        (NOTHING, [b"gzip"], False),
        (NOTHING, [b"identity"], False),
        (NOTHING, [b"identity", b"chunked"], False),
        (NOTHING, [b"xchunked"], False),
        (NOTHING, [b"chunked;a=b"], False),
        (NOTHING, [b'"chunked"'], False),
        (NOTHING, [b"chunked,"], False),
        (NOTHING, [b"\x0bchunked"], False),
        (NOTHING, [b"\xef\xbd\x83hunked"], False),
        (NOTHING, [b""], False),
    ],
)
def test_transfer_encoding_is_one_plain_chunked(
    lengths: list[bytes], codings: list[bytes], http10: bool
) -> None:
    """Exactly one `chunked`, alone, in HTTP/1.1: for requests and for responses."""
    with pytest.raises(MalformedError):
        request_length(lengths, codings, http10=http10)
    with pytest.raises(MalformedError):
        response_length(b"GET", 200, lengths, codings, http10=http10)


@pytest.mark.parametrize(
    ("method", "status", "lengths", "codings", "expected"),
    [
        # Rule 1: no body, whatever the fields say
        (b"HEAD", 200, [b"5"], NOTHING, (5, 0)),
        (b"HEAD", 200, NOTHING, NOTHING, (None, 0)),
        (b"HEAD", 200, NOTHING, [b"chunked"], (None, 0)),
        (b"GET", 304, [b"5"], NOTHING, (5, 0)),
        (b"GET", 304, NOTHING, [b"chunked"], (None, 0)),
        (b"GET", 204, NOTHING, NOTHING, (None, 0)),
        (b"GET", 204, [b"0"], NOTHING, (None, 0)),
        (b"GET", 100, NOTHING, NOTHING, (None, 0)),
        # Rule 2: a tunnel
        (b"CONNECT", 200, NOTHING, NOTHING, (TUNNEL, TUNNEL)),
        (b"GET", 101, NOTHING, NOTHING, (TUNNEL, TUNNEL)),
        (b"HEAD", 101, NOTHING, NOTHING, (TUNNEL, TUNNEL)),
        (b"CONNECT", 403, [b"5"], NOTHING, (5, 5)),
        # Rules 4, 6 and 8
        (b"GET", 200, NOTHING, [b"chunked"], (CHUNKED, CHUNKED)),
        (b"POST", 200, [b"5"], NOTHING, (5, 5)),
        (b"GET", 404, [b"0"], NOTHING, (0, 0)),
        (b"GET", 200, NOTHING, NOTHING, (CHUNKED, UNTIL_CLOSE)),
    ],
)
def test_response_lengths(
    method: bytes,
    status: int,
    lengths: list[bytes],
    codings: list[bytes],
    expected: tuple[int | None, int],
) -> None:
    """What is announced, and what follows the head, by the rules in the RFC's order."""
    assert expected == response_length(method, status, lengths, codings, http10=False)


def test_bad_fields_are_refused_even_where_no_body_follows() -> None:
    """A HEAD response with two lengths is as untrustworthy as any other."""
    with pytest.raises(MalformedError):
        response_length(b"HEAD", 200, [b"5", b"6"], [], http10=False)


def test_long_lengths_are_not_kept() -> None:
    """Each of them is new, and as long as a head may be: what is remembered is not for others to fill."""
    for number in range(100):
        text = b", ".join([b"5"] * (9_000 + number))
        assert length_of([field(b"Content-Length", text)]) == 5
    assert not any(len(text) > LONGEST_CACHED for text in framing._lengths)
