"""The moving window: what is drawn lies side by side, and everybody has the same turns."""

from collections import Counter
from itertools import chain, cycle

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from meshproxy.policies.load_balancing.moving_window import TURNS, WIDTH, MovingWindow
from tests.helpers.balancing import Server, chances, servers

STAY = 0.1 / WIDTH
"""Seconds at one place, at most."""

NOW = 1_000.0

sizes = st.integers(WIDTH, 4 * WIDTH)
seeds = st.integers(0, 2**32)


def firsts(window: MovingWindow[Server], count: int, apart: float = 0.0) -> list[Server]:
    """Return the first ones of so many draws, each so many seconds after the last."""
    return [window.draw(NOW + number * apart)[0] for number in range(count)]


@settings(deadline=None)
@given(sizes, st.lists(st.sampled_from([0.0, 0.25, 0.5, 1 - 2**-53]), min_size=1))
def test_two_different_ones_are_drawn(size: int, points: list[float]) -> None:
    """Whatever the points, their ends included, and wherever the window is."""
    all_ = servers(*[1] * size)
    random = chain([0.5] * (size - 1), cycle(points))  # an order, and then what is drawn
    window = MovingWindow(all_, lambda: next(random))
    for number in range(3 * size):
        first, second = window.draw(NOW + number * STAY)
        assert first is not second
        assert {first, second} <= {*all_}


@settings(deadline=None, max_examples=30)
@given(sizes, seeds, st.integers(0, 100), st.integers(1, 3))
def test_in_each_revolution_everybody_is_first_as_often(
    size: int, seed: int, before: int, revolutions: int
) -> None:
    """Exactly `TURNS` times where requests are many, wherever one begins to count."""
    all_ = servers(*[1] * size)
    window = MovingWindow(all_, chances(seed))
    firsts(window, before)
    counts = Counter(firsts(window, revolutions * TURNS * size))
    assert counts == dict.fromkeys(all_, revolutions * TURNS)


def test_everybody_is_second_about_as_often() -> None:
    """In ten revolutions 40 times, give or take what chance does (five standard deviations)."""
    all_ = servers(*[1] * 600)
    window = MovingWindow(all_, chances())
    counts = Counter(window.draw(NOW)[1] for _ in range(10 * TURNS * len(all_)))
    assert max(abs(counts[one] - 10 * TURNS) for one in all_) < 5 * (10 * TURNS) ** 0.5


def test_requests_in_a_row_have_different_first_ones() -> None:
    """So many that are in flight at once are at as many endpoints."""
    window = MovingWindow(servers(*[1] * (3 * WIDTH)), chances())
    seen = firsts(window, 40 * WIDTH)
    for place in range(len(seen) - WIDTH):
        assert len({*seen[place : place + WIDTH]}) == WIDTH


def test_who_comes_by_is_asked_in_near_succession() -> None:
    """All draws of an endpoint are within as many requests as the window needs to pass it."""
    size = 20 * WIDTH
    window = MovingWindow(servers(*[1] * size), chances())
    seen: dict[Server, list[int]] = {}
    for number in range(size * TURNS // 2):  # half a revolution: nobody comes by twice
        for one in window.draw(NOW):
            seen.setdefault(one, []).append(number)
    assert max(max(when) - min(when) for when in seen.values()) < WIDTH * TURNS


@pytest.mark.parametrize("rate", [1, 100, 600])
def test_few_requests_move_the_window_with_each(rate: int) -> None:
    """So nobody is first twice in a revolution: there would be nothing to be gained."""
    all_ = servers(*[1] * (2 * WIDTH))
    window = MovingWindow(all_, chances())
    assert Counter(firsts(window, len(all_), 1 / rate)) == dict.fromkeys(all_, 1)


@pytest.mark.parametrize("rate", [700, 1_300, 2_000, 10_000])
def test_nobody_stays_for_longer_than_it_is_warm(rate: int) -> None:
    """A tenth of a second, and what the last request at each place came late."""
    window = MovingWindow(servers(*[1] * (8 * WIDTH)), chances())
    seen: dict[Server, list[float]] = {}
    for number in range(2 * WIDTH * TURNS):
        now = NOW + number / rate
        for one in window.draw(now):
            seen.setdefault(one, []).append(now)
    assert max(max(when) - min(when) for when in seen.values()) <= 0.1 + WIDTH / rate


def test_each_proxy_has_an_order_of_its_own() -> None:
    """And each balancer that is made anew: whoever came last is not last again."""
    all_ = servers(*[1] * (8 * WIDTH))
    random = chances()
    orders = [firsts(MovingWindow(all_, random), 2 * WIDTH) for _ in range(2)]
    # Each is about 80 endpoints of 512, so 12 or 13 of them are expected to be in both.
    assert len({*orders[0]} & {*orders[1]}) < 40
