"""
From a spec to what picks: which layers a cluster needs with the endpoints that it has now.

Made anew whenever endpoints, weights or who may be called change; that costs a pass over the
endpoints.  Only the tables of consistent hashing cost more: they are kept as long as endpoints and
weights stay the same, whoever is ejected in between.
"""

from collections.abc import Callable, Sequence
from typing import Generic

from meshproxy.contract.policies import LoadBalancingSpec

from .consistent_hashing import ConsistentHashing, Table
from .endpoint import Balancer, E
from .least_request import LeastRequest
from .locality import Locality, bearable
from .maglev import Maglev
from .peak_ewma import PeakEwma
from .ring_hash import Ring
from .round_robin import RoundRobin
from .slow_start import SlowStart
from .weighted_random import WeightedRandom


class Balancing(Generic[E]):
    """
    Attributes:
        spec: What it was made from.
    """

    __slots__ = ("_now", "_random", "_tables", "spec")

    def __init__(
        self, spec: LoadBalancingSpec, random: Callable[[], float], now: Callable[[], float]
    ) -> None:
        self.spec = spec
        self._random = random
        self._now = now
        # By priority: what the table was made for, and the table.
        self._tables: dict[int, tuple[list[tuple[str, int]], Table]] = {}

    def among(self, endpoints: Sequence[E], available: Sequence[E]) -> Balancer[E]:
        """
        Return what picks.

        Args:
            endpoints: All of the cluster.
            available: Those that may be called now.
        """
        levels = self._levels(endpoints, available)
        if len(levels) < 2:
            return self._level(0, endpoints, available)
        return Locality(
            [
                (self._level(priority, every, some), _weight(some), _weight(every))
                for priority, every, some in levels
            ],
            self._random,
        )

    def bearable(self, endpoints: Sequence[E], available: Sequence[E]) -> bool:
        """
        Say whether levels that are in service can do the work of those that are not.

        A single level can leave it to no other.
        """
        levels = self._levels(endpoints, available)
        return len(levels) > 1 and bearable(
            [(_weight(some), _weight(every)) for _, every, some in levels]
        )

    def _levels(
        self, endpoints: Sequence[E], available: Sequence[E]
    ) -> list[tuple[int, list[E], list[E]]]:
        """Return for each priority, nearest first, all its endpoints and those in service."""
        priorities = sorted({e.priority for e in endpoints if e.weight})
        if len(priorities) < 2 or not self.spec.locality:
            return []
        return [
            (
                priority,
                [e for e in endpoints if e.priority == priority],
                [e for e in available if e.priority == priority],
            )
            for priority in priorities
        ]

    def warming(self, endpoints: Sequence[E]) -> bool:
        """Say whether any of the endpoints is so new that it gets less than its share."""
        window = self.spec.slow_start / 1000
        begun = self._now() - window
        return window > 0 and any(e.since > begun for e in endpoints)

    def _level(self, priority: int, endpoints: Sequence[E], available: Sequence[E]) -> Balancer[E]:
        balancer = self._algorithm(priority, endpoints, available)
        if not self.warming(available):
            return balancer
        window = self.spec.slow_start / 1000
        return SlowStart(balancer, available, window, self._random, self._now)

    def _algorithm(
        self, priority: int, endpoints: Sequence[E], available: Sequence[E]
    ) -> Balancer[E]:
        match self.spec.algorithm:
            case "peak-ewma":
                return PeakEwma(available, self._random, self._now)
            case "least-request":
                return LeastRequest(available, self._random, self._now)
            case "round-robin":
                return RoundRobin(available, self._random)
            case "random":
                return WeightedRandom(available, self._random)
            case "ring-hash" | "maglev":
                table = self._table(priority, endpoints)
                return ConsistentHashing(table, endpoints, available, self._random)

    def _table(self, priority: int, endpoints: Sequence[E]) -> Table:
        wanted = [(e.name, e.weight) for e in endpoints]
        known = self._tables.get(priority)
        if known is not None and known[0] == wanted:
            return known[1]
        kind = Ring if self.spec.algorithm == "ring-hash" else Maglev
        table: Table = kind(endpoints, self.spec.ring_size)
        self._tables[priority] = (wanted, table)
        return table


def _weight(endpoints: Sequence[E]) -> int:
    return sum(e.weight for e in endpoints)
