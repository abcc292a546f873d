r"""
The readings of a path: what the servers behind us may take it for.

A path can be spelled in many ways, and what two spellings mean to a server only that server knows:
``/admin``, ``//admin``, ``/x/../admin``, ``/%61dmin``, ``/admin;v=1``, ``/x%2f..%2fadmin`` and
``\admin`` are one page to some and several to others.  A proxy that compares one spelling is passed
by with another (CVE-2019-9901, CVE-2021-29492, CVE-2021-31920, CVE-2026-73553).  Choosing one reading
for all servers only moves the hole, and rewriting paths breaks signatures over them.

So we choose none.  A rule that *denies* applies when **any** reading matches; one that *allows*
applies only when **all** do.  Whatever the server makes of the path, it is one that was judged.

Servers differ in what they do, and in what they leave: one decodes and does not look at dots (WSGI:
``/%61dmin/../x`` is below ``/admin/`` there), another removes dots and leaves ``//`` (browsers' rule, in
Node.js: ``/x/../admin//../y`` likewise).  So each step below is taken or not, one after the other:

1) drop ``;parameters``;
2) remove dot segments (RFC 3986 section 5.2.4), the escaped ones too or not;
3) decode: escapes of unreserved characters (section 6.2.2), of separators too, all of them once, or
   again and again; then take overlong UTF-8 for what it hides;
4) end at what is a NUL, `?` or `#` by now;
5) drop parameters that were escaped;
6) take a backslash for a slash;
7) merge runs of slashes, remove dot segments, or both, in either order.

Nearly every path has nothing of all this, and one reading.  One of which there are too many is made to
have them, and judged in none.
"""

import re
from collections.abc import Callable, Iterable
from typing import Final
from urllib.parse import unquote_to_bytes

_PLAIN: Final = b"/abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_.~!$&'*+(),=:@"
_UNRESERVED: Final = re.compile(
    rb"%(2[DdEe]|3[0-9]|4[1-9A-Fa-f]|5[0-9AaFf]|6[1-9A-Fa-f]|7[0-9AaEe])"
)
_SLASHES: Final = re.compile(rb"//+")
_PARAMETERS: Final = re.compile(rb";[^/]*")
_SEPARATOR: Final = re.compile(rb"%2[Ff]|%5[Cc]")
_OVERLONG: Final = re.compile(
    rb"(?:\xf0\x80[\x80\x81]|\xe0[\x80\x81]|[\xc0\xc1])[\x80-\xbf]"
)  # of ASCII
_ENDS: Final = (re.compile(rb"\0"), re.compile(rb"[?#]"), re.compile(rb"[\0?#]"))
_MOST_DECODINGS: Final = 4
_MOST_BYTES: Final = 128 * 1024
"""Of all readings together: what nobody needs, and what costs less than a few milliseconds."""

_Step = Callable[[bytes], Iterable[bytes]]


def readings(target: bytes) -> tuple[bytes, ...] | None:
    """
    Return the paths that `target` may mean to a server, without the query; each once.

    None if there are more than anybody has a use for.

    Args:
        target: Path and query in origin form.
    """
    path = target.partition(b"?")[0]
    # `in`, of bytes, makes an exception and drops it: `find` is twice as fast.
    if not path.strip(_PLAIN) and path.find(b"//") < 0 and path.find(b"/.") < 0:
        return (path,)
    found = {path: None}  # in order, each once
    for step in _STEPS if b"%" in path else _STEPS_WITHOUT_ESCAPES:
        for before in tuple(found):
            for after in step(before):
                found[after] = None
        if len(found) * len(path) > _MOST_BYTES:
            return None
    return tuple(found)


def _parameters_dropped(path: bytes) -> Iterable[bytes]:
    if b";" in path:
        yield _PARAMETERS.sub(b"", path)


def _dots_removed(path: bytes) -> Iterable[bytes]:
    if b"/." in path:
        yield _without_dots(path)
    plain = _UNRESERVED.sub(_unescaped, path)
    if plain != path and b"/." in plain:
        yield _without_dots(plain)


def _decoded(path: bytes) -> Iterable[bytes]:
    plain = _UNRESERVED.sub(_unescaped, path)
    yield plain
    if b"%" not in plain:
        return
    yield _SEPARATOR.sub(_unescaped, plain)
    once = every = unquote_to_bytes(path)
    yield once
    for _ in range(_MOST_DECODINGS - 1):
        if b"%" not in every:
            break
        every = unquote_to_bytes(every)
    yield every


def _overlong_taken(path: bytes) -> Iterable[bytes]:
    if not path.isascii():
        yield _OVERLONG.sub(_hidden, path)


def _ended(path: bytes) -> Iterable[bytes]:
    for end in _ENDS:
        yield end.split(path, maxsplit=1)[0]


def _backslashes_turned(path: bytes) -> Iterable[bytes]:
    if b"\\" in path:
        yield path.replace(b"\\", b"/")


def _normalized(path: bytes) -> Iterable[bytes]:
    if b"//" in path:
        merged = _SLASHES.sub(b"/", path)
        yield merged
        if b"/." in path:
            yield _without_dots(merged)
            without = _without_dots(path)
            yield without
            yield _SLASHES.sub(b"/", without)
    elif b"/." in path:
        yield _without_dots(path)


_STEPS: Final[tuple[_Step, ...]] = (
    _parameters_dropped,
    _dots_removed,
    _decoded,
    _overlong_taken,
    _ended,
    _parameters_dropped,
    _backslashes_turned,
    _normalized,
)
_STEPS_WITHOUT_ESCAPES: Final = (_parameters_dropped, _backslashes_turned, _normalized)


def _unescaped(escape: "re.Match[bytes]") -> bytes:
    return unquote_to_bytes(escape.group())


def _hidden(overlong: "re.Match[bytes]") -> bytes:
    *_, high, low = overlong.group()
    return bytes([(high & 1) << 6 | low & 0x3F])


def _without_dots(path: bytes) -> bytes:
    """Remove dot segments (RFC 3986 section 5.2.4)."""
    kept: list[bytes] = []
    segments = path.split(b"/")[1:]
    for segment in segments:
        if segment == b"..":
            if kept:
                kept.pop()
        elif segment != b".":
            kept.append(segment)
    if segments[-1] in (b".", b".."):
        kept.append(b"")
    return b"/" + b"/".join(kept)
