"""
What configuration may write into a head.

The proxy checks it when it compiles a snapshot; the control plane asks the same functions when it
validates what people wrote, so that nothing which passes there is refused here.  Each returns
what is wrong, as the rest of a sentence about the value, or None.
"""

import re
from typing import Final

from meshproxy.message import HOP_BY_HOP, is_mesh_field

_TOKEN: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")  # RFC 9110 section 5.6.2
_VALUE: Final = re.compile(r"[^\x00-\x08\x0a-\x1f\x7f]*")  # RFC 9110 section 5.5
_PATH: Final = re.compile(r"(/[!-\"$->@-~]*)?")  # visible ASCII without '#' and '?'
_HOSTNAME: Final = re.compile(r"[0-9A-Za-z._-]+|\[[0-9A-Fa-f:.]+\]")
_OURS: Final = HOP_BY_HOP | {b"content-length", b"trailer"}
"""Fields that the proxy itself writes, from what it knows about the message and the connection."""


def wrong_name(name: str) -> str | None:
    """Judge the name of a header that is set or added."""
    if _TOKEN.fullmatch(name) is None:
        return f"{name!r} is not a header name"
    folded = name.lower().encode()
    if folded == b"host":
        return "Host is changed by a rewrite's hostname only"
    if folded in _OURS:
        return f"{name} is the proxy's own to write"
    if is_mesh_field(folded):
        return f"{name} says who called; only the mesh may"
    return None


def wrong_value(value: str) -> str | None:
    """Judge the value of a header that is set or added."""
    if _VALUE.fullmatch(value) is None or value != value.strip(" \t"):
        return "expected no control characters and no space at either end"
    return None


def wrong_path(path: str) -> str | None:
    """Judge what a path, or the prefix of one, is replaced with; empty is the root."""
    if _PATH.fullmatch(path) is None:
        return f"expected an absolute path of visible ASCII without '?' and '#', got {path!r}"
    return None


def wrong_hostname(name: str) -> str | None:
    """Judge the host that a request or redirect is sent to."""
    if _HOSTNAME.fullmatch(name) is None:
        return f"expected a host name, got {name!r}"
    return None
