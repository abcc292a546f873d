"""
What gRPC adds to HTTP/2 (grpc/doc/PROTOCOL-HTTP2.md): a content type, a timeout, a status.

A call is an ordinary exchange with three fields of its own, so no codec knows of it.  gRPC-Web and
its text form begin with the same content type, and are the same calls in other frames: their
status travels inside the body, where a proxy does not look.
"""

import re
from typing import Final

from meshproxy.message import Field, Fields, field

CONTENT_TYPE: Final = b"application/grpc"
_LENGTH: Final = len(CONTENT_TYPE)
TIMEOUT: Final = b"grpc-timeout"
STATUS: Final = b"grpc-status"
MESSAGE: Final = b"grpc-message"

NO_STATUS: Final = "-"
"""What is counted for a call that ended without a status."""

_SECONDS: Final = {b"H": 3600.0, b"M": 60.0, b"S": 1.0, b"m": 1e-3, b"u": 1e-6, b"n": 1e-9}
_DIGITS: Final = 8
"""TimeoutValue is a "positive integer as ASCII string of at most 8 digits"."""
_MOST: Final = 10**_DIGITS - 1

_STATUSES: Final = {b"%d" % code: str(code) for code in range(17)}
_NOT_PLAIN: Final = re.compile(rb"[^ -$&-~]")


def is_grpc(method: bytes, fields: Fields) -> bool:
    """Say whether a request is a gRPC call: "Method → POST", "Content-Type → application/grpc…"."""
    if method != b"POST":
        return False
    for one in fields:
        if one[0] == b"content-type":
            return one[1][:_LENGTH] == CONTENT_TYPE
    return False


# How long the caller waits ------------------------------------------------------------------------


def timeout_of(fields: Fields) -> float | None:
    """
    Return the seconds that the caller allows; None where it says nothing, or nothing valid.

    What is not valid travels on as it is: to refuse it is the server's business, to guess nobody's.
    """
    found: bytes | None = None
    for one in fields:
        if one[0] == TIMEOUT:
            if found is not None:
                return None
            found = one[1]
    if found is None:
        return None
    digits, unit = found[:-1], found[-1:]
    if not digits.isdigit() or len(digits) > _DIGITS or unit not in _SECONDS:  # ASCII: it is bytes
        return None
    return int(digits) * _SECONDS[unit]


def timeout_field(seconds: float) -> Field:
    """Return the field that allows so much: never more, in the finest unit that has room for it."""
    for unit, size in ((b"u", 1e-6), (b"m", 1e-3), (b"S", 1.0), (b"M", 60.0), (b"H", 3600.0)):
        value = int(seconds / size)
        if value <= _MOST:
            return field(TIMEOUT, b"%d%s" % (max(value, 1), unit))
    return field(TIMEOUT, b"%dH" % _MOST)


# How it ended -------------------------------------------------------------------------------------


def status_of(fields: Fields) -> str | None:
    """
    Return the status in trailers, or in the head of an answer without a body ("Trailers-Only").

    None without one.  A number that gRPC does not have is ``other``: it comes from the app, and
    what is counted must be of a bounded kind.
    """
    for one in fields:
        if one[0] == STATUS:
            return _STATUSES.get(one[1], "other")
    return None


def status_fields(status: int, message: str) -> Fields:
    """Return the trailers that end a call; "Status-Message → grpc-message" is percent-encoded."""
    encoded = _NOT_PLAIN.sub(lambda match: b"%%%02X" % match[0][0], message.encode())
    return [field(STATUS, b"%d" % status), field(MESSAGE, encoded)]
