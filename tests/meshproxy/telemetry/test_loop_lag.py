"""The lag of the event loop: what a late beat is counted as, and how often the heart beats."""

import asyncio
import time
from collections.abc import Callable

from meshproxy.telemetry.loop_lag import BOUNDS, CLOSE, REST, Heartbeat, LoopLag


class Loop:
    """Time and work that pass when the test says so; a timer is told when it is due, or later."""

    def __init__(self) -> None:
        self.time = 100.0
        self.work = 0.0
        self.waiting: list[tuple[float, Callable[[], None]]] = []
        self.cancelled = False
        self.lag = LoopLag()
        self.heart = Heartbeat(self.lag, lambda: self.time, self.later, lambda: self.work)

    def later(self, seconds: float, callback: Callable[[], None]) -> "Loop":
        self.waiting.append((seconds, callback))
        return self

    def cancel(self) -> None:
        self.cancelled = True

    def beat(self, *, late: float = 0.0, work: float = 0.0) -> float:
        """Let the next beat come, and return for how long the heart then rests."""
        [(seconds, callback)] = self.waiting
        self.waiting.clear()
        self.time += seconds + late
        self.work += work
        callback()
        return self.waiting[0][0]


def test_a_beat_counts_by_how_late_it_is() -> None:
    """In the bucket of the first bound that is not below it; beyond all, in the last."""
    loop = Loop()
    loop.heart.start()
    for late in (0.0, 0.018, 0.018, 3.0):
        loop.beat(late=late)
    counts = dict(zip((*BOUNDS, "more"), loop.lag.buckets, strict=True))
    assert {bound: count for bound, count in counts.items() if count} == {
        0.001: 1,
        0.02: 2,
        "more": 1,
    }
    assert abs(loop.lag.seconds - 3.036) < 1e-9


def test_a_beat_that_is_early_is_not_late() -> None:
    """Loops round to milliseconds."""
    loop = Loop()
    loop.heart.start()
    loop.beat(late=-0.0005)
    assert (loop.lag.buckets[0], loop.lag.seconds) == (1, 0.0)


def test_who_works_is_looked_at_closely() -> None:
    """At rest, once a second; with more than a hundredth of a core at work, forty times."""
    loop = Loop()
    loop.heart.start()
    assert loop.beat() == REST
    assert loop.beat(work=0.005) == REST
    assert loop.beat(work=0.5) == CLOSE
    assert loop.beat(work=CLOSE / 2) == CLOSE
    assert loop.beat() == REST


def test_it_stops() -> None:
    """With the process's traffic; also if it was never started."""
    loop = Loop()
    loop.heart.stop()
    assert not loop.cancelled
    loop.heart.start()
    loop.heart.stop()
    assert loop.cancelled


def test_processes_are_added_up() -> None:
    """The lags of workers are those of one proxy."""
    one, two = LoopLag(), LoopLag()
    one.record(0.002)
    two.record(0.002)
    one.add(two.buckets, two.seconds)
    assert (one.buckets[BOUNDS.index(0.0025)], one.seconds) == (2, 0.004)


async def test_a_loop_that_is_held_up_is_seen() -> None:
    """Whoever keeps the thread of a real loop to himself makes the beat after it late."""
    loop = asyncio.get_running_loop()
    lag = LoopLag()
    heart = Heartbeat(lag, time.monotonic, loop.call_later)
    heart.start()
    end = time.monotonic() + 4 * CLOSE
    while time.monotonic() < end:
        pass
    async with asyncio.timeout(10):
        while not sum(lag.buckets):
            await asyncio.sleep(0.001)
    heart.stop()
    assert lag.seconds > 2 * CLOSE
