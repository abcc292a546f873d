"""
Fields as they stand on a wire: from bytes to `Field` tuples, strictly, and mostly from memory.

A field of HTTP/1.1 is a line, one of HTTP/2 a pair; both are read by the same rules.

The parts of a message that are about the connection (framing, Host, hop-by-hop fields) are set
apart from those that travel on, because a proxy that copies the former has been tricked before:
see RFC 9110 section 7.6.1 and RFC 9112 section 11.2.

**Valid by construction.** What comes out of here has a token as its name and no control byte in
its value, and the line is put together anew from the two.  So the writers may copy lines without
looking at them: nothing that was read can start a new line or end a head.

**The caches.** Clients repeat themselves: of the eight or so lines of a request, all but a few are
the same, byte for byte, as in the request before.  Those are looked up rather than parsed, lines
in one cache, pairs in another.  Lines that differ every time, or that hold a secret, never enter the cache; of those only the name is
looked up.  Date and Content-Length do: the one changes once a second, the other repeats often
enough, and when they fill the cache, reading some lines anew costs far less than they have saved.
"""

import re
from collections.abc import Iterable, Sequence
from typing import Any, Final

from meshproxy.message import TRACE_FIELDS, Fields, is_mesh_field

from . import MalformedError

# What a field is to a proxy.  END_TO_END is falsy so that the loop below can ask for it cheaply.
END_TO_END: Final = 0
HOST: Final = 1
CONTENT_LENGTH: Final = 2
TRANSFER_ENCODING: Final = 3
CONNECTION: Final = 4
EXPECT: Final = 5
UPGRADE: Final = 6
MESH: Final = 7
DROPPED: Final = 8
COOKIE: Final = 9  # of HTTP/2, where it may come in pieces; in HTTP/1.1 it is like any other
TRACE: Final = 10  # travels on, and is looked at

LONG: Final = 16
"""Added to the kind of a field of HTTP/2 that is longer than `LONGEST_CACHED`."""

Header = tuple[bytes, bytes]
"""Name, in lower case, and value: a field of HTTP/2."""

Entry = tuple[int, Any]
"""
A kind from the list above, and the field.

Not `tuple[int, Field]`: compiled, a `Field` that is looked up would be taken apart and put together
anew, so that every message holds a copy of what all could share.
"""

Special = dict[int, Fields]
"""Fields by kind, for every kind but END_TO_END."""

KINDS: Final = {
    b"host": HOST,
    b"content-length": CONTENT_LENGTH,
    b"transfer-encoding": TRANSFER_ENCODING,
    b"connection": CONNECTION,
    b"expect": EXPECT,
    b"upgrade": UPGRADE,
    b"keep-alive": DROPPED,
    b"proxy-connection": DROPPED,
    b"te": DROPPED,
    b"http2-settings": DROPPED,  # RFC 7540 section 3.2.1; with it, `Upgrade: h2c` opens a tunnel past us
}

# HTTP/2 has names in lower case only (RFC 9113 section 8.2.1).  On an HTTP/1.1 wire behind it they
# are spelled as everybody spells them there: names are case-insensitive (RFC 9110 section 5.1), but
# old programs exist that look for ``Set-Cookie``.  These are the ones with capitals inside a word.
_SPELLED: Final = {
    name.lower(): name
    for name in (
        b"Content-MD5", b"DNT", b"ETag", b"Sec-GPC", b"Sec-WebSocket-Accept",
        b"Sec-WebSocket-Extensions", b"Sec-WebSocket-Key", b"Sec-WebSocket-Protocol",
        b"Sec-WebSocket-Version", b"SOAPAction", b"TE", b"WWW-Authenticate", b"X-UA-Compatible",
        b"X-XSS-Protection",
    )
}  # fmt: skip

_PROTECTED: Final = frozenset(
    {
        b"age", b"authentication-info", b"authorization", b"b3", b"baggage", b"cache-control",
        b"cookie", b"date", b"expires", b"forwarded", b"location", b"max-forwards", b"origin",
        b"proxy-authenticate", b"proxy-authentication-info", b"proxy-authorization", b"range",
        b"retry-after", b"set-cookie", b"trailer", b"traceparent", b"tracestate", b"vary", b"via",
        b"www-authenticate", b"x-request-id",
    }
)  # fmt: skip
_PROTECTED_PREFIXES: Final = (b"content-", b"if-", b"x-forwarded-", b"x-b3-")

# Lines worth remembering are short, public and the same every time.  Full, the three caches hold
# about a megabyte.
_MOST_CACHED: Final = 1024
LONGEST_CACHED: Final = 160
_NEVER_CACHED: Final = frozenset(
    {
        b"age", b"authorization", b"b3", b"baggage", b"content-range", b"cookie", b"etag", b"expires", b"forwarded", b"grpc-timeout", b"idempotency-key",
        b"if-match", b"if-modified-since", b"if-none-match", b"last-modified", b"location",
        b"proxy-authorization", b"range", b"referer", b"sec-websocket-accept",
        b"sec-websocket-key", b"set-cookie", b"traceparent", b"tracestate", b"x-correlation-id",
        b"x-request-id", b"x-response-time",
    }
)  # fmt: skip
_never_cached_part: Final = re.compile(
    rb"^x-b3-|^x-forwarded-|key|token|secret|session|signature|trace|auth|csrf"
).search


class _Lines(dict[bytes, Entry]):
    """
    Lines that were read before; asked for another, it reads that one.

    So a line that is known costs a subscript; ``get(line) or read(line)`` costs a call more.
    """

    def __missing__(self, line: bytes) -> Entry:
        """
        Read one field line, without its CRLF.

        Raises:
            MalformedError: It is not ``name ":" OWS value OWS``.
        """
        name, colon, value = line.partition(b":")
        known = _names.get(name)
        if not colon or (known is None and not is_token(name)):
            raise MalformedError("malformed-request", _why_no_name(line, name, colon))
        lower, kind, cacheable, _ = known or _learn_name(name)
        value = value.strip(b" \t")
        if value.translate(_VISIBLE) != value:
            raise _with_control_byte(name)
        entry = (kind, (lower, value, name + b": " + value))
        if cacheable and len(line) <= LONGEST_CACHED:
            # Starting over when full costs a parse per line once in a while; a cleverer cache
            # would cost every look-up.
            if len(self) >= _MOST_CACHED:
                self.clear()
            self[line] = entry
        return entry


class _Headers(dict[Header, Entry]):
    """Fields of HTTP/2 that were read before."""

    def __missing__(self, header: Header) -> Entry:
        """
        Read one field.

        Raises:
            MalformedError: Its name is no token, or its value holds a control byte.
        """
        name, value = header
        known = _names.get(name)
        if known is None and not is_token(name):
            raise MalformedError("malformed-request", _why_no_name(name, name, b":"))
        lower, kind, cacheable, spelled = known or _learn_name(name)
        value = value.strip(b" \t")
        if value.translate(_VISIBLE) != value:
            raise _with_control_byte(name)
        line = spelled + value
        if name == b"cookie":
            kind = COOKIE
        if len(line) > LONGEST_CACHED:
            return kind + LONG, (lower, value, line)
        entry = (kind, (lower, value, line))
        if cacheable:
            if len(self) >= _MOST_CACHED:
                self.clear()
            self[header] = entry
        return entry


_lines: Final = _Lines()
_headers: Final = _Headers()
_names: dict[bytes, tuple[bytes, int, bool, bytes]] = {}

# RFC 9110 section 5.6.2.
is_token: Final = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+").fullmatch
# RFC 9110 section 5.5: visible characters, space, tab and obs-text; anything else is refused.
_CONTROL_BYTES: Final = bytes({*range(32), 127} - {9})
# Changes what is refused.  Taking it away would cost twice as much: that makes a table for each call.
_VISIBLE: Final = bytes.maketrans(_CONTROL_BYTES, b"?" * len(_CONTROL_BYTES))


def read_fields(lines: Iterable[bytes]) -> tuple[Fields, Special]:
    """
    Read field lines; return the end-to-end fields, and apart from them those that need a decision.

    Fields of kind TRACE are among both.

    Raises:
        MalformedError: A line is not a field line of RFC 9112 section 5.
    """
    fields: Fields = []
    special: Special = {}
    for line in lines:
        kind, field = _lines[line]
        if not kind:
            fields.append(field)
            continue
        if kind == TRACE:
            fields.append(field)
        if kind in special:
            special[kind].append(field)
        else:
            special[kind] = [field]
    return fields, special


def read_headers(headers: Sequence[Header]) -> tuple[Fields, Special, int]:
    """
    Read fields of HTTP/2: `read_fields` for pairs, with two differences.

    What is dropped is not returned; cookies count as end-to-end fields and as special ones, too; and the third thing returned is no
    less than the bytes of all fields together, an estimate that costs nothing.

    Raises:
        MalformedError: One of them is not a field.
    """
    fields: Fields = []
    special: Special = {}
    size = LONGEST_CACHED * len(headers)
    whole: Sequence[Any] = headers  # compiled, a `Header` would be made anew for the look-up
    for header in whole:
        kind, field = _headers[header]
        if not kind:
            fields.append(field)
            continue
        if kind >= LONG:
            kind -= LONG
            size += len(field[2])
        if kind in (END_TO_END, COOKIE, TRACE):
            fields.append(field)
        if kind in special:
            special[kind].append(field)
        elif kind not in (END_TO_END, DROPPED):
            special[kind] = [field]
    return fields, special, size


def _with_control_byte(name: bytes) -> MalformedError:
    return MalformedError("malformed-request", f"control byte in the value of {name!r}")


def values(special: Special, kind: int) -> list[bytes]:
    """Return the values of all fields of one kind."""
    if kind not in special:
        return []
    found = special[kind]
    return [found[0][1]] if len(found) == 1 else [field[1] for field in found]


def _learn_name(name: bytes) -> tuple[bytes, int, bool, bytes]:
    """
    Return a valid name in lower case, its kind, whether its lines are worth caching, and how a
    line of it begins in HTTP/1.1 when it came in HTTP/2.
    """
    lower = name.lower()
    kind = TRACE if lower in TRACE_FIELDS else END_TO_END
    kind = KINDS.get(lower, MESH if is_mesh_field(lower) else kind)
    # CGI-style servers fold `_` into `-`: there `content_length` would be a second length.
    if b"_" in lower and (kind == MESH or lower.replace(b"_", b"-") in KINDS):
        raise MalformedError("malformed-request", f"{name[:64]!r} poses as another field")
    cacheable = not (kind == MESH or lower in _NEVER_CACHED or _never_cached_part(lower))
    # Of all that one proxy says to the next, these are in every request, and few are enough for most.
    cacheable = cacheable or lower in (b"x-mesh-deadline-ms", b"x-mesh-via")
    known = (lower, kind, cacheable, (_SPELLED.get(lower) or lower.title()) + b": ")
    if len(name) <= LONGEST_CACHED:
        if len(_names) >= _MOST_CACHED:
            _names.clear()
        _names[name] = known
    return known


def _why_no_name(line: bytes, name: bytes, colon: bytes) -> str:
    if line[:1] in (b" ", b"\t"):
        # RFC 9112 section 5.2: obs-fold may be refused, and must not be relayed as it is.
        return "a field line begins with white space (obs-fold)"
    if not colon:
        return "a field line without a colon"
    if name.rstrip(b" \t") != name:
        # RFC 9112 section 5.1: MUST be rejected with 400.
        return "white space between field name and colon"
    return f"field name {name[:64]!r} is not a token"


def is_protected(name: bytes) -> bool:
    """
    Say whether the field `name` decides where a message goes, who sent it or how it is read.

    Such a field can neither be taken away by naming it in Connection (RFC 9110 section 7.6.1 is
    about fields of one connection; naming others is an old way to strip what a proxy added), nor
    be added by a trailer section, which arrives when all has been decided (section 6.5.1).
    """
    return (
        name in _PROTECTED
        or name in KINDS
        or name.startswith(_PROTECTED_PREFIXES)
        or is_mesh_field(name)
    )


class _Protected(dict[bytes, bool]):
    """What `is_protected` has said of names in trailers, of which there are few."""

    def __missing__(self, name: bytes) -> bool:
        protected = is_protected(name)
        if len(name) <= LONGEST_CACHED:
            if len(self) >= _MOST_CACHED:
                self.clear()
            self[name] = protected
        return protected


_protected: Final = _Protected()


def read_trailers(lines: list[bytes]) -> Fields | None:
    """
    Read a trailer section; return what may travel on, or None when nothing is left.

    Raises:
        MalformedError: A line is not a field line.
    """
    fields, _ = read_fields(lines)
    return trailers_of(fields)


def trailers_of(fields: Fields) -> Fields | None:
    """Return those fields of a trailer section that may travel on, or None when there are none."""
    return [field for field in fields if not _protected[field[0]]] or None


def has_bare_line_end(data: bytes, start: int, end: int, *, complete: bool) -> bool:
    """
    Say whether a CR or LF in ``data[start:end]`` stands alone.

    RFC 9112 section 2.2 lets a recipient take a bare LF for a line end; two hops that disagree
    about that see two different messages.  Of an incomplete part the last byte may be a CR whose
    LF is still to come.  Counting is five times as fast as a regular expression here.
    """
    pairs = data.count(b"\r\n", start, end)
    returns = data.count(b"\r", start, end)
    if not complete and end > start and data[end - 1] == 13:
        returns -= 1
    return data.count(b"\n", start, end) != pairs or returns != pairs
