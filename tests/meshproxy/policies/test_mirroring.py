from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshproxy.message import RequestHead, field
from meshproxy.policies.mirroring import (
    AT_ONCE,
    HELD_ALL,
    HELD_EACH,
    MARK,
    Load,
    Mirroring,
    copy_of,
)
from meshproxy.policies.propagation import read


def test_shares() -> None:
    """Each mirror gets its percent, drawn apart from the others: within what chance allows."""
    mirroring = Mirroring([("a", 10.0), ("b", 30.0), ("c", 0.0)])
    random = Random(4).random
    drawn = [mirroring.draw(random) for _ in range(10_000)]
    assert 900 < sum("a" in one for one in drawn) < 1_100
    assert 2_850 < sum("b" in one for one in drawn) < 3_150
    assert 240 < sum(one == ["a", "b"] for one in drawn) < 360
    assert not any("c" in one for one in drawn)


@given(st.lists(st.sampled_from([0.0, 1e-9, 40.0, 100.0]), max_size=4))
def test_each_is_drawn_apart(percents: list[float]) -> None:
    """However many there are: what is never to be drawn never is, and what always is, always."""
    mirroring = Mirroring(list(enumerate(percents)))
    random = Random(7).random
    drawn = [mirroring.draw(random) for _ in range(2_000)]
    for number, percent in enumerate(percents):
        count = sum(number in one for one in drawn)
        assert abs(count - 20 * percent) < 120, (percents, number)
        assert percent not in (0.0, 100.0) or count == 20 * percent


@pytest.mark.parametrize("chance", [0.0, 0.5, 0.999_999])
def test_all(chance: float) -> None:
    """100 % is every request."""
    assert Mirroring([("a", 100.0)]).draw(lambda: chance) == ["a"]


def test_a_copy_is_marked() -> None:
    """It has what the original has, but for what is between proxies, or between client and proxy."""
    accept, deadline = field(b"Accept", b"*/*"), field(b"x-mesh-deadline-ms", b"100")
    expect = field(b"Expect", b"100-continue")
    head = RequestHead(b"PUT", b"catalog:80", b"/a?b", [accept, deadline, expect], 5, b"https")
    head.expect_continue = True
    copy = copy_of(head)
    assert copy.fields == [accept, MARK]
    assert (copy.method, copy.authority, copy.path) == (b"PUT", b"catalog:80", b"/a?b")
    assert (copy.length, copy.scheme, copy.expect_continue) == (5, b"https", False)
    assert head.fields == [accept, deadline, expect]


def test_the_mark_is_known() -> None:
    """Whatever its value: who says it means it."""
    assert read([field(b"x-mesh-attempt", b"2"), field(b"X-Mesh-Mirrored", b"yes")], 0.0).mirrored
    assert not read([field(b"x-mesh-attempt", b"2")], 0.0).mirrored
    assert read([MARK], 0.0).mirrored


def test_so_many_at_once() -> None:
    """And one more when one has ended."""
    load = Load()
    assert all(load.admit() for _ in range(AT_ONCE))
    assert not load.admit()
    load.active -= 1
    assert load.admit()


@given(st.lists(st.tuples(st.integers(0, 30), st.integers(0, 1 << 19)), max_size=200))
def test_held_bytes_are_bounded(wanted: list[tuple[int, int]]) -> None:
    """For each mirror and for all together; what is refused is not counted."""
    load, held = Load(), [0] * 31
    for mirror, size in wanted:
        if load.hold(size, held[mirror]):
            held[mirror] += size
    assert max(held) <= HELD_EACH
    assert load.held == sum(held) <= HELD_ALL
