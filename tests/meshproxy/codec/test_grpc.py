"""The three things that gRPC adds to HTTP/2: what a call is, how long it may take, how it ended."""

from urllib.parse import unquote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshproxy.codec.grpc import is_grpc, status_fields, status_of, timeout_field, timeout_of
from meshproxy.message import field, value_of


@pytest.mark.parametrize(
    ("method", "content_type", "expected"),
    [
        (b"POST", b"application/grpc", True),
        (b"POST", b"application/grpc+proto", True),
        (b"POST", b"application/grpc-web-text", True),
        (b"POST", b"application/json", False),
        (b"POST", None, False),
        (b"GET", b"application/grpc", False),
    ],
)
def test_a_call_is_a_post_of_grpcs_content_type(
    method: bytes, content_type: bytes | None, expected: bool
) -> None:
    """gRPC over HTTP/2: "Method → POST", "Content-Type → application/grpc…"."""
    fields = [field(b"x", b"y")]
    if content_type is not None:
        fields.append(field(b"Content-Type", content_type))
    assert is_grpc(method, fields) is expected


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        (b"1H", 3600.0),
        (b"2M", 120.0),
        (b"30S", 30.0),
        (b"250m", 0.25),
        (b"99999999u", 99.999999),
        (b"1n", 1e-9),
        (b"0S", 0.0),
        (b"100000000S", None),
        (b"1", None),
        (b"S", None),
        (b"1s", None),
        (b" 1S", None),
        (b"+1S", None),
        (b"\xd9\xa1S", None),  # an Arabic digit
    ],
)
def test_timeouts_are_read_strictly(value: bytes, seconds: float | None) -> None:
    """At most eight ASCII digits and one unit; anything else is no timeout."""
    assert timeout_of([field(b"grpc-timeout", value)]) == pytest.approx(seconds)


def test_two_timeouts_are_none() -> None:
    """Which of them would hold?  Nobody knows what the server takes."""
    twice = [field(b"grpc-timeout", b"1S"), field(b"grpc-timeout", b"2S")]
    assert timeout_of(twice) is None
    assert timeout_of([field(b"timeout", b"1S")]) is None


@given(st.floats(min_value=1e-6, max_value=3.5e11))
def test_a_timeout_that_is_written_never_allows_more(seconds: float) -> None:
    """And little less: a millionth, or what eight digits leave out."""
    written = timeout_of([timeout_field(seconds)])
    assert written is not None
    assert written <= seconds * (1 + 1e-12)
    assert written >= min(seconds * 0.99998, seconds - 2e-6) - 1e-9 or seconds < 2e-6


@pytest.mark.parametrize(("seconds", "value"), [(-1.0, b"1u"), (0.0, b"1u"), (1e12, b"99999999H")])
def test_what_is_past_is_as_short_as_can_be(seconds: float, value: bytes) -> None:
    """Zero is not positive: the shortest that can be said, and the longest."""
    assert timeout_field(seconds)[1] == value


def test_statuses() -> None:
    """The seventeen by their number, whatever else a server says as one."""
    for code in range(17):
        assert status_of([field(b"x", b"y"), field(b"grpc-status", b"%d" % code)]) == str(code)
    for odd in (b"17", b"-1", b"00", b"", b"OK"):
        assert status_of([field(b"grpc-status", odd)]) == "other"
    assert status_of([field(b"grpc-message", b"0")]) is None


@given(st.text(alphabet=st.characters(exclude_categories=["Cs"])))
def test_messages_are_percent_encoded(message: str) -> None:
    """Status-Message: only visible ASCII and spaces stand for themselves, and not the percent."""
    fields = status_fields(5, message)
    value = value_of(fields, b"grpc-message")
    assert value is not None
    assert all(32 <= byte < 127 for byte in value)
    assert unquote(value.decode()) == message
    assert value_of(fields, b"grpc-status") == b"5"
