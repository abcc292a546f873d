from pathlib import Path

import pytest

from meshproxy.downstream import admission
from meshproxy.downstream.admission import (
    LOOK,
    TRIM,
    TRIM_EARLY,
    Admission,
    container_memory,
    most_connections,
)


class FakeListener:
    direction = "inbound"
    accepted = ()

    def __init__(self, connections: int = 0) -> None:
        self.connections = connections


def test_a_listener_leaves_room_for_others() -> None:
    """It may have four fifths; what others have is missing, too."""
    limits = Admission(100, 0)
    inbound, outbound = FakeListener(), FakeListener()
    limits.join(inbound)
    limits.join(outbound)

    def take(listener: FakeListener, count: int) -> None:
        for _ in range(count):
            limits.taken()
            listener.connections += 1

    assert limits.room(inbound) == 80
    take(inbound, 80)
    assert limits.room(inbound) == 0
    assert limits.room(outbound) == 20
    take(outbound, 20)
    assert limits.room(outbound) == 0
    outbound.connections = 5  # found out when it matters
    assert limits.room(outbound) == 15
    take(outbound, 12)
    inbound.connections = 50
    assert limits.room(outbound, wanted=16) == 33  # of so many none must be refused for nothing
    take(outbound, 33)
    assert limits.room(inbound) == 0
    inbound.connections, outbound.connections = 0, 20
    assert limits.room(inbound) == 80


def test_who_is_gone_does_not_count() -> None:
    """A listener that a new configuration does not have any more."""
    limits = Admission(100, 0)
    gone = FakeListener(50)
    limits.join(gone)
    limits.leave(gone)
    listener = FakeListener()
    limits.join(listener)
    assert limits.room(listener) == 80


def test_descriptors_bound_what_may_be_asked_for() -> None:
    """Each connection needs one here and one upstream, and some are for others."""
    assert most_connections(1064) == 500
    assert most_connections(10) == 1
    assert Admission(1 << 40, 0).connections < 1 << 40


def test_nobody_is_taken_while_memory_is_short() -> None:
    """And all are again, once it is not."""
    clock, taken = [0.0], [10]
    limits = Admission(100, 50, now=lambda: clock[0], resident=lambda: taken[0])
    listener = FakeListener()
    assert limits.room(listener) > 0
    taken[0] = 51
    clock[0] += LOOK
    assert limits.room(listener) == 0
    taken[0] = 50
    clock[0] += LOOK
    assert limits.room(listener) > 0


def test_what_the_allocator_only_keeps_counts_for_nobody() -> None:
    """It is given back before somebody is refused for it."""
    taken, trimmed = [100], [60]

    def trim() -> None:
        taken[0] = trimmed[0]

    limits = Admission(100, 80, resident=lambda: taken[0], trim=trim)
    assert limits.room(FakeListener()) > 0
    assert limits.in_use == 60
    limits = Admission(100, 50, resident=lambda: taken[0], trim=trim)
    assert limits.room(FakeListener()) == 0
    assert limits.in_use == 60


def test_the_allocator_is_asked_early_and_again_above_the_limit() -> None:
    """Rarely below it, where a process may stay for good; at once when it comes above all the same."""
    clock, taken, trimmed = [0.0], [91], [0]

    def trim() -> None:
        trimmed[0] += 1

    limits = Admission(100, 100, now=lambda: clock[0], resident=lambda: taken[0], trim=trim)
    for _ in range(10):
        limits.look()
        clock[0] += TRIM
    assert trimmed[0] == 10 * TRIM / TRIM_EARLY
    limits.look()
    taken[0] = 101
    before = trimmed[0]
    for _ in range(10):
        limits.look()
        clock[0] += TRIM / 2
    assert trimmed[0] == before + 5


def test_the_memory_of_the_container(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both versions of control groups say it, each in its way, and that there is none."""
    group = tmp_path / "memory.max"
    monkeypatch.setattr(admission, "_GROUPS", (group,))
    assert container_memory() == 0
    for said, expected in [("max\n", 0), (f"{1 << 27}\n", 1 << 27), ("9223372036854771712\n", 0)]:
        group.write_text(said)
        assert container_memory() == expected


def test_memory_is_what_the_kernel_says() -> None:
    """More than nothing, less than all."""
    assert 1 << 20 < admission.resident_memory() < 1 << 36
