"""
Heads of HTTP/2 messages: from header lists to `RequestHead` and `ResponseHead`, and back.

**Who checks what.**  Below us, nghttp2 resets streams whose header list breaks RFC 9113 section
8.2 and 8.3 by itself: names in upper case, connection-specific fields, `te` other than
``trailers``, misplaced, repeated, unknown or missing pseudo-header fields, control bytes, a body
that differs from Content-Length.  Here stands what it lets pass and a proxy must not: the same
rules that `heads.py` has for HTTP/1.1, so that a request means the same on both wires.
`tests/conformance` watches both halves.

**Mapping.**  The authority is a pseudo-header field in HTTP/2 and Host in HTTP/1.1; the framing is
that of the connection; Cookie may come in pieces and is put together (RFC 9113 section 8.2.3);
field names are in lower case from here on, also on an HTTP/1.1 wire behind.  TE is not relayed but
said anew: we always take trailers.

**Upgrade** is CONNECT with `:protocol` here (RFC 8441; `upgrade.py`).  It has room for one protocol,
so the first is the one that is asked for, and none for the method: that is GET, or what
`x-mesh-method` says, for the few that upgrade another (`kubectl exec` does a POST).
"""

from collections.abc import Sequence
from typing import Final

from meshproxy.message import CHUNKED, TUNNEL, Field, Fields, RequestHead, ResponseHead

from . import MalformedError
from .fields import (
    CONTENT_LENGTH,
    EXPECT,
    HOST,
    MESH,
    Special,
    is_protected,
    is_token,
    read_fields,
    values,
)
from .framing import content_length
from .heads import check_expectation
from .limits import LIMITS, Limits
from .target import check_authority, read_target
from .upgrade import first_of, read_protocols

Header = tuple[bytes, bytes]
Headers = list[Header]

FIELD_OVERHEAD: Final = 32
"""What a field costs on top of its bytes, by the count of RFC 9113 section 6.5.2."""

HEADER_LIST_LIMIT: Final = LIMITS.head + FIELD_OVERHEAD * (LIMITS.fields + 8)
"""The size of header lists that we announce: every head that HTTP/1.1 admits fits in."""

_COOKIE: Final = b"cookie"
_TRAILERS_WELCOME: Final = (b"te", b"trailers")
_EXPECT: Final = (b"expect", b"100-continue")
_STATUSES: Final = {b"%d" % status: status for status in range(100, 600)}
_STATUS_HEADERS: Final = {status: (b":status", text) for text, status in _STATUSES.items()}
_STATUS_HEADERS[101] = _STATUS_HEADERS[200]  # HTTP/2 has no 101 (RFC 8441 section 4)
_METHOD: Final = b"x-mesh-method"


# Reading ------------------------------------------------------------------------------------------


def read_request_head(
    headers: Sequence[Header], *, ended: bool, limits: Limits = LIMITS
) -> RequestHead:
    """
    Return the head that a header list says; with `ended`, nothing follows it.

    Raises:
        MalformedError: It is not a request, or larger than what we take.
    """
    pseudo: dict[bytes, bytes] = {}
    for name, value in headers:
        if name[:1] != b":":
            break
        pseudo[name] = value
    # Pseudo-header fields come first, each once: nghttp2 has seen to it.
    lines = [name + b": " + value for name, value in headers[len(pseudo) :]]
    method = pseudo.get(b":method", b"")
    path = _path(method, pseudo.get(b":path", b""), limits)
    _check_size(lines, limits)
    fields, special = read_fields(lines)
    authority = _authority(pseudo.get(b":authority"), special.get(HOST, []))
    scheme = pseudo.get(b":scheme", b"http")
    if scheme not in (b"http", b"https"):
        raise MalformedError("malformed-request", f":scheme {scheme[:64]!r}")

    head = RequestHead(method, authority, path, _with_one_cookie(fields), scheme=scheme)
    if method == b"CONNECT":
        return _tunnel_request(head, pseudo.get(b":protocol"), special)
    if CONTENT_LENGTH in special:
        head.length = content_length(values(special, CONTENT_LENGTH))
    elif not ended:
        head.length = CHUNKED
    head.mesh_fields = special.get(MESH)
    if EXPECT in special:
        check_expectation(values(special, EXPECT))
        head.expect_continue = not ended
    return head


def _tunnel_request(head: RequestHead, protocol: bytes | None, special: Special) -> RequestHead:
    """Return the head of a CONNECT, which with a protocol means what Upgrade does in HTTP/1.1."""
    if CONTENT_LENGTH in special:
        raise MalformedError("malformed-request", "CONNECT with a body")
    head.length = TUNNEL
    head.mesh_fields = special.get(MESH)
    if protocol is None:
        if check_authority(head.authority) is None:
            raise MalformedError("malformed-request", "CONNECT without a port")
        return head
    head.upgrade = read_protocols([protocol])
    if head.upgrade is None or b"," in protocol:
        raise MalformedError("not-implemented", f":protocol {protocol[:64]!r}")
    head.method = b"GET"
    for name, value, _line in special.get(MESH, ()):
        if name == _METHOD:
            if not is_token(value) or value == b"CONNECT":
                raise MalformedError("malformed-request", f"method {value[:64]!r}")
            head.method = value
    return head


def read_response_head(
    headers: Sequence[Header], method: bytes, *, ended: bool, limits: Limits = LIMITS
) -> ResponseHead:
    """
    Return the head of a response to `method`; with `ended`, nothing follows it.

    Raises:
        MalformedError: It is not a response, or larger than what we take.
    """
    status = _STATUSES.get(headers[0][1]) if headers and headers[0][0] == b":status" else None
    if status is None:
        raise MalformedError("upstream-protocol-error", "no valid :status")
    lines = [name + b": " + value for name, value in headers[1:]]
    _check_size(lines, limits)
    fields, special = read_fields(lines)
    fields += special.get(MESH, ())
    length: int | None = None
    if method == b"CONNECT" and 200 <= status < 300:
        length = TUNNEL
    elif status >= 200 and status != 204:
        if CONTENT_LENGTH in special:
            length = content_length(values(special, CONTENT_LENGTH))
        elif method != b"HEAD" and status != 304:
            length = 0 if ended else CHUNKED
    return ResponseHead(status, fields, length)


def read_trailers(headers: Sequence[Header]) -> Fields | None:
    """
    Return what of a trailer section may travel on, or None when nothing is left.

    Raises:
        MalformedError: It is not a trailer section.
    """
    fields, _ = read_fields([name + b": " + value for name, value in headers])
    return [field for field in fields if not is_protected(field[0])] or None


def _check_size(lines: list[bytes], limits: Limits) -> None:
    if len(lines) > limits.fields:
        raise MalformedError("fields-too-large", f"{len(lines)} fields")
    if sum(map(len, lines)) > limits.head:
        raise MalformedError("fields-too-large", f"fields of more than {limits.head} bytes")


def _path(method: bytes, path: bytes, limits: Limits) -> bytes:
    """Return :path where it is one; CONNECT has none (RFC 9113 section 8.5) but with :protocol."""
    if len(path) > limits.target:
        raise MalformedError("target-too-long", f":path of {len(path)} bytes")
    if method == b"CONNECT" and not path:
        return b""
    if path[:1] != b"/" and path != b"*":  # `read_target` would take a whole URI
        raise MalformedError("malformed-request", f":path {path[:64]!r}")
    read_target(b"GET" if method == b"CONNECT" else method, path)
    return path


def _authority(named: bytes | None, hosts: Fields) -> bytes:
    """
    Return what the request is for.

    RFC 9113 section 8.3.1: a request "that contains a Host header field that identifies a
    different entity from that in the :authority" is malformed, and with no :authority at all, as
    requests translated from HTTP/1.1 may be, Host says it.
    """
    if len(hosts) > 1:
        raise MalformedError("malformed-request", f"{len(hosts)} host fields")
    host = hosts[0][1] if hosts else named
    authority = host if named is None else named
    if authority is None or host is None:
        raise MalformedError("malformed-request", "neither :authority nor host")
    check_authority(authority)
    if host.lower() != authority.lower():
        raise MalformedError("malformed-request", "host differs from :authority")
    return authority


def _with_one_cookie(fields: Fields) -> Fields:
    """
    Return `fields` with the pieces of Cookie as one.

    RFC 9113 section 8.2.3: they "MUST be concatenated into a single octet string using the
    two-octet delimiter" before they leave HTTP/2.  Joined here, everybody behind us sees one.
    """
    if [field[0] for field in fields].count(_COOKIE) < 2:
        return fields
    pieces = [field[1] for field in fields if field[0] == _COOKIE]
    whole = b"; ".join(pieces)
    joined = [field for field in fields if field[0] != _COOKIE]
    joined.append((_COOKIE, whole, b"cookie: " + whole))
    return joined


# Writing ------------------------------------------------------------------------------------------


def request_headers(head: RequestHead) -> Headers:
    """Return the header list of a request as it goes to the next hop; `mesh_fields` stay behind."""
    if head.length == TUNNEL:
        return _tunnel_headers(head)
    headers: Headers = [(b":method", head.method)]
    headers.append((b":scheme", head.scheme))
    headers.append((b":path", head.path))
    headers.append((b":authority", head.authority))
    headers += [field[:2] for field in head.fields]
    if head.length is not None and head.length >= 0:
        headers.append((b"content-length", b"%d" % head.length))
    headers.append(_TRAILERS_WELCOME)
    if head.expect_continue:
        headers.append(_EXPECT)
    return headers


def _tunnel_headers(head: RequestHead) -> Headers:
    """Return the header list of a request that asks to switch protocols (RFC 8441 section 4)."""
    headers: Headers = [(b":method", b"CONNECT")]
    if head.upgrade is not None:
        headers.append((b":protocol", first_of(head.upgrade)))
        headers.append((b":scheme", head.scheme))
        headers.append((b":path", head.path))
    headers.append((b":authority", head.authority))
    headers += [field[:2] for field in head.fields]
    if head.upgrade is not None and head.method != b"GET":
        headers.append((_METHOD, head.method))
    return headers


def response_headers(head: ResponseHead) -> Headers:
    """
    Return the header list of a response, informational ones included; the reason is lost.

    A 101 is said as 200.
    """
    headers = [_STATUS_HEADERS[head.status]]
    headers += [field[:2] for field in head.fields]
    if head.length is not None and head.length >= 0:
        headers.append((b"content-length", b"%d" % head.length))
    return headers


def trailer_headers(fields: Fields) -> Headers:
    """Return the header list of a trailer section."""
    return [field[:2] for field in fields]


def size_of(fields: Sequence[Field]) -> int:
    """Return what `fields` count against the peer's limit (RFC 9113 section 6.5.2)."""
    # A line has ": " between name and value, which does not count.
    return sum([len(field[2]) for field in fields]) + (FIELD_OVERHEAD - 2) * len(fields)
