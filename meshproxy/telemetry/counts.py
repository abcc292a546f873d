"""
What was counted, as a message: how the counters of several workers become those of one proxy.

Lists, not dicts, because most keys are tuples and JSON knows only text.
"""

from msgspec import Struct
from msgspec.structs import replace

RequestKey = tuple[str, str, str, str, str, str]
"""direction, source, destination, version, route, protocol"""

TcpKey = tuple[str, str, str, str]
"""direction, source, destination, route"""


class RequestCounts(Struct, frozen=True, array_like=True):
    """One `metrics.RequestSeries`; without a key, that for what exceeded the cap."""

    key: RequestKey | None
    outcomes: list[tuple[int | str, str, int]]
    buckets: list[int]
    seconds: float


class TcpCounts(Struct, frozen=True, array_like=True):
    """One `metrics.TcpSeries`."""

    key: TcpKey
    opened: int
    received: int
    sent: int
    flags: dict[str, int]


class Counts(Struct, frozen=True, kw_only=True):
    """
    All counters of one process.

    Attributes:
        connections: Side, direction, opened, closed.
        tunnels: How many are open.
        counters: By the name of their attribute in `metrics.Metrics`: labels and count.
    """

    requests: list[RequestCounts] = []
    tcp: list[TcpCounts] = []
    connections: list[tuple[str, str, int, int]] = []
    tunnels: int = 0
    counters: dict[str, list[tuple[tuple[str, ...], int]]] = {}

    def of_the_dead(self) -> "Counts":
        """Return what remains of a process that has died: its connections and tunnels are closed."""
        closed = [
            (side, direction, opened, opened) for side, direction, opened, _ in self.connections
        ]
        ended = [replace(series, opened=sum(series.flags.values())) for series in self.tcp]
        return Counts(requests=self.requests, tcp=ended, connections=closed, counters=self.counters)
