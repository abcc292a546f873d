"""What may be switched to, and what an answer must say."""

import pytest

from meshproxy.codec import MalformedError
from meshproxy.codec.upgrade import (
    first_of,
    read_protocols,
    was_asked_for,
    websocket_accept,
    websocket_key,
)


@pytest.mark.parametrize(
    ("lines", "relayed"),
    [
        ([b"websocket"], b"websocket"),
        ([b"WebSocket"], b"websocket"),
        ([b"SPDY/3.1"], b"SPDY/3.1"),
        ([b"a, b/2", b", ,c"], b"a, b/2, c"),
        ([b"h2c"], None),
        ([b"H2C, h2, HTTP/2.0, http/3, TLS/1.2, tls"], None),
        ([b"h2c, own"], b"own"),
        ([b""], None),
    ],
)
def test_protocols_are_relayed_unread_unless_requests_would_hide_in_them(
    lines: list[bytes], relayed: bytes | None
) -> None:
    """Another version of HTTP, or TLS, would carry requests that no policy has seen."""
    assert read_protocols(lines) == relayed


@pytest.mark.parametrize("line", [b"a b", b"a/", b"/1", b"a/b/c", b"a;b", b'"a"', b"a/1 b"])
def test_protocols_have_a_name_and_perhaps_a_version(line: bytes) -> None:
    """RFC 9110 section 7.8; what is none is malformed, and never passed on."""
    with pytest.raises(MalformedError):
        read_protocols([line])


@pytest.mark.parametrize(
    ("answered", "asked", "right"),
    [
        (b"websocket", b"websocket", True),
        (b"WebSocket", b"websocket", True),
        (b"b", b"a, b", True),
        (b"a,b", b"b, a", True),
        (b"a, c", b"a, b", False),
        (b"h2c", b"websocket", False),
        (None, b"websocket", False),
        (b"", b"websocket", False),
        (b"websocket", None, False),
    ],
)
def test_a_switch_must_be_one_that_was_asked_for(
    answered: bytes | None, asked: bytes | None, right: bool
) -> None:
    """And it must say to what."""
    assert was_asked_for(answered, asked) is right


def test_the_first_is_the_most_wanted() -> None:
    """RFC 9110 section 7.8: "in order of descending preference"."""
    assert first_of(b"b/1, a") == b"b/1"
    assert first_of(b"a") == b"a"


def test_the_key_and_its_proof() -> None:
    """The example of RFC 6455 section 1.3."""
    key = websocket_key(b"the sample nonce")
    assert key == b"dGhlIHNhbXBsZSBub25jZQ=="
    assert websocket_accept(key) == b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
