"""
The request target and its authority: RFC 9112 section 3.2, strictly.

A target decides the route and the authorization, so what two parsers could read in two ways is
refused here: fragments, user information, spaces, anything but visible ASCII.  Dot segments,
encoded slashes and the like are legal spellings and remain the business of `routing`.
"""

import re
from typing import Final

from . import MalformedError

Target = tuple[bytes, bytes | None, bytes]
"""Scheme; authority, or None when the target names none; path and query in origin form."""


# Path: RFC 3986 `pchar`, complete percent escapes, and of the rest `[ ] |`, which browsers leave
# as they are (WHATWG URL, "path percent-encode set").  Query: there browsers leave more, and a
# lone `%` is common.  Possessive quantifiers: a target that does not match fails in one pass.
_PATH: Final = rb"/(?:[!$&'(*)+,\-./0-9:;=@A-Z\[\]_a-z|~]++|%[0-9A-Fa-f]{2})*"
_QUERY: Final = rb"\?[!$-;=?-~]*+"
is_origin_form: Final = re.compile(_PATH + rb"(?:" + _QUERY + rb")?").fullmatch
PLAIN: Final = b"/0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz-._~"
"""
Most paths hold nothing but these; ``path.strip(PLAIN)`` is empty then, which is found out in a
quarter of the time that the pattern takes.
"""
_absolute_form: Final = re.compile(
    rb"(https?)://([^/?#]*)(.*)", re.IGNORECASE | re.DOTALL
).fullmatch

# A DNS name (with the underscores that Docker and Kubernetes users have), an IPv4 address or a
# bracketed IPv6 address.  RFC 3986 also allows percent escapes and sub-delimiters in a name; no
# resolver knows such names, while a comma there is two Host lines joined by somebody.
_authority: Final = re.compile(
    rb"(?:[0-9A-Za-z_~.\-]{1,255}|\[(?=[0-9A-Fa-f.]*+:[0-9A-Fa-f.]*+:)[0-9A-Fa-f:.]{2,45}\])"
    rb"(?::([0-9]{1,5}))?"
).fullmatch
_MOST_CACHED: Final = 512


def read_target(method: bytes, target: bytes) -> Target:
    """
    Take a request target apart.

    Raises:
        MalformedError: It is in none of the four forms, or in one that `method` does not have.
    """
    # 3.2.3: "authority-form is only used for CONNECT requests", and CONNECT uses nothing else.
    if method == b"CONNECT":
        if check_authority(target) is None:
            raise MalformedError("malformed-request", "CONNECT without a port")
        return (b"http", target, b"")
    # 3.2.1: what nearly all requests have.
    if is_origin_form(target):
        return (b"http", None, target)
    # 3.2.4: "asterisk-form is only used for a server-wide OPTIONS request".
    if target == b"*" and method == b"OPTIONS":
        return (b"http", None, target)
    # 3.2.2: "a server MUST accept the absolute-form in requests".
    if not (absolute := _absolute_form(target)):
        raise MalformedError("malformed-request", f"request target {target[:64]!r}")
    scheme, authority, path = absolute.groups()
    check_authority(authority)
    if not path and method == b"OPTIONS":
        # 3.2.4: the last proxy sends `*` when the URI has neither path nor query.
        return (scheme.lower(), authority, b"*")
    if not path.startswith(b"/"):
        path = b"/" + path
    if not is_origin_form(path):
        raise MalformedError("malformed-request", f"request target {target[:64]!r}")
    return (scheme.lower(), authority, path)


class _Ports(dict[bytes, int | None]):
    """Ports of authorities that were read before; asked for another, it reads that one."""

    def __missing__(self, authority: bytes) -> int | None:
        match = _authority(authority)
        port = int(match[1]) if match and match[1] else None
        if not match or (port is not None and not 0 < port < 65536):
            raise MalformedError("malformed-request", f"authority {authority[:64]!r}")
        if len(self) >= _MOST_CACHED:
            self.clear()
        self[authority] = port
        return port


_ports: Final = _Ports()


def check_authority(authority: bytes) -> int | None:
    """
    Check the value of Host, or the authority of a target; return its port, None when it has none.

    Raises:
        MalformedError: It is empty, or not ``host`` or ``host:port``.
    """
    return _ports[authority]
