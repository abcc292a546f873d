"""
What was counted, as a message: how the counters of several workers become those of one proxy.

Lists, not dicts, because most keys are tuples and JSON knows only text.
"""

from msgspec import Struct

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

    def of_the_dead(self) -> "TcpCounts":
        """Return the same with its open connections ended: their process closed them."""
        left = self.opened - sum(self.flags.values())
        if not left:
            return self
        flags = self.flags | {DIED: self.flags.get(DIED, 0) + left}
        return TcpCounts(self.key, self.opened, self.received, self.sent, flags)


DIED = "LR"
"""Envoy's flag of what the proxy itself has reset."""


class Counts(Struct, frozen=True, kw_only=True):
    """
    All counters of one process.

    Attributes:
        tcp: Opaque connections.
        connections: Side, direction, opened, closed.
        tunnels: How many are open.
        gauges: Name, labels, value.
        loop_lag: Buckets and sum of `loop_lag.LoopLag`.
        counters: By their name in `metrics.Metrics`: labels and count.
    """

    requests: list[RequestCounts] = []
    tcp: list[TcpCounts] = []
    connections: list[tuple[str, str, int, int]] = []
    tunnels: int = 0
    gauges: list[tuple[str, tuple[str, ...], int]] = []
    loop_lag: tuple[list[int], float] | None = None
    counters: dict[str, list[tuple[tuple[str, ...], int]]] = {}

    def of_the_dead(self) -> "Counts":
        """Return what remains of a process that has died: its connections and tunnels are closed."""
        closed = [
            (side, direction, opened, opened) for side, direction, opened, _ in self.connections
        ]
        plaintext = self.counters.get("plaintext", [])
        accepted = [(labels[:2], count) for labels, count in plaintext if "accepted" in labels]
        return Counts(
            requests=self.requests,
            tcp=[counted.of_the_dead() for counted in self.tcp],
            connections=closed,
            loop_lag=self.loop_lag,
            counters=self.counters | {"plaintext_closed": accepted},
        )
