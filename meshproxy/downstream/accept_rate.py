"""
Accept rate: how many connections a listener takes in a second, where somebody has set a limit.

A token bucket of one second's worth (`AcceptRate.take`): who finds it empty is reset as soon as it has
been accepted, before a byte of it is read.  Refused in the kernel's queue instead, it would wait there
until it gave up, and keep the place of somebody else.

Off by default, as with its precedents (HAProxy `maxconnrate`, nginx has none, Envoy's local rate limit
filter for connections): what a new connection costs differs a hundredfold between plaintext and
mutual TLS, and what a flood of handshakes would do to others is bounded without it (`handshakes.py`).
"""


class AcceptRate:
    """Of one listener; time is an argument."""

    __slots__ = ("_burst", "_interval", "_seen", "_tokens")

    def __init__(self, rate: float) -> None:
        """
        Args:
            rate: Connections in a second; 0 for any number.
        """
        self._interval = 1 / rate if rate else 0.0
        self._burst = self._tokens = max(rate, 1.0)
        self._seen = 0.0

    def take(self, now: float) -> bool:
        """Say whether one more connection may come."""
        if not self._interval:
            return True
        passed, self._seen = now - self._seen, now
        self._tokens = min(self._burst, self._tokens + max(passed, 0.0) / self._interval)
        if self._tokens < 1:
            return False
        self._tokens -= 1
        return True
