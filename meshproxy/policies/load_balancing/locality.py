"""
Locality: near endpoints first, far ones as those fail.

Endpoints have priority levels, 0 being the nearest (the same zone, then the same region, then the
rest; who is near to whom the control plane has said).  A level takes all traffic as long as it can
bear it: while at least 1 / 1.4 ≈ 71 % of its weight is in service, the rest is expected to have
that much to spare (Envoy's overprovisioning factor).  Below, it takes 1.4 times the share that is
left, and what it cannot take goes to the next level in the same way.  So traffic moves over
gradually, and not all of it at the failure of the last one.

    level 0 in service   100 %   71 %   50 %   25 %    0 %
    stays                100 %  100 %   70 %   35 %    0 %

When all levels together cannot bear it, each takes its part of what there is.

Called from: `Cluster.pick`.   Configured by: `EndpointSpec.priority`, `LoadBalancingSpec.locality`.
"""

from bisect import bisect_right
from collections.abc import Callable, Collection, Sequence
from itertools import accumulate
from typing import Final, Generic

from .consistent_hashing import KEYS, remixed
from .endpoint import Balancer, E

OVERPROVISIONING: Final = 1.4


def shares(levels: Sequence[tuple[float, float]]) -> list[float]:
    """
    Return which part of all requests each level gets; zero for all when nobody is in service.

    Args:
        levels: For each, nearest first, the weight of what is in service and of all.
    """
    healths = _healths(levels)
    together = min(1.0, sum(healths))
    left = 1.0
    result = []
    for health in healths:
        share = min(left, health / together) if together else 0.0
        left -= share
        result.append(share)
    return result


def bearable(levels: Sequence[tuple[float, float]]) -> bool:
    """Say whether what is in service of all levels (see `shares`) can do the work of one that is whole."""
    return sum(_healths(levels)) >= 1.0


def _healths(levels: Sequence[tuple[float, float]]) -> list[float]:
    return [
        min(1.0, OVERPROVISIONING * available / total) if total else 0.0
        for available, total in levels
    ]


class Locality(Generic[E]):
    """See `endpoint.Balancer`."""

    __slots__ = ("_balancers", "_ends", "_last", "_random")

    def __init__(
        self,
        levels: Sequence[tuple[Balancer[E], float, float]],
        random: Callable[[], float],
    ) -> None:
        """
        Args:
            levels: For each, nearest first, its balancer, the weight of what is in service and of all.
            random: Gives points in [0, 1).
        """
        self._random = random
        self._balancers = [balancer for balancer, _, _ in levels]
        self._ends = list(accumulate(shares([(some, all_) for _, some, all_ in levels])))
        self._last = len(levels) - 1

    def pick(self, avoid: Collection[E] | None, key: int | None) -> E | None:
        balancers = self._balancers
        point = self._random() if key is None else remixed(key) / KEYS
        level = bisect_right(self._ends, point, 0, self._last)
        found = balancers[level].pick(avoid, key)
        if found is not None and (avoid is None or found not in avoid):
            return found
        # Nobody else is there: who is far is better than who has just failed.
        for other in balancers:
            instead = other.pick(avoid, key)
            if instead is not None:
                if avoid is None or instead not in avoid:
                    return instead
                found = instead
        return found
