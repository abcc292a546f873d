"""
How late the event loop is: the longest that anything had to wait for its turn.

Everything of a sidecar happens in one loop, so whatever takes long there (a large configuration, a
signature, a burst) delays every connection by as much.  A timer that should be told at a given
moment and is told later has been delayed like them: by how much is the lag.  On a machine with more
to do than cores it has the scheduler's part in it, too, as requests have.

A heart that beats often sees more: of a pause it sees what is left when the beat falls due, so up to
one period less.  One that beats often in a process at rest wakes it for nothing.  So it beats every
`CLOSE` seconds while the loop's thread works, and every `REST` seconds otherwise.  No request pays.
"""

import time
from bisect import bisect_left
from collections.abc import Callable
from typing import Final, Protocol

BOUNDS: Final = (0.001, 0.0025, 0.005, 0.01, 0.015, 0.02, 0.03, 0.04, 0.05, 0.075, 0.1, 0.25, 0.5, 1.0)  # fmt: skip
"""Upper bounds of the histogram's buckets, in seconds."""

CLOSE: Final = 0.025
REST: Final = 1.0
WORKING: Final = 0.01
"""Share of its time that a thread at work is on a CPU, at least."""


class LoopLag:
    """
    Attributes:
        buckets: How many beats came up to each of `BOUNDS` late and no less than the bound before.
        seconds: How late all of them were together.
    """

    __slots__ = ("buckets", "seconds")

    def __init__(self) -> None:
        self.buckets = [0] * (len(BOUNDS) + 1)
        self.seconds = 0.0

    def record(self, seconds: float) -> None:
        """Count one beat."""
        self.buckets[bisect_left(BOUNDS, seconds)] += 1
        self.seconds += seconds

    def add(self, buckets: list[int], seconds: float) -> None:
        """Count what another process has counted."""
        self.buckets = [a + b for a, b in zip(self.buckets, buckets, strict=True)]
        self.seconds += seconds


class Timer(Protocol):
    """What a loop gives for a callback."""

    def cancel(self) -> None: ...


class Heartbeat:
    """Beats from `start` to `stop`."""

    def __init__(
        self,
        lag: LoopLag,
        now: Callable[[], float],
        later: Callable[[float, Callable[[], None]], Timer],
        worked: Callable[[], float] = time.thread_time,
    ) -> None:
        """`worked` says how many seconds the loop's thread has been on a CPU."""
        self._lag = lag
        self._now = now
        self._later = later
        self._worked = worked
        self._due = self._work = 0.0
        self._period = CLOSE
        self._timer: Timer | None = None

    def start(self) -> None:
        self._work = self._worked()
        self._wait(self._now())

    def stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()

    def _wait(self, now: float) -> None:
        self._due = now + self._period
        self._timer = self._later(self._period, self._beat)

    def _beat(self) -> None:
        now, work = self._now(), self._worked()
        late = max(0.0, now - self._due)  # loops round to milliseconds, to either side
        self._lag.record(late)
        share = (work - self._work) / (self._period + late)
        self._work = work
        self._period = CLOSE if share > WORKING else REST
        self._wait(now)
