"""Cookies (RFC 6265), as far as a proxy needs them: find one, set one."""

from meshproxy.message import Field, Fields, field


def cookie_of(fields: Fields, name: bytes) -> bytes | None:
    """Return the value of the first cookie of this name; HTTP/2 may send many Cookie fields."""
    for known, value, _ in fields:
        if known == b"cookie" and name in value:
            for pair in value.split(b";"):
                key, _, text = pair.strip(b" \t").partition(b"=")
                if key == name:
                    return text
    return None


def set_cookie(
    name: bytes, value: bytes, *, path: bytes = b"", max_age: int | None = None, secure: bool
) -> Field:
    """
    Return the field that gives a client a cookie.

    Scripts need not see it and other sites need not send it: HttpOnly, SameSite=Strict.

    Args:
        name: Of the cookie.
        value: Of the cookie.
        path: Below which it is sent; empty for that of the request.
        max_age: Seconds; None for as long as the browser's session lasts.
        secure: Never send it in plaintext.
    """
    text = name + b"=" + value
    if path:
        text += b"; Path=" + path
    if max_age is not None:
        text += b"; Max-Age=%d" % max_age
    text += b"; HttpOnly; SameSite=Strict"
    if secure:
        text += b"; Secure"
    return field(b"Set-Cookie", text)
