r"""
The readings of a path: what the servers behind us may take it for.

A path can be spelled in many ways, and what two spellings mean to a server only that server knows:
``/admin``, ``//admin``, ``/x/../admin``, ``/%61dmin``, ``/admin;v=1``, ``/x%2f..%2fadmin`` and
``\admin`` are one page to some and several to others.  A proxy that compares one spelling is passed
by with another (CVE-2019-9901, CVE-2021-29492, CVE-2021-31920, CVE-2026-73553).  Choosing one reading
for all servers only moves the hole, and rewriting paths breaks signatures over them.

So we choose none.  A rule that *denies* applies when **any** reading matches; one that *allows*
applies only when **all** do.  Whatever the server makes of the path, it is one that was judged.

The readings are the path as sent, and the normal form (RFC 3986 section 6.2.2: escapes of unreserved
characters decoded, dot segments removed; runs of slashes merged) of what is left under each
combination of what servers do beyond that: decode ``%2F`` and ``%5C``, take a backslash for a slash, drop
``;parameters``, decode once more.  Nearly every path has nothing of all this, and one reading.
"""

import re
from itertools import product
from typing import Final
from urllib.parse import unquote_to_bytes

_AMBIGUOUS: Final = re.compile(rb"[%\\;]|//|/\.")
_UNRESERVED: Final = re.compile(
    rb"%(2[DdEe]|3[0-9]|4[1-9A-Fa-f]|5[0-9AaFf]|6[1-9A-Fa-f]|7[0-9AaEe])"
)
_SLASHES: Final = re.compile(rb"//+")
_PARAMETERS: Final = re.compile(rb";[^/]*")
_SEPARATOR: Final = re.compile(rb"%2[Ff]|%5[Cc]")
_MOST_DECODINGS: Final = 4
_PARAMETERS_GO: Final = (None, "before", "after")
"""They are dropped never, before escapes are decoded, or after."""


def readings(target: bytes) -> tuple[bytes, ...]:
    """
    Return the paths that `target` may mean to a server, without the query; each once.

    Args:
        target: Path and query in origin form.
    """
    path = target.partition(b"?")[0]
    if _AMBIGUOUS.search(path) is None:
        return (path,)
    found = {path: None}  # in order, each once
    lower = path.lower()
    ways = product(
        (False, True) if b"%" in path else (False,),
        (False, True) if b"%2f" in lower or b"%5c" in lower else (False,),
        (False, True) if b"\\" in path or b"5c" in lower else (False,),
        _PARAMETERS_GO if b";" in path or b"3b" in lower else (None,),
    )
    for decode, separators, backslashes, parameters in ways:
        found[_read(path, decode, separators, backslashes, parameters)] = None
    return tuple(found)


def _read(
    path: bytes, decode: bool, separators: bool, backslashes: bool, parameters: str | None
) -> bytes:
    if parameters == "before":
        path = _PARAMETERS.sub(b"", path)
    path = _UNRESERVED.sub(_decoded, path)
    if separators:
        path = _SEPARATOR.sub(_decoded, path)
    if decode:
        for _ in range(_MOST_DECODINGS):
            once = unquote_to_bytes(path)
            if once == path:
                break
            path = once
    if parameters == "after":
        path = _PARAMETERS.sub(b"", path)
    if backslashes:
        path = path.replace(b"\\", b"/")
    return _without_dots(_SLASHES.sub(b"/", path))


def _decoded(escape: "re.Match[bytes]") -> bytes:
    return unquote_to_bytes(escape.group())


def _without_dots(path: bytes) -> bytes:
    """Remove dot segments (RFC 3986 section 5.2.4)."""
    if b"/." not in path:
        return path
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
