"""
A budget: how much of something that costs us and serves nobody a peer may do.

An HTTP/2 connection is free to carry frames that move no request along (PING, SETTINGS,
WINDOW_UPDATE, empty DATA), and streams that end before their answer.  A few are normal, floods of
them have taken servers down (CVE-2019-9512 and its siblings, CVE-2023-44487 "rapid reset",
CVE-2025-8671 "MadeYouReset").  Each spends from a budget, which refills with time: a token bucket.
Whoever overspends is told to calm down and disconnected.

Time is an argument; only spending looks at it.
"""

from typing import Final, NamedTuple


class Budget:
    """
    A token bucket.

    Attributes:
        left: What may be spent at once, as of the last look.
    """

    __slots__ = ("_burst", "_rate", "_seen", "left")

    def __init__(self, burst: float, rate: float) -> None:
        """Start full: `burst` at once, refilled by `rate` per second."""
        self._burst = burst
        self._rate = rate
        self._seen: float | None = None
        self.left = burst

    def spend(self, now: float, amount: float = 1.0) -> bool:
        """Take `amount`; say whether it was there."""
        if self._seen is not None:
            self.left = min(self._burst, self.left + (now - self._seen) * self._rate)
        self._seen = now
        self.left -= amount
        return self.left >= 0

    def earn(self, amount: float) -> None:
        """Put back: the peer did something useful."""
        self.left = min(self._burst, self.left + amount)


class Allowance(NamedTuple):
    """
    What one kind of peer may spend on a connection: (burst, per second) each.

    Attributes:
        control: Frames that move no request along.  Useful frames earn them back, so that window
            updates and the pings of gRPC's bandwidth estimation never run short.
        torn: Streams that ended before their answer was complete, whoever ended them.
    """

    control: tuple[float, float] = (1_000, 100)
    torn: tuple[float, float] = (200, 20)


STRANGER: Final = Allowance()
"""Somebody who has proved nothing."""

PEER: Final = Allowance(control=(10_000, 1_000), torn=(10_000, 1_000))
"""
Another sidecar, or the app beside us.  A wave of cancelled calls must not take down the connection
that all others share, and what a mesh peer could do with this much it can do with requests.
"""

TRUNK: Final = Allowance(control=(10_000, 1_000), torn=(100_000, 50_000))
"""
Another sidecar, opaque connections only.  Each stream that is torn is an app's connection that was
reset, which is an everyday way to end one: health checks do it, and so does a crashed server.
"""
