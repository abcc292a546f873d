"""
Retry: ask again when the request provably was not processed.

Theory of operation
===================

A retry hides one bad connection or endpoint from the client, but a request that was executed
and is sent again may charge a customer twice.  So, by default, only these are repeated:

1) The request never left: no connection could be made, or the endpoint has refused the stream
   unread (HTTP/2: RFC 9113 section 8.7).  Any method.
2) It left on a *reused* connection that was closed before a byte of the response.  The server
   most likely closed an idle connection while the request was on its way (RFC 9112 section
   9.3.1), but that cannot be proved; so only idempotent methods (RFC 9110 section 9.2.2).

Nothing is repeated that failed here for want of room or of a certificate (`overflow`,
`not-ready`): asking again would only add to the crowd.  Nor is a head that is too large for the
endpoint: it will not shrink; nor is an Upgrade that the endpoint cannot carry.

At most `attempts` tries are made, the first included, and only while the request's body is
still held in full.  The next try prefers another endpoint.  Case 2 is repeated at once; case 1
waits a random time up to 25 ms, doubled with each try (full jitter), so that many proxies do not
come back together.

Called from: `Exchange.on_upstream_failed`, `Exchange.on_response_reset`.
"""

from collections.abc import Callable

IDEMPOTENT = frozenset({b"GET", b"HEAD", b"OPTIONS", b"TRACE", b"PUT", b"DELETE"})
HOPELESS = frozenset(
    {"overflow", "circuit-open", "not-ready", "fields-too-large", "upgrade-not-supported"}
)
ATTEMPTS = 3
BACKOFF = 0.025
"""Seconds; upper bound of the first wait."""


class Retry:
    """Decides whether another attempt may be made, and when."""

    __slots__ = ("attempts",)

    def __init__(self, attempts: int = ATTEMPTS) -> None:
        self.attempts = attempts

    def wants(self, method: bytes, made: int, code: str, *, sent: bool, reused: bool) -> bool:
        """
        Say whether to try again.

        Args:
            method: Of the request.
            code: Why the last attempt failed, as in `refusal.py`.
            made: Attempts so far.
            sent: A byte of the request may have reached an endpoint in the last attempt.
            reused: The last attempt used a connection that had served before.
        """
        if made >= self.attempts or code in HOPELESS:
            return False
        return not sent or (reused and method in IDEMPOTENT)

    def wait(self, made: int, *, sent: bool, random: Callable[[], float]) -> float:
        """Return the seconds to wait before the next attempt."""
        return 0.0 if sent else random() * BACKOFF * (1 << (made - 1))
