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
field names are in lower case; on an HTTP/1.1 wire behind they are spelled as is usual there
(`fields.py`).  TE is not relayed but
said anew: we always take trailers.

**Upgrade** is CONNECT with `:protocol` here (RFC 8441; `upgrade.py`).  It has room for one protocol,
so the first is the one that is asked for, and none for the method: that is GET, or what
`x-mesh-method` says, for the few that upgrade another (`kubectl exec` does a POST).  Nor is there a
2xx that does *not* open a tunnel: an app's 200 goes as 501 with the true one in `x-mesh-status`.
"""

from collections.abc import Sequence
from typing import Final

from meshproxy.message import CHUNKED, TUNNEL, Fields, RequestHead, ResponseHead

from . import MalformedError
from .fields import (
    CONTENT_LENGTH,
    COOKIE,
    EXPECT,
    HOST,
    MESH,
    TRACE,
    Header,
    Special,
    is_token,
    read_headers,
    trailers_of,
    values,
)
from .framing import length_of
from .heads import check_expectation
from .limits import LIMITS, Limits
from .target import PLAIN, check_authority, is_origin_form, read_target
from .upgrade import first_of, read_protocols

Headers = list[Header]

FIELD_OVERHEAD: Final = 32
"""What a field costs on top of its bytes, by the count of RFC 9113 section 6.5.2."""

HEADER_LIST_LIMIT: Final = LIMITS.head + FIELD_OVERHEAD * (LIMITS.fields + 8)
"""The size of header lists that we announce: every head that HTTP/1.1 admits fits in."""

_USUAL_ORDER: Final = (b":method", b":scheme", b":path", b":authority")
_LINE_OVERHEAD: Final = FIELD_OVERHEAD - 2  # a line has ": " between name and value
_OWN_SIZE: Final = 512  # pseudo-header fields but for path and authority, and fields of ours

_COOKIE: Final = b"cookie"
_TRAILERS_WELCOME: Final = (b"te", b"trailers")
_EXPECT: Final = (b"expect", b"100-continue")
_STATUSES: Final = {b"%d" % status: status for status in range(100, 600)}
_STATUS_HEADERS: Final = {status: (b":status", text) for text, status in _STATUSES.items()}
_STATUS_HEADERS[101] = _STATUS_HEADERS[200]  # HTTP/2 has no 101 (RFC 8441 section 4)
_METHOD: Final = b"x-mesh-method"
_STATUS: Final = b"x-mesh-status"


# Reading ------------------------------------------------------------------------------------------


def read_request_head(
    headers: Sequence[Header], *, ended: bool, limits: Limits = LIMITS
) -> RequestHead:
    """
    Return the head that a header list says; with `ended`, nothing follows it.

    Raises:
        MalformedError: It is not a request, or larger than what we take.
    """
    if len(headers) < 4:
        method, scheme, path, authority, protocol, rest = _pseudo_header_fields(headers)
    else:
        (first, method), (second, scheme), (third, path), (fourth, authority), *rest = headers
        protocol = None
        if (first, second, third, fourth) != _USUAL_ORDER:
            method, scheme, path, authority, protocol, rest = _pseudo_header_fields(headers)
    plain = path[:1] == b"/" and not path.strip(PLAIN)
    if method == b"CONNECT" or len(path) > limits.target or not (plain or is_origin_form(path)):
        path = _path(method, path, limits)
    if scheme not in (b"http", b"https"):
        raise MalformedError("malformed-request", f":scheme {scheme[:64]!r}")
    fields, special, size = read_headers(rest)
    if size > limits.head or len(rest) > limits.fields:
        _check_size(rest, limits)
    if authority is None or HOST in special:
        authority = _authority(authority, special.get(HOST, []))
    else:
        check_authority(authority)
    head = RequestHead(method, authority, path, fields, None if ended else CHUNKED, scheme)
    if special:  # not so in most requests
        _read_special(head, special, ended=ended)
    if method == b"CONNECT":
        return _tunnel_request(head, protocol, special)
    return head


def _pseudo_header_fields(
    headers: Sequence[Header],
) -> tuple[bytes, bytes, bytes, bytes | None, bytes | None, Sequence[Header]]:
    """Return method, scheme, path, authority and protocol, and the fields that are none of these."""
    # They come first, each once, and no others: nghttp2 has seen to it.
    pseudo = {}
    for name, value in headers:
        if name[:1] != b":":
            break
        pseudo[name] = value
    return (
        pseudo.get(b":method", b""),
        pseudo.get(b":scheme", b"http"),
        pseudo.get(b":path", b""),
        pseudo.get(b":authority"),
        pseudo.get(b":protocol"),
        headers[len(pseudo) :],
    )


def _read_special(head: RequestHead, special: Special, *, ended: bool) -> None:
    """Put into the head what the special fields say."""
    if COOKIE in special and len(special[COOKIE]) > 1:
        head.fields = _with_one_cookie(head.fields, special[COOKIE])
    if CONTENT_LENGTH in special:
        head.length = length_of(special[CONTENT_LENGTH])
    if MESH in special:
        head.mesh_fields = special[MESH]
    if TRACE in special:
        head.trace_fields = special[TRACE]
    if EXPECT in special:
        check_expectation(values(special, EXPECT))
        head.expect_continue = not ended


def _tunnel_request(head: RequestHead, protocol: bytes | None, special: Special) -> RequestHead:
    """Return the head of a CONNECT, which with a protocol means what Upgrade does in HTTP/1.1."""
    if CONTENT_LENGTH in special:
        raise MalformedError("malformed-request", "CONNECT with a body")
    head.length = TUNNEL
    head.expect_continue = False
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
    fields, special, size = read_headers(headers[1:])
    if size > limits.head or len(headers) > limits.fields:
        _check_size(headers[1:], limits)
    if COOKIE in special and len(special[COOKIE]) > 1:
        fields = _with_one_cookie(fields, special[COOKIE])
    if MESH in special and method == b"CONNECT":
        status = _true_status(status, special)
    length: int | None = None
    if method == b"CONNECT" and headers[0][1][:1] == b"2":
        length = TUNNEL
    elif status >= 200 and status != 204:
        if CONTENT_LENGTH in special:
            length = length_of(special[CONTENT_LENGTH])
        elif method != b"HEAD" and status != 304:
            length = 0 if ended else CHUNKED
    head = ResponseHead(status, fields, length)
    if MESH in special:
        head.mesh_fields = special[MESH]
    return head


def _true_status(status: int, special: Special) -> int:
    """Return the status of an answer that has declined a tunnel (see `declined`)."""
    for field in special[MESH]:
        if field[0] == _STATUS and status == 501 and field[1][:1] == b"2":
            special[MESH].remove(field)
            return _STATUSES.get(field[1], status)
    return status


def read_trailers(headers: Sequence[Header]) -> Fields | None:
    """
    Return what of a trailer section may travel on, or None when nothing is left.

    Raises:
        MalformedError: It is not a trailer section.
    """
    fields, _special, _size = read_headers(headers)
    return trailers_of(fields)


def _check_size(headers: Sequence[Header], limits: Limits) -> None:
    if len(headers) > limits.fields:
        raise MalformedError("fields-too-large", f"{len(headers)} fields")
    # As much as they would take as lines, with ": " between name and value.
    if sum(len(name) + len(value) + 2 for name, value in headers) > limits.head:
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


def _with_one_cookie(fields: Fields, pieces: Fields) -> Fields:
    """
    Return `fields` with the pieces of Cookie as one.

    RFC 9113 section 8.2.3: they "MUST be concatenated into a single octet string using the
    two-octet delimiter" before they leave HTTP/2.  Joined here, everybody behind us sees one.
    """
    whole = b"; ".join([value for _name, value, _line in pieces])
    joined = [field for field in fields if field[0] != _COOKIE]
    joined.append((_COOKIE, whole, b"Cookie: " + whole))
    return joined


# Writing ------------------------------------------------------------------------------------------


def request_headers(head: RequestHead) -> tuple[Headers, int]:
    """
    Return the header list of a request as it goes to the next hop, and its size.

    `mesh_fields` stay behind.  The size is what the list counts, at most, against the peer's limit
    (RFC 9113 section 6.5.2).
    """
    length = head.length
    headers: Headers = (
        [
            (b":method", head.method),
            (b":scheme", head.scheme),
            (b":path", head.path),
            (b":authority", head.authority),
        ]
        if length != TUNNEL
        else _tunnel_headers(head)
    )
    size = _OWN_SIZE + len(head.path) + len(head.authority)
    for name, value, line in head.fields:  # a comprehension would be a call
        headers.append((name, value))
        size += len(line) + _LINE_OVERHEAD
    if length == TUNNEL:
        if head.upgrade is not None and head.method != b"GET":
            headers.append((_METHOD, head.method))
        return headers, size
    if length is not None and length != CHUNKED:
        headers.append((b"content-length", b"%d" % length))
    headers.append(_TRAILERS_WELCOME)
    if head.expect_continue:
        headers.append(_EXPECT)
    return headers, size


def _tunnel_headers(head: RequestHead) -> Headers:
    """Return the pseudo-header fields of a request that asks to switch protocols (RFC 8441)."""
    if head.upgrade is None:
        return [(b":method", b"CONNECT"), (b":authority", head.authority)]
    return [
        (b":method", b"CONNECT"),
        (b":protocol", first_of(head.upgrade)),
        (b":scheme", head.scheme),
        (b":path", head.path),
        (b":authority", head.authority),
    ]


def declined(head: ResponseHead) -> ResponseHead:
    """
    Return an answer to CONNECT that does not open a tunnel, as HTTP/2 can say it.

    Any 2xx would open one (RFC 9113 section 8.5), but in HTTP/1.1 a server may answer an Upgrade
    with 200 and mean nothing but that.  The next sidecar gets to know the true status.
    """
    if not 200 <= head.status < 300:
        return head
    status = b"%d" % head.status
    fields = [*head.fields, (_STATUS, status, _STATUS + b": " + status)]
    return ResponseHead(501, fields, head.length)


def response_headers(head: ResponseHead) -> Headers:
    """
    Return the header list of a response, informational ones included; the reason is lost.

    A 101 is said as 200.
    """
    headers = [_STATUS_HEADERS[head.status]]
    for name, value, _line in head.fields:  # a comprehension would be a call
        headers.append((name, value))
    if head.length is not None and head.length >= 0:
        headers.append((b"content-length", b"%d" % head.length))
    return headers


def trailer_headers(fields: Fields) -> Headers:
    """Return the header list of a trailer section."""
    return [field[:2] for field in fields]
