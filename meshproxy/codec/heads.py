"""
Heads of HTTP/1.1 messages: from lines to `RequestHead` and `ResponseHead`.

Whatever RFC 9110 or 9112 calls invalid is refused, also where they allow a repair: with a repair,
we and the next hop could disagree about what was said.  The choices that are ours:

* An unknown expectation is malformed (417 is a MAY, RFC 9110 section 10.1.1).
* Connection cannot name away fields that decide something (`fields.is_protected`): such options
  are ignored, others are obeyed.
* A Host that is empty, repeated or, in HTTP/1.1, missing is malformed, also next to an absolute
  target, which overrides it.
* Upgrade counts only when Connection names it, and not in a request with a body, which "MAY" be
  ignored (RFC 9110 section 7.8); see `upgrade.py` for what is never relayed.
* A reason phrase may be missing together with the space before it.
"""

import re
from collections.abc import Sequence
from typing import Final

from meshproxy.message import TUNNEL, Field, Fields, RequestHead, ResponseHead

from . import MalformedError
from .fields import (
    CONNECTION,
    CONTENT_LENGTH,
    EXPECT,
    HOST,
    LONGEST_CACHED,
    MESH,
    TRACE,
    TRANSFER_ENCODING,
    UPGRADE,
    Special,
    has_bare_line_end,
    is_protected,
    is_token,
    read_fields,
    values,
)
from .framing import UNTIL_CLOSE, length_of, request_length, response_length
from .limits import Limits
from .target import PLAIN, check_authority, is_origin_form, read_target
from .upgrade import read_protocols

_NO_OPTIONS: Final[frozenset[bytes]] = frozenset()
_CLOSE: Final = frozenset({b"close"})
_PERSISTENT: Final = frozenset({b"keep-alive"})
_COMMON_OPTIONS: Final = {
    b"close": _CLOSE, b"Close": _CLOSE, b"keep-alive": _PERSISTENT, b"Keep-Alive": _PERSISTENT,
}  # fmt: skip


def _connection_options(lines: list[bytes]) -> frozenset[bytes]:
    """Return the options in the Connection lines, in lower case (RFC 9110 section 7.6.1)."""
    if len(lines) == 1 and (common := _COMMON_OPTIONS.get(lines[0])):
        return common
    options = {option.strip(b" \t").lower() for line in lines for option in line.split(b",")}
    # Section 5.6.1.2: empty list elements are ignored.
    options.discard(b"")
    for option in options:
        if not is_token(option):
            raise MalformedError("malformed-request", f"connection option {option[:64]!r}")
    return frozenset(options)


def _without_nominated(fields: Fields, options: frozenset[bytes]) -> Fields:
    """Return `fields` without those that Connection declares to be about this connection only."""
    if options is _CLOSE or options is _PERSISTENT:
        return fields
    nominated = {option for option in options if not is_protected(option)}
    return [field for field in fields if field[0] not in nominated]


def _keep_alive(options: frozenset[bytes], *, http10: bool) -> bool:
    """Say whether the connection persists after this message (RFC 9112 section 9.3)."""
    if b"close" in options:
        return False
    return not http10 or b"keep-alive" in options


_METHODS: Final = frozenset(
    {b"GET", b"HEAD", b"POST", b"PUT", b"DELETE", b"CONNECT", b"OPTIONS", b"TRACE", b"PATCH"}
)


_MOST_CACHED: Final = 128  # status lines

_WITH_BODY: Final = frozenset({b"GET", b"POST", b"PUT", b"DELETE", b"PATCH"})
"""Requests whose response has a body unless its status says otherwise."""

_later_version: Final = re.compile(rb"HTTP/[2-9]\.[0-9]").fullmatch


def _is_http10(lines: list[bytes], version: bytes) -> bool:
    """Say whether a version other than HTTP/1.1 is HTTP/1.0; nothing else is spoken here."""
    if version == b"HTTP/1.0":
        return True
    # RFC 9110 section 15.6.6: 505 is about the major version.
    if _later_version(version):
        raise _well_formed_but(lines, "version-not-supported", f"version {version!r}")
    raise MalformedError("malformed-request", f"version {version[:64]!r}")


def read_request_head(lines: list[bytes], limits: Limits) -> tuple[RequestHead, bool, bool]:
    """Return the head, whether the connection persists, and whether it is HTTP/1.0."""
    # The request line (RFC 9112 section 3).
    try:
        method, raw_target, version = lines[0].split(b" ")
    except ValueError:
        raise MalformedError("malformed-request", f"request line {lines[0][:64]!r}") from None
    http10 = version != b"HTTP/1.1" and _is_http10(lines, version)
    if method not in _METHODS and not is_token(method):
        raise MalformedError("malformed-request", f"method {method[:64]!r}")
    if len(raw_target) > limits.target:
        raise _well_formed_but(lines, "target-too-long", f"target of {len(raw_target)} bytes")
    if len(lines) > limits.fields + 1:
        raise _well_formed_but(lines, "fields-too-large", f"{len(lines) - 1} field lines")
    plain = raw_target[:1] == b"/" and not raw_target.strip(PLAIN)
    if (
        plain or is_origin_form(raw_target)
    ) and method != b"CONNECT":  # as nearly always: one call less
        scheme, named, path = b"http", None, raw_target
        length = None
    else:
        scheme, named, path = read_target(method, raw_target)
        length = TUNNEL if method == b"CONNECT" else None
    # The field lines.
    fields, special = read_fields(lines[1:])
    hosts = special.pop(HOST, ())
    if named is None and len(hosts) == 1:  # as nearly always: one call less
        authority = hosts[0][1]
        check_authority(authority)
    else:
        authority = _authority(named, hosts, http10=http10)
    head = RequestHead(method, authority, path, fields, length, scheme)
    # After CONNECT the bytes are a tunnel's or, when it is refused, of unknown kind: either way
    # not the next request (CVE-2025-64763).
    keep_alive = not http10 and method != b"CONNECT"
    if special:  # not so in most requests: they end here
        options = _read_special(head, special, http10=http10)
        keep_alive = _keep_alive(options, http10=http10) and method != b"CONNECT"
    return head, keep_alive, http10


def _read_special(head: RequestHead, special: Special, *, http10: bool) -> frozenset[bytes]:
    """Put into the head what the special fields say; return the options of Connection."""
    if CONTENT_LENGTH in special or TRANSFER_ENCODING in special:
        lengths, codings = values(special, CONTENT_LENGTH), values(special, TRANSFER_ENCODING)
        head.length = request_length(lengths, codings, http10=http10)
        if head.method == b"CONNECT":
            raise MalformedError("malformed-request", "CONNECT with a body")
    options = _NO_OPTIONS
    if CONNECTION in special:
        options = _connection_options(values(special, CONNECTION))
        head.fields = _without_nominated(head.fields, options)
    if MESH in special:
        head.mesh_fields = special[MESH]
    if TRACE in special:
        head.trace_fields = special[TRACE]
    if EXPECT in special:
        # RFC 9110 section 10.1.1: ignored in HTTP/1.0, and pointless without a body.
        check_expectation(values(special, EXPECT))
        head.expect_continue = not http10 and bool(head.length)
    if UPGRADE in special and b"upgrade" in options and not (http10 or head.length):
        head.upgrade = read_protocols(values(special, UPGRADE))
        if head.upgrade is not None:
            head.length = TUNNEL
    return options


def _well_formed_but(lines: list[bytes], code: str, detail: str) -> MalformedError:
    """
    Return the error `code`, unless one of the lines is worse than that.

    A bare CR or LF is refused as soon as it is seen (`check_unfinished_head`), so it must also come first
    when the whole head is there at once.
    """
    if any(b"\r" in line or b"\n" in line for line in lines):
        return MalformedError("malformed-request", "bare CR or LF in the head")
    return MalformedError(code, detail)


def _authority(named: bytes | None, hosts: Sequence[Field], *, http10: bool) -> bytes:
    """Return the authority that a request is for; `named` is the one in its target."""
    # RFC 9112 section 3.2: 400 for a request "that lacks a Host header field", "contains more
    # than one", or one "with an invalid field value".  HTTP/1.0 may do without when the target
    # names the authority; from nothing else could we know where to go.
    if len(hosts) > 1 or (not hosts and not http10):
        raise MalformedError("malformed-request", f"{len(hosts)} Host lines")
    if hosts:
        host = hosts[0][1]
        check_authority(host)
        # Section 3.2.2: with an absolute target "a proxy MUST ignore the received Host".
        return host if named is None else named
    if named is None:
        raise MalformedError("malformed-request", "neither Host nor an absolute target")
    return named


def check_expectation(expectations: list[bytes]) -> None:
    """
    Accept ``100-continue``, once.

    Raises:
        MalformedError: It is anything else.
    """
    if len(expectations) > 1 or expectations[0].lower() != b"100-continue":
        raise MalformedError("malformed-request", f"expectation {expectations[0][:64]!r}")


def _read_status_line(line: bytes) -> tuple[bool, int, bytes]:
    """Return whether the version is HTTP/1.0, the status and the reason (RFC 9112 section 4)."""
    version, code, reason = line[:9], line[9:12], line[12:]
    if version not in (b"HTTP/1.1 ", b"HTTP/1.0 ") or reason[:1] not in (b" ", b""):
        raise MalformedError("malformed-request", f"status line {line[:64]!r}")
    # Many servers leave out the space before an empty reason; it cannot mislead anybody.
    reason = reason[1:]
    if len(code) != 3 or not code.isdigit() or not b"1" <= code[:1] <= b"5":
        raise MalformedError("malformed-request", f"status {code!r}")
    if any((byte < 32 and byte != 9) or byte == 127 for byte in reason):
        raise MalformedError("malformed-request", "control byte in the reason phrase")
    return version == b"HTTP/1.0 ", int(code), reason


class _StatusLines(dict[bytes, tuple[bool, int, bytes]]):
    """Status lines that were read before; asked for another, it reads that one."""

    def __missing__(self, line: bytes) -> tuple[bool, int, bytes]:
        read = _read_status_line(line)
        if len(line) <= LONGEST_CACHED:  # others choose what is remembered
            if len(self) >= _MOST_CACHED:
                self.clear()
            self[line] = read
        return read


_status_lines: Final = _StatusLines()


def read_response_head(
    lines: list[bytes], method: bytes, limits: Limits
) -> tuple[ResponseHead, int, bool]:
    """Return the head, what follows it (see `framing`), and whether the connection persists."""
    http10, status, reason = _status_lines[lines[0]]
    del lines[0]
    if len(lines) > limits.fields:
        raise MalformedError("fields-too-large", f"{len(lines)} field lines")
    fields, special = read_fields(lines)
    length: int | None
    if status == 200 and method in _WITH_BODY and CONTENT_LENGTH in special and TRANSFER_ENCODING not in special:  # fmt: skip
        length = follows = length_of(special[CONTENT_LENGTH])  # as nearly always
    else:
        lengths, codings = values(special, CONTENT_LENGTH), values(special, TRANSFER_ENCODING)
        length, follows = response_length(method, status, lengths, codings, http10=http10)
    keep_alive = not http10
    if CONNECTION in special:
        options = _connection_options(values(special, CONNECTION))
        fields = _without_nominated(fields, options)
        keep_alive = _keep_alive(options, http10=http10)
    head = ResponseHead(status, fields, length, reason)
    if MESH in special:
        head.mesh_fields = special[MESH]
    if status == 101:
        head.upgrade = b", ".join(values(special, UPGRADE)) or None
    # Neither a tunnel nor a body that the end of the connection ends leaves room for another.
    if status == 101 or follows == UNTIL_CLOSE or (method == b"CONNECT" and status < 300):
        keep_alive = False
    return head, follows, keep_alive


def check_unfinished_head(buffer: bytes, limits: Limits) -> None:
    """
    Make sure that what has come of a head so far may become one.

    The verdict depends only on the first `limits.head` bytes, so it is the same however the
    bytes arrive.

    Raises:
        MalformedError: It is too large already, or has a line end that is none.
    """
    if has_bare_line_end(buffer, 0, min(len(buffer), limits.head), complete=False):
        raise MalformedError("malformed-request", "bare CR or LF in the head")
    if len(buffer) < limits.head:
        return
    if buffer.find(b"\r\n", 0, limits.target) < 0:
        raise MalformedError("target-too-long", f"start line of more than {limits.target} bytes")
    raise MalformedError("fields-too-large", f"head of more than {limits.head} bytes")
