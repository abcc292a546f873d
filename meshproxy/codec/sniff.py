"""
What does a client speak?  The first bytes of a connection decide, where nobody said it before.

The verdict must be right however the bytes are cut: a verdict on a prefix is never taken back,
and as long as two verdicts are possible the answer is None.

**When in doubt, HTTP.**  An HTTP request taken for an opaque stream would be relayed with no
policy applied, and some server would read it leniently all the same.  An opaque stream taken for
HTTP is refused, visibly, and `appProtocol` on the Service's port settles it.  So a known method
and a space suffice, whatever comes behind: the codec will say what is wrong with the rest.  And
whatever some server takes for a space is one here, before the method as well as behind it (RFC 9112
section 3 lets servers "parse on whitespace-delimited word boundaries"; Python's `http.server` does).
"""

import enum
from typing import Final


class Protocol(enum.Enum):
    TLS = "tls"
    HTTP2 = "http2"
    HTTP1 = "http1"
    OPAQUE = "opaque"


_TLS: Final = b"\x16"
"""Of a handshake record."""
# RFC 9113 section 3.4.
_PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_METHODS: Final = (
    b"GET ", b"HEAD ", b"POST ", b"PUT ", b"DELETE ", b"CONNECT ", b"OPTIONS ", b"TRACE ", b"PATCH ",
)  # fmt: skip
_TOKEN: Final = frozenset(
    b"!#$%&'*+-.^_`|~0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
)
_LONGEST_METHOD: Final = 1024
"""A word beyond that is taken for one all the same: some servers serve any method, of any length."""
_SPACES: Final = bytes.maketrans(
    b"\t\v\f\r\x1c\x1d\x1e\x1f\x85\xa0", b" " * 10
)  # but not LF, which ends the line
_LONGEST_TARGET: Final = 16384


def sniff(data: bytes) -> Protocol | None:
    """Return what `data` begins, or None when more bytes are needed to say."""
    if not data:
        return None
    if data.startswith(_TLS):
        return _sniff_tls(data)
    if data.startswith(_PREFACE):
        return Protocol.HTTP2
    if _PREFACE.startswith(data):
        return None
    # A server may skip empty lines before a request (RFC 9112 section 2.2).
    return _sniff_http1(data.translate(_SPACES).lstrip(b" \n"))


def may_become_http(data: bytes) -> bool:
    """Say whether this, of which `sniff` cannot tell yet, may be the beginning of a request."""
    return data[:1] != _TLS and sniff(data) is None


def _sniff_tls(data: bytes) -> Protocol | None:
    """A handshake record (22) of SSL 3.0 to TLS 1.3 that opens with a ClientHello (1)."""
    for index, allowed in ((1, (3,)), (2, (0, 1, 2, 3, 4)), (5, (1,))):
        if len(data) <= index:
            return None
        if data[index] not in allowed:
            return Protocol.OPAQUE
    return Protocol.TLS


def _sniff_http1(data: bytes) -> Protocol | None:
    """``method SP target SP "HTTP/"``, as much of it as is there."""
    if data.startswith(_METHODS):
        return Protocol.HTTP1
    method, space, rest = data.partition(b" ")
    if not _TOKEN.issuperset(method[:_LONGEST_METHOD]):
        return Protocol.OPAQUE
    if len(method) > _LONGEST_METHOD:
        return Protocol.HTTP1
    if not space:
        return None
    target, space, version = rest.lstrip(b" ").partition(b" ")
    beginning = target[:_LONGEST_TARGET]
    if b"\n" in beginning:
        return Protocol.OPAQUE
    if len(target) > _LONGEST_TARGET:
        return Protocol.HTTP1
    version = version.lstrip(b" ")
    if version.startswith(b"HTTP/"):
        return Protocol.HTTP1
    return None if b"HTTP/".startswith(version) else Protocol.OPAQUE


# The other direction ------------------------------------------------------------------------------


def sniff_greeting(data: bytes) -> Protocol | None:
    """
    Return what a server speaks that has spoken first, or None when more bytes are needed to say.

    HTTP servers do that, too: some send HTTP/2 SETTINGS before they have read the client's preface,
    and some tell a silent connection that it has timed out (408).
    """
    if _STATUS_LINE.startswith(data[: len(_STATUS_LINE)]):
        return Protocol.HTTP1 if len(data) >= len(_STATUS_LINE) else None
    if data[0] == 0 and _SETTINGS.startswith(data[3:9]):
        if len(data) < 9:
            return None
        if data[:2] == b"\0\0" and data[2] % 6 == 0:  # RFC 9113 section 6.5
            return Protocol.HTTP2
    return Protocol.OPAQUE


_STATUS_LINE: Final = b"HTTP/"
_SETTINGS: Final = b"\x04\0\0\0\0\0"  # a frame's type, flags and stream, after three of length
