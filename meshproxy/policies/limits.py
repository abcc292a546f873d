"""
How much may go on at once: connections, waiting requests, requests, retries.

Theory of operation.  A dependency that slows down does not refuse work, it keeps it: at the same
rate of arrival, twice the latency is twice the requests under way (Little's law), and each of them
holds memory, a connection and a caller.  A ceiling on what is under way turns that slow collapse
into an immediate answer for the requests above it, which their callers can act upon, and leaves the
dependency with an amount of work that it can finish.

A limit is two integers.  Who begins something compares and counts up, who ends it counts down;
nothing is reserved and nothing expires.  All runs in one thread, so what is compared cannot change
before it is counted.

The names and defaults are those of Envoy's circuit breaker thresholds.
"""

from typing import Final

UNLIMITED: Final = 1 << 62


class Limit:
    """
    One ceiling, and how much is under it.

    Attributes:
        ceiling: The most there may be; `UNLIMITED` for no limit.
        count: How much there is now.
        overflows: How often something was turned away for it.
    """

    __slots__ = ("ceiling", "count", "overflows")

    def __init__(self, ceiling: int | None = None) -> None:
        self.ceiling = UNLIMITED if ceiling is None else ceiling
        self.count = 0
        self.overflows = 0

    def __repr__(self) -> str:
        ceiling = "no limit" if self.ceiling == UNLIMITED else self.ceiling
        return f"<Limit {self.count} of {ceiling}, overflows {self.overflows}>"

    @property
    def full(self) -> bool:
        """Nothing more may begin."""
        return self.count >= self.ceiling

    def set(self, ceiling: int | None) -> None:
        """Obey a new ceiling; what is above it may finish."""
        self.ceiling = UNLIMITED if ceiling is None else ceiling
