"""
Slow start: who is new takes only part of what it is offered, and more with each second.

A server that has just started has cold caches, no connections of its own, code that is not
compiled yet: its full share at once makes it slow or kills it.  Linear from a tenth to all of it
within the window, as Envoy does by default.

An endpoint of which only a part shall be used is picked like the others, and then refused with the
probability that is missing; another one is picked instead.  That works with every algorithm and
costs nothing where nobody is new: then this layer is left out.  Where *all* are new there is
nobody to spare them, so shares count relative to the one that has been there longest.

For consistent hashing the probability comes from the key, not from chance: a key that an endpoint
has taken on stays with it as its share grows.

Called from: `Cluster.pick`.   Configured by: `LoadBalancingSpec.slow_start`.
"""

from collections.abc import Callable, Collection, Sequence
from typing import Final, Generic

from .consistent_hashing import KEYS, remixed
from .endpoint import Balancer, E

LEAST: Final = 0.1
"""Of its share, an endpoint gets at least that."""

_TRIES: Final = 8


class SlowStart(Generic[E]):
    """See `endpoint.Balancer`."""

    __slots__ = ("_inner", "_now", "_oldest", "_random", "_window")

    def __init__(
        self,
        inner: Balancer[E],
        endpoints: Sequence[E],
        window: float,
        random: Callable[[], float],
        now: Callable[[], float],
    ) -> None:
        """`window` is in seconds."""
        self._inner = inner
        self._window = window
        self._random = random
        self._now = now
        self._oldest = min(endpoint.since for endpoint in endpoints)

    def pick(self, avoid: Collection[E] | None, key: int | None) -> E | None:
        now = self._now()
        full = self._share(self._oldest, now)
        endpoint = self._inner.pick(avoid, key)
        spared = None
        chance = key
        for _ in range(_TRIES):
            if endpoint is None:
                break
            if avoid is not None and endpoint in avoid:
                return spared or endpoint  # who has just failed is worse than who is new
            share = self._share(endpoint.since, now)
            if share >= full:
                break
            if chance is None:
                point = self._random()
            else:
                chance = remixed(chance)
                point = chance / KEYS
            if point * full < share:
                break
            spared = endpoint
            endpoint = self._inner.pick((*(avoid or ()), spared), key)
        return endpoint

    def _share(self, since: float, now: float) -> float:
        return min(1.0, max(LEAST, (now - since) / self._window))
