"""Targets and authorities: what is taken apart, and what is refused."""

import pytest

from meshproxy.codec import MalformedError
from meshproxy.codec.target import Target, check_authority, read_target


@pytest.mark.parametrize(
    ("method", "target", "expected"),
    [
        (b"GET", b"/", Target(b"http", None, b"/")),
        (b"GET", b"/a/%2e%2F?b=%zz&c=[1]{2}|", Target(b"http", None, b"/a/%2e%2F?b=%zz&c=[1]{2}|")),
        (b"GET", b"//a", Target(b"http", None, b"//a")),
        (b"GET", b"http://h/a?b", Target(b"http", b"h", b"/a?b")),
        (b"GET", b"HTTPS://h:8443", Target(b"https", b"h:8443", b"/")),
        (b"GET", b"http://h?a", Target(b"http", b"h", b"/?a")),
        (b"GET", b"http://[::1]:80/", Target(b"http", b"[::1]:80", b"/")),
        (b"OPTIONS", b"*", Target(b"http", None, b"*")),
        (b"OPTIONS", b"http://h:1", Target(b"http", b"h:1", b"*")),
        (b"OPTIONS", b"http://h/", Target(b"http", b"h", b"/")),
        (b"CONNECT", b"h:443", Target(b"http", b"h:443", b"")),
    ],
)
def test_the_four_forms(method: bytes, target: bytes, expected: Target) -> None:
    """Origin, absolute, asterisk and authority form give scheme, authority and origin-form path."""
    assert expected == read_target(method, target)


@pytest.mark.parametrize(
    ("method", "target"),
    [
        (b"GET", b""), (b"GET", b"a"), (b"GET", b"*"), (b"GET", b"h:80"), (b"GET", b"?a"),
        (b"GET", b"/a#b"), (b"GET", b"http://h/a#b"), (b"GET", b"http://h#b"), (b"GET", b"/a?b#c"),
        (b"GET", b"/\xc3\xa9"), (b"GET", b"/a\x00"), (b"GET", b"/a\tb"), (b"GET", b"/a\x7f"),
        (b"GET", b"/a\\b"), (b"GET", b'/a"b'), (b"GET", b"/<a>"), (b"GET", b"/%2"), (b"GET", b"/%zz"),
        (b"GET", b"http://"), (b"GET", b"http:///a"), (b"GET", b"http:/a"), (b"GET", b"http://u@h/"),
        (b"GET", b"http://u:p@h/"), (b"GET", b"http://h:/"), (b"GET", b"http://h:99999/"),
        (b"GET", b"ftp://h/"), (b"GET", b"file:///etc"), (b"GET", b"http://h\\@x/"),
        (b"CONNECT", b"h"), (b"CONNECT", b"/"), (b"CONNECT", b"http://h:1/"), (b"CONNECT", b":1"),
    ],
)  # fmt: skip
def test_refused_targets(method: bytes, target: bytes) -> None:
    """Fragments, user information, odd bytes, and forms that the method does not have."""
    with pytest.raises(MalformedError) as caught:
        read_target(method, target)
    assert caught.value.code == "malformed-request"


def test_a_long_bad_target_is_refused_in_one_pass() -> None:
    """The expression must not backtrack: a target that fails at its end fails in linear time."""
    with pytest.raises(MalformedError):
        read_target(b"GET", b"/" + b"a%20" * 4000 + b"\x80")


@pytest.mark.parametrize(
    ("authority", "port"),
    [
        (b"a", None), (b"A.B.", None), (b"a_b.svc:8080", 8080), (b"10.0.0.1:1", 1), (b"[::1]", None),
        (b"[fd00::1]", None), (b"[::ffff:1.2.3.4]:65535", 65535),
    ],
)  # fmt: skip
def test_authorities(authority: bytes, port: int | None) -> None:
    """Names, addresses, and ports."""
    assert port == check_authority(authority)


@pytest.mark.parametrize(
    "authority",
    [
        b"", b" ", b"a b", b"a,b", b"a, a", b"a/b", b"a?b", b"a#b", b"u@a", b"a:", b"a:0", b"a:65536",
        b"a:8a", b"a:80:80", b":80", b"::1", b"[::1", b"[]", b"[:]", b"[fe80::1%eth0]", b"[v1.a]",
        b"http://a", b"a%20", b"a;b", b"a'b", b"\xc3\xa9", b"a\\b", b"a" * 256, b"a:+80", b"a:\xd9\xa1",
    ],
)  # fmt: skip
def test_refused_authorities(authority: bytes) -> None:
    """Whatever could be two hosts, another host, or none."""
    with pytest.raises(MalformedError):
        check_authority(authority)
