"""The first bytes decide, once and for all."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshproxy.codec.sniff import Protocol, may_become_http, sniff, sniff_greeting

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
HELLO = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc"


@pytest.mark.parametrize(
    ("data", "verdict"),
    [
        (b"", None),
        (HELLO, Protocol.TLS),
        (HELLO[:5], None),
        (b"\x16\x03\x01\x02\x00\x02", Protocol.OPAQUE),  # a ServerHello is no client's
        (b"\x16\x16", Protocol.OPAQUE),
        (PREFACE, Protocol.HTTP2),
        (PREFACE + b"\x00", Protocol.HTTP2),
        (PREFACE[:-1], None),
        (b"PRI * HTTP/2.0\r\nHost: a", Protocol.HTTP1),
        (b"GET / HTTP/1.1\r\n", Protocol.HTTP1),
        (b"GE", None),
        (b"GET ", Protocol.HTTP1),
        (b"GET /a b HTTP/1.1\r\n", Protocol.HTTP1),  # the codec will refuse it
        (b"\r\nGET / HTTP/1.1\r\n", Protocol.HTTP1),
        (b"PURGE /a HTTP/1.1\r\n", Protocol.HTTP1),
        (b"PURGE /a HT", None),
        (b"PURGE " + b"/" * 20000, Protocol.HTTP1),
        (b"get key\r\n", Protocol.OPAQUE),  # memcached
        (b"*1\r\n$4\r\nPING\r\n", Protocol.OPAQUE),  # Redis
        (b"\x00\x00\x00\x08\x04\xd2\x16\x2f", Protocol.OPAQUE),  # PostgreSQL SSLRequest
        (b"AMQP\x00\x00\x09\x01", Protocol.OPAQUE),
        (b"SSH-2.0-OpenSSH_9.6\r\n", Protocol.OPAQUE),
        (b"OPTIONAL x y\r\n", Protocol.OPAQUE),
        (b"HELO a\r\n", Protocol.OPAQUE),
        (b"QUIT\r\n", Protocol.OPAQUE),
        (b"A" * 33, None),
        (b"A" * 76 + b"\n", Protocol.OPAQUE),  # Base64
        # What no server may take for a request, and some do.
        (b" GET / HTTP/1.1", Protocol.HTTP1),
        (b"GET\t/ HTTP/1.1", Protocol.HTTP1),
        (b"GET\x85/\xa0HTTP/1.1", Protocol.HTTP1),
        (b"\x0b\r GET\r/ HTTP/1.1", Protocol.HTTP1),
        (b"PURGE  /a\t HTTP/1.1", Protocol.HTTP1),
        (b"A" * 33 + b" / HTTP/1.1", Protocol.HTTP1),
        (b"A" * 1025, Protocol.HTTP1),
    ],
)
def test_verdicts(data: bytes, verdict: Protocol | None) -> None:
    """Each protocol is known by its first bytes, and not before."""
    assert sniff(data) is verdict


@pytest.mark.parametrize(
    ("data", "may"),
    [(b"GE", True), (b"\r\n", True), (PREFACE[:5], True), (HELLO[:4], False), (b"\0", False)],
)
def test_what_a_beginning_may_become(data: bytes, may: bool) -> None:
    """Of a ClientHello that breaks off no server makes a request, of half a method it may."""
    assert may_become_http(data) is may


BEGINNINGS = st.sampled_from(
    [
        b"",
        HELLO,
        PREFACE,
        b"GET / HTTP/1.1\r\n",
        b"X /a HTTP/1.1\r\n",
        b"X " + b"a" * 16400,
        b"\r\n",
        b" \tX\t /a\r HTTP/",
        b"A" * 1020,
    ]
)


@given(
    BEGINNINGS,
    st.integers(0, 40),
    st.one_of(
        st.binary(max_size=40), st.text("GETPRI */HTTP.12\r\n a", max_size=30).map(str.encode)
    ),
)
def test_a_verdict_is_never_taken_back(beginning: bytes, keep: int, rest: bytes) -> None:
    """Whatever more arrives, the verdict on a prefix is the verdict on the whole."""
    data = (beginning[:keep] if keep < 40 else beginning) + rest
    final = None
    for length in range(max(0, len(data) - 100), len(data) + 1):
        verdict = sniff(data[:length])
        assert final in (None, verdict)
        final = verdict


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        (b"220 mail ESMTP\r\n", Protocol.OPAQUE),
        (b"H", None),
        (b"HTTP", None),
        (b"HTTP/1.1 408 Request Timeout\r\n", Protocol.HTTP1),
        (b"HELO", Protocol.OPAQUE),
        (b"\0", None),
        (b"\0\0\x0c\x04", None),
        (b"\0\0\x0c\x04\0\0\0\0\0", Protocol.HTTP2),
        (b"\0\0\0\x04\0\0\0\0\0", Protocol.HTTP2),
        (b"\0\0\x0d\x04\0\0\0\0\0", Protocol.OPAQUE),
        (b"\0\0\x0c\x05", Protocol.OPAQUE),
        (b"\x4a\0\0\0\x0a8.0.36\0", Protocol.OPAQUE),
        (b"AMQP\0\0\x09\1", Protocol.OPAQUE),
        (b"SSH-2.0-OpenSSH", Protocol.OPAQUE),
    ],
)
def test_what_a_server_says_first(said: bytes, expected: Protocol | None) -> None:
    """A greeting of MySQL, SMTP, SSH or AMQP is told from HTTP's own first words."""
    assert sniff_greeting(said) is expected
