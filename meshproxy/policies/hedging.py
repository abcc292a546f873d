"""
Hedging: a second attempt beside a slow first one; the first answer wins.

Theory of operation
===================

Most requests are fast and a few are slow for reasons of the one endpoint they met: a pause of its
garbage collector, a full queue, a cold cache.  Asking another endpoint after a while turns the
worst of the waiting into "a while plus one ordinary answer" (Dean and Barroso, "The Tail at Scale",
2013, where 2 % more requests took the 99.9th percentile from 1,800 to 74 ms).

The while is a *percentile* of the cluster's recent latencies, for it must be neither so short that
every request is made twice nor so long that it helps nobody: with the 95th, one request in twenty
is made twice, whatever the service.  As long as too little is known, nothing is hedged.

**The estimate** has to be cheap, not exact.  Latencies are counted in buckets whose bounds grow by
a quarter of a power of two (19 %); when there are `MEMORY` of them all counts are halved, so old ones
weigh less and less, and the service may change its habits.  A percentile is the upper bound of the
bucket in which it lies, so never too early, and is worked out anew after `STRIDE` more latencies.

What is recorded is the time to the first answer, also where the second attempt gave it: then the
first took longer than that, by how much nobody knows.  That keeps the estimate stable: a request
above the percentile stays above it, hedged or not.

A hedge is a retry that does not wait for the failure, so everything that forbids a retry of what may
have been processed forbids it (`retry.py`), and it comes out of the same budget.

Called from: `Exchange.begin_attempt`, `Exchange.on_response_head`.
"""

from math import log2
from typing import Final

from meshproxy.contract.policies import HedgeSpec

LEAST_KNOWN: Final = 100
"""Latencies without which nothing is said: of fewer, a 95th percentile is chance."""
MEMORY: Final = 2_000
STRIDE: Final = 50

_PER_OCTAVE: Final = 4
_FASTEST: Final = -14  # octave of the first bucket: 61 µs
_BUCKETS: Final = 24 * _PER_OCTAVE  # the last is for all above 17 minutes


class Latencies:
    """The recent latencies of a cluster."""

    __slots__ = ("_buckets", "_count", "_known", "_until")

    def __init__(self) -> None:
        self._buckets: list[int] = []  # made when first needed: few clusters are hedged
        self._count = 0
        self._until = 0  # this many more before percentiles change
        self._known: dict[float, float | None] = {}

    def __repr__(self) -> str:
        return f"<Latencies {self._count}>"

    def record(self, seconds: float) -> None:
        """Remember that a request has waited so long for its answer."""
        buckets = self._buckets
        if not buckets:
            buckets = self._buckets = [0] * _BUCKETS
        place = int((log2(max(seconds, 1e-9)) - _FASTEST) * _PER_OCTAVE) + 1
        buckets[min(max(place, 0), _BUCKETS - 1)] += 1
        self._count += 1
        self._until -= 1
        if self._count >= MEMORY:
            self._buckets = [count // 2 for count in buckets]
            self._count = sum(self._buckets)

    def percentile(self, percent: float) -> float | None:
        """Return the seconds in which so many of the requests are answered; None if too little is known."""
        if self._until <= 0:
            self._known.clear()
            self._until = STRIDE
        if percent not in self._known:
            self._known[percent] = self._work_out(percent)
        return self._known[percent]

    def delay(self, spec: HedgeSpec) -> float | None:
        """Return the seconds after which a second attempt begins; None where it never does."""
        slow = self.percentile(spec.percentile)
        return None if slow is None else max(slow, spec.min_delay / 1000)

    def _work_out(self, percent: float) -> float | None:
        if self._count < LEAST_KNOWN:
            return None
        above = self._count * (100 - percent) / 100  # 1 - 0.9 is less than a tenth
        for place in range(_BUCKETS - 1, 0, -1):
            above -= self._buckets[place]
            if above < 0:
                return float(2.0 ** (place / _PER_OCTAVE + _FASTEST))
        return float(2.0**_FASTEST)
