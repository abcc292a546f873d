"""Deadlines on one timer: told in time, never early, dropped without a trace."""

from collections.abc import Callable

from hypothesis import given
from hypothesis import strategies as st

from meshproxy.timer_wheel import SLOTS, TICK, TimerWheel


class Clock:
    """Time that passes when the test says so; `later` fires on the way."""

    def __init__(self) -> None:
        self.time = 1000.03
        self.due: list[tuple[float, Callable[[], None]]] = []

    def now(self) -> float:
        return self.time

    def later(self, seconds: float, callback: Callable[[], None]) -> None:
        assert seconds >= 0
        self.due.append((self.time + seconds, callback))

    def until(self, moment: float) -> None:
        while self.due and min(self.due, key=lambda one: one[0])[0] <= moment:
            first = min(self.due, key=lambda one: one[0])
            self.due.remove(first)
            self.time = max(self.time, first[0])
            first[1]()
        self.time = moment


class Item:
    def __init__(self, clock: Clock, deadline: float) -> None:
        self.due = deadline
        self.told_at: float | None = None
        self._clock = clock

    def on_due(self) -> None:
        assert self.told_at is None
        self.told_at = self._clock.now()


def wheel() -> tuple[Clock, TimerWheel[Item]]:
    clock = Clock()
    return clock, TimerWheel(clock.now, clock.later)


@given(
    st.lists(
        st.tuples(st.floats(min_value=-1, max_value=SLOTS * TICK * 3), st.booleans()), max_size=30
    )
)
def test_each_is_told_once_in_time_and_never_early(wanted: list[tuple[float, bool]]) -> None:
    """Also what is further away than a turn of the ring, or past; what was dropped never is."""
    clock, subject = wheel()
    start = clock.time
    items = [Item(clock, start + after) for after, _ in wanted]
    slots = [subject.add(item) for item in items]
    for item, slot, (_, dropped) in zip(items, slots, wanted, strict=True):
        if dropped:
            subject.drop(slot, item)
    clock.until(start + SLOTS * TICK * 3 + 1)
    for item, (_, dropped) in zip(items, wanted, strict=True):
        if dropped:
            assert item.told_at is None
        else:
            assert item.told_at is not None
            late = item.told_at - max(item.due, start)
            assert 0 <= late <= TICK + 1e-6
    assert subject.count == 0
    assert clock.due == []


def test_an_empty_wheel_does_not_tick() -> None:
    """Nothing wakes an idle process; the next item starts it again."""
    clock, subject = wheel()
    assert clock.due == []
    item = Item(clock, clock.time + 5)
    subject.drop(subject.add(item), item)
    clock.until(clock.time + 1)
    assert clock.due == []
    assert repr(subject) == "<TimerWheel 0 items, at rest>"
    again = Item(clock, clock.time + 0.1)
    subject.add(again)
    clock.until(clock.time + 0.2)
    assert again.told_at is not None


def test_after_a_long_sleep_all_that_is_due_is_told() -> None:
    """A process that was stopped for longer than a turn of the ring has missed nothing."""
    clock, subject = wheel()
    items = [Item(clock, clock.time + after) for after in (0.01, 1, SLOTS * TICK * 2)]
    for item in items:
        subject.add(item)
    ((_, tick),) = clock.due
    clock.due.clear()
    clock.time += SLOTS * TICK * 2.5
    tick()
    assert all(item.told_at is not None for item in items)


def test_who_is_told_may_drop_and_add_others() -> None:
    """One deadline ends another that falls due with it, and begins a new one."""
    clock, subject = wheel()
    new = Item(clock, clock.time + 1)

    class Meddler(Item):
        def on_due(self) -> None:
            super().on_due()
            if other.told_at is None:
                subject.drop(slot, other)
            if new.told_at is None and subject.count < 2:
                subject.add(new)

    other = Item(clock, clock.time + 0.01)
    subject.add(Meddler(clock, clock.time + 0.01))
    slot = subject.add(other)
    clock.until(clock.time + 2)
    assert new.told_at is not None
    assert subject.count == 0


def test_whoever_raises_stops_no_other() -> None:
    """A defect in what one of them does is its own: the clock of all goes on."""
    clock, subject = wheel()
    items = [Item(clock, clock.time + after) for after in (0.5, 0.5, 0.5, 0.5 + TICK, 3.0)]
    for item in items:
        subject.add(item)
    for item in items[:3]:
        item.told_at = clock.time  # it is an error to tell it once more
    raised = 0
    for _ in range(10):
        try:
            clock.until(clock.time + 1)
        except AssertionError:
            raised += 1
    assert raised == 3
    assert all(item.told_at is not None for item in items)
    assert subject.count == 0
