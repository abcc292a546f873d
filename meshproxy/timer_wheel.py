"""
The timer wheel: one timer of the event loop for all deadlines of a process.

Nearly every deadline that is set is dropped before it comes, because the answer was faster.  A timer of the
event loop for each would cost a heap insertion and a handle; here, a deadline is an item in one of
a ring of sets, the one that is looked at when it falls due: to add and to drop it is one set
operation each.  The price is precision: an item is told up to `TICK` late, never early.

A deadline further away than one turn of the ring is looked at once a turn.  So memory is that of
the items, whatever the times.  While the wheel is empty it does not tick.
"""

from collections.abc import Callable
from typing import Final, Generic, Protocol, TypeVar

TICKS_PER_SECOND: Final = 20
"""A count, so that time to ticks and back is exact; n / 20 * 20 == n also in floating point."""

TICK: Final = 1 / TICKS_PER_SECOND
"""Seconds; how late an item may be told."""

SLOTS: Final = 512
"""Sets in the ring: one turn takes 25.6 seconds."""


class Timed(Protocol):
    """
    What wants to be told.

    Attributes:
        due: When, on the wheel's clock; fixed while it is in the wheel.
    """

    due: float

    def on_due(self) -> None: ...


T = TypeVar("T", bound=Timed)


class TimerWheel(Generic[T]):
    """
    Tells items that their deadline has passed.

    Attributes:
        count: How many it holds.
    """

    __slots__ = ("_later", "_now", "_slots", "_ticking", "_turned", "count")

    def __init__(
        self, now: Callable[[], float], later: Callable[[float, Callable[[], None]], object]
    ) -> None:
        self._now = now
        self._later = later
        self._slots: tuple[set[T], ...] = tuple(set() for _ in range(SLOTS))
        self._turned = 0  # the tick of the clock up to which all is told
        self._ticking = False
        self.count = 0

    def __repr__(self) -> str:
        return f"<TimerWheel {self.count} items, {'ticking' if self._ticking else 'at rest'}>"

    def add(self, item: T) -> set[T]:
        """Tell `item` once its deadline has passed; return the slot to `drop` it from."""
        if not self._ticking:
            self._ticking = True
            self._turned = int(self._now() * TICKS_PER_SECOND)
            self._wait()
        # The first tick that is not before the deadline; what is due already comes with the next.
        tick = int(item.due * TICKS_PER_SECOND)
        if tick < self._turned:
            tick = self._turned
        slot = self._slots[(tick + 1) % SLOTS]
        slot.add(item)
        self.count += 1
        return slot

    def drop(self, slot: set[T], item: T) -> None:
        """Do not tell `item`, which is in the wheel."""
        slot.remove(item)
        self.count -= 1

    def _wait(self) -> None:
        left = (self._turned + 1) / TICKS_PER_SECOND - self._now()
        self._later(max(left, 0.0), self._tick)

    def _tick(self) -> None:
        now = self._now()
        current = int(now * TICKS_PER_SECOND)
        first = max(self._turned, current - SLOTS) + 1  # after a long sleep, each slot once
        self._turned = current
        tick = first
        try:
            for tick in range(first, current + 1):
                slot = self._slots[tick % SLOTS]
                for item in [one for one in slot if one.due <= now]:
                    if item in slot:  # nobody who was told before has dropped it
                        self.drop(slot, item)
                        item.on_due()
        except BaseException:  # the others are not to blame: the next tick goes on with them
            self._turned = tick - 1
            raise
        finally:
            if self.count:
                self._wait()
            else:
                self._ticking = False
