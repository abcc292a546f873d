"""
What was counted, as a message: how the counters of several workers become those of one proxy.

Lists, not dicts, because most keys are tuples and JSON knows only text.
"""

from msgspec import Struct

RequestKey = tuple[str, str, str, str, str, str]
"""direction, source, destination, version, route, protocol"""


class RequestCounts(Struct, frozen=True, array_like=True):
    """One `metrics.RequestSeries`; without a key, that for what exceeded the cap."""

    key: RequestKey | None
    outcomes: list[tuple[int | str, str, int]]
    buckets: list[int]
    seconds: float


class Counts(Struct, frozen=True, kw_only=True):
    """
    All counters of one process.

    Attributes:
        connections: Side, direction, opened, closed.
        tunnels: How many are open.
        counters: By the name of their attribute in `metrics.Metrics`: labels and count.
    """

    requests: list[RequestCounts] = []
    connections: list[tuple[str, str, int, int]] = []
    tunnels: int = 0
    counters: dict[str, list[tuple[tuple[str, ...], int]]] = {}

    def of_the_dead(self) -> "Counts":
        """Return what remains of a process that has died: its connections and tunnels are closed."""
        closed = [
            (side, direction, opened, opened) for side, direction, opened, _ in self.connections
        ]
        return Counts(requests=self.requests, connections=closed, counters=self.counters)
