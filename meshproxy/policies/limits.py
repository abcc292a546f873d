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

An open circuit breaker uses the same comparison: it shuts the limits, and whoever finds one shut asks.
So the way of a request through both costs one comparison while all is well.

The names and defaults are those of Envoy's circuit breaker thresholds.
"""

from typing import Final

from meshproxy.contract.policies import LimitsSpec

UNLIMITED: Final = 1 << 62


class Limit:
    """
    One ceiling, and how much is under it.

    Attributes:
        name: One of Envoy's: `connections`, `pending`, `requests`, `retries`.
        most: The most there may be; `UNLIMITED` for no limit.
        ceiling: The same, or 0 while it is `shut`: with a count of this much, ask before you begin.
        count: How much there is now.
    """

    __slots__ = ("ceiling", "count", "most", "name")

    def __init__(self, name: str, most: int | None = None) -> None:
        self.name = name
        self.count = 0
        self.most = self.ceiling = UNLIMITED if most is None else most

    def __repr__(self) -> str:
        most = "no limit" if self.most == UNLIMITED else self.most
        return f"<Limit {self.name}: {self.count} of {most}>"

    @property
    def full(self) -> bool:
        """Nothing more may begin."""
        return self.count >= self.most

    @property
    def room(self) -> int:
        """How much more may begin."""
        return max(0, self.most - self.count)

    def set(self, most: int | None) -> None:
        """Obey another number; what is above it may finish."""
        shut = self.shut
        self.most = self.ceiling = UNLIMITED if most is None else most
        self.shut = shut

    @property
    def shut(self) -> bool:
        """Whether everything has to ask before it begins, however little there is."""
        return self.ceiling != self.most

    @shut.setter
    def shut(self, shut: bool) -> None:
        self.ceiling = 0 if shut else self.most


class Limits:
    """The limits of a cluster, or of one of its endpoints."""

    __slots__ = ("connections", "pending", "requests", "retries")

    def __init__(self, spec: LimitsSpec) -> None:
        self.connections = Limit("connections", spec.connections)
        self.pending = Limit("pending", spec.pending)
        self.requests = Limit("requests", spec.requests)
        self.retries = Limit("retries", spec.retries)

    def __repr__(self) -> str:
        return f"<Limits {self.all}>"

    @property
    def all(self) -> tuple[Limit, ...]:
        return (self.connections, self.pending, self.requests, self.retries)

    def adopt(self, spec: LimitsSpec) -> None:
        """Obey another spec."""
        self.connections.set(spec.connections)
        self.pending.set(spec.pending)
        self.requests.set(spec.requests)
        self.retries.set(spec.retries)

    def statistics(self) -> dict[str, dict[str, int | None]]:
        """Return what there is and what there may be, for `/clusters`; None for no limit."""
        return {
            limit.name: {
                "now": limit.count,
                "most": None if limit.most == UNLIMITED else limit.most,
            }
            for limit in self.all
        }
