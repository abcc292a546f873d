"""Cookies, found and set."""

import pytest

from meshproxy.message import Field, field
from meshproxy.policies.load_balancing.cookies import cookie_of, set_cookie


def cookies(*values: bytes) -> list[Field]:
    return [field(b"Accept", b"s=0"), *(field(b"Cookie", value) for value in values)]


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ((), None),
        ((b"",), None),
        ((b"s=1",), b"1"),
        ((b"a=b; s=1; c=d",), b"1"),
        ((b"a=b;s=1",), b"1"),
        ((b"a=b", b"s=1"), b"1"),  # RFC 9113 section 8.2.3
        ((b"s=1; s=2",), b"1"),
        ((b"as=1; s2=1; S=1",), None),
        ((b"a=s=1",), None),
        ((b"s",), b""),
        ((b"s=a=b",), b"a=b"),
    ],
)
def test_a_cookie_is_found(values: tuple[bytes, ...], expected: bytes | None) -> None:
    """By its whole name, in any of the fields; the first counts."""
    assert cookie_of(cookies(*values), b"s") == expected


def test_a_cookie_is_set() -> None:
    """Neither scripts nor other sites can use it."""
    name, value, line = set_cookie(b"s", b"1", secure=False)
    assert (name, value) == (b"set-cookie", b"s=1; HttpOnly; SameSite=Strict")
    assert line == b"Set-Cookie: " + value
    value = set_cookie(b"s", b"1", path=b"/a", max_age=60, secure=True)[1]
    assert value == b"s=1; Path=/a; Max-Age=60; HttpOnly; SameSite=Strict; Secure"
