"""
The retry budget of a cluster: how much of its load may be retries.

Theory of operation
===================

With retries, a service that fails gets more requests than one that works: with three tries each,
three times as many, at the worst moment.  A limit per request cannot prevent that; a limit per
cluster can.  This one is the Gateway API's `retryConstraint` (GEP-3388), on by default and for all
retries, those that provably were not processed included (and for hedges):

    a retry may be made  while retries are less than `percent` of the requests, in `interval`
                     or  while there were less than `min_count` retries, in `min_interval`

The larger of the two counts, not their sum, as in Envoy.  The second is for clusters with few
requests, of which a share would be none.

**Any interval.**  The windows slide.  The second is exact: the times of the last `min_count` retries
are kept.  For the first, time is cut in slots, a tenth of `interval` each.  The slots that lie in
the window wholly or in part number eleven; requests are counted in the last ten of them, retries
in all eleven.  So requests are never counted too high and retries never too low, and the promise
holds for every interval, wherever it begins.

**Cost.**  Each request adds 1 to `requests`; only where `turn` has passed, once per slot, is there
more to do (`roll`).  Whoever begins a request does so itself: a method would cost as much as all
the rest.

When the budget is spent the client gets the last answer, or the refusal: see decision 0016.
"""

from collections import deque
from typing import Final

from meshproxy.contract.policies import RetryBudgetSpec

_SLOTS: Final = 10
_DEFAULT: Final = RetryBudgetSpec()


class RetryBudget:
    """
    Counts requests and retries.

    Attributes:
        requests: Of the current slot; who begins one adds 1, after `roll` where `turn` is over.
        turn: When the current slot ends.
    """

    __slots__ = (
        "_floor", "_interval", "_length", "_min_interval", "_percent", "_requests", "_retries",
        "_times", "requests", "turn",
    )  # fmt: skip

    def __init__(self, spec: RetryBudgetSpec = _DEFAULT) -> None:
        self.requests = 0
        self.turn = 0.0
        self._length = 0.0
        # Of the slots before the current one, newest first.
        self._requests: deque[int] = deque([0] * (_SLOTS - 1), _SLOTS - 1)
        self._retries: deque[int] = deque([0] * (_SLOTS + 1), _SLOTS + 1)  # the current one, too
        self._times: deque[float] = deque()
        self.adopt(spec)

    def __repr__(self) -> str:
        return f"<RetryBudget {self._percent} %, at least {self._floor}>"

    def adopt(self, spec: RetryBudgetSpec) -> None:
        """Obey a new spec; what was counted still counts where the interval is the same."""
        length = spec.interval / 1000 / _SLOTS
        if self.turn and length != self._length:
            self._forget()
        self._percent = spec.percent
        self._length = length
        self._floor = spec.min_count
        self._min_interval = spec.min_interval / 1000
        self._times = deque(self._times, self._floor)

    def _forget(self) -> None:
        self.requests, self.turn = 0, 0.0
        self._requests.extendleft([0] * (_SLOTS - 1))
        # Retries count for longer than they must, never for less.
        self._retries[0] = sum(self._retries)
        for index in range(1, _SLOTS + 1):
            self._retries[index] = 0

    def deposit(self, now: float) -> None:
        """One more request; what is done for each HTTP request does this itself, see above."""
        if now >= self.turn:
            self.roll(now)
        self.requests += 1

    def roll(self, now: float) -> None:
        """Begin the slot in which `now` lies."""
        passed = min(self._slots_since(now), _SLOTS + 1)
        if passed > 0:
            self._requests.extendleft([self.requests, *([0] * (passed - 1))])
            self._retries.extendleft([0] * passed)
            self.requests = 0
            self.turn = (int(now / self._length) + 1) * self._length

    def _slots_since(self, now: float) -> int:
        """Return how many slots have begun since the current one."""
        return int(now / self._length) - round(self.turn / self._length) + 1

    def withdraw(self, now: float) -> bool:
        """Take one retry out of the budget; return False where there is none left."""
        if now >= self.turn:
            self.roll(now)
        times = self._times
        while times and times[0] <= now - self._min_interval:
            times.popleft()
        requests, retries = self.requests + sum(self._requests), sum(self._retries)
        if self._left(requests, retries, len(times)) <= 0:
            return False
        self._retries[0] += 1
        times.append(now)
        return True

    def _left(self, requests: int, retries: int, recent: int) -> int:
        return max(int(requests * self._percent / 100) - retries, self._floor - recent, 0)

    def statistics(self, now: float) -> dict[str, int]:
        """
        Return its state, for `/clusters` and `/metrics`: how many there were, how many there may be.

        Nothing is changed, for a metrics page is made in another thread.
        """
        passed = max(self._slots_since(now), 0)
        requests = sum((self.requests, *self._requests)[: max(_SLOTS - passed, 0)])
        retries = sum(tuple(self._retries)[: max(_SLOTS + 1 - passed, 0)])
        recent = sum(time > now - self._min_interval for time in tuple(self._times))
        return {
            "requests": requests,
            "retries": retries,
            "left": self._left(requests, retries, recent),
        }
