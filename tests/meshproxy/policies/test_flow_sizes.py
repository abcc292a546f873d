"""Whether the next opaque connection is worth a handshake."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshproxy.policies.flow_sizes import LARGE, MOST, Flow, FlowSizes


def after(*sizes: int) -> FlowSizes:
    learned = FlowSizes()
    for size in sizes:
        flow = Flow(learned)
        flow.moved(size)
        flow.ended()
    return learned


@pytest.mark.parametrize(
    ("sizes", "bulk"),
    [
        ((), False),
        ((LARGE - 1,), False),
        ((LARGE,), True),
        ((100, 100, MOST), True),
        ((100,) * 10 + (2 * LARGE,), False),
        ((100,) * 10 + (2 * LARGE,) * 3, True),
        ((100,) * 10 + (MOST,), True),
        ((100,) * 10 + (MOST,) + (100,) * 2, True),
        ((100,) * 10 + (MOST,) + (100,) * 3, False),
        ((MOST * 1000,) * 10 + (100,) * 7, True),
        ((MOST * 1000,) * 10 + (100,) * 8, False),
    ],
)  # fmt: skip
def test_the_mean_decides(sizes: tuple[int, ...], bulk: bool) -> None:
    """The first ones weigh as much as they are, later ones a quarter; none more than `MOST`."""
    assert after(*sizes).bulk == bulk


@given(st.lists(st.integers(0, 10 * MOST), min_size=1))
def test_the_mean_lies_among_what_was_seen(sizes: list[int]) -> None:
    """Whatever comes."""
    counted = [min(size, MOST) for size in sizes]
    assert min(counted) - 1e-6 <= after(*sizes).mean <= max(counted) + 1e-6


def test_a_running_one_counts_before_it_ends() -> None:
    """Once: not again when it goes on, and not when it ends."""
    learned = FlowSizes()
    flow = Flow(learned)
    flow.moved(MOST - 1)
    assert learned.mean == 0.0
    flow.moved(1)
    assert learned.mean == MOST
    learned.observe(0)
    before = learned.mean
    flow.moved(MOST)
    flow.ended()
    assert learned.mean == before


def test_one_that_has_ended_does_not_end_again() -> None:
    """Connections are lost in more ways than one."""
    learned = FlowSizes()
    flow = Flow(learned)
    flow.moved(10)
    flow.ended()
    learned.observe(0)
    before = learned.mean
    flow.ended()
    assert learned.mean == before


def test_what_is_large_may_be_said() -> None:
    """What counts at most grows with it."""
    learned = FlowSizes(1000)
    for size, bulk in ((999, False), (100_000, True)):
        learned.observe(size)
        assert learned.bulk == bulk
    assert learned.mean <= 8000
