"""Drawing two: different ones, by weight, never who is out."""

from collections import Counter
from collections.abc import Callable, Collection, Sequence

from hypothesis import given, settings
from hypothesis import strategies as st

from meshproxy.policies.load_balancing.least_request import LeastRequest
from meshproxy.policies.load_balancing.moving_window import MANY, TURNS
from tests.helpers.balancing import Server, chances, picks, servers

points = st.floats(0, 1, exclude_max=True)


def clock() -> float:
    return 1_000.0


def draw(
    all_: Sequence[Server], random: Callable[[], float], avoid: Collection[Server] | None
) -> tuple[Server | None, tuple[Server, ...]]:
    """
    Return what is picked, and what was drawn for it.

    At a tie that is the first of two; the same points draw the same two, so when the first has work
    it is the second.
    """
    points: list[float] = []

    def noted() -> float:
        points.append(random())
        return points[-1]

    picked = LeastRequest(all_, noted, clock).draw(avoid)
    if picked is None or not points:
        return picked, ()
    again = iter(points)
    picked.active = 1
    other = LeastRequest(all_, lambda: next(again), clock).draw(avoid)
    picked.active = 0
    return picked, (picked,) if other is None or other is picked else (picked, other)


@settings(deadline=None)
@given(st.lists(st.integers(0, 4), min_size=2, max_size=6), st.data(), points, points)
def test_any_points_give_two_that_may_be_drawn(
    weights: list[int], data: st.DataObject, one: float, two: float
) -> None:
    """Different, with a weight, none of those to avoid; rounding never leads past the end of the line."""
    all_ = servers(*weights)
    avoid = data.draw(st.none() | st.lists(st.sampled_from(all_), max_size=3))
    able = [server for server in all_ if server.weight and server not in (avoid or ())]
    points = iter((one, two))
    picked, drawn = draw(all_, lambda: next(points), avoid)
    if len(able) > 1:
        first, second = drawn
        assert first is not second
        assert first in able
        assert second in able
    elif able:
        assert picked is able[0]
    else:
        assert picked in [server for server in all_ if server.weight] or picked is None


def test_the_last_point_before_one() -> None:
    """The largest number below 1 is still on the line, whoever is cut out at its end."""
    all_ = servers(3, 1, 1)
    for out in ((), *((one,) for one in all_), all_[1:], all_[::2]):
        picked, drawn = draw(all_, lambda: 1 - 2**-53, out)
        assert picked in all_
        assert not {*out} & {*drawn}


def test_first_and_second_are_drawn_by_weight() -> None:
    """The first by all weights, the second by those of the others."""
    all_ = servers(1, 2, 5)
    chance = chances()
    rounds = 20_000
    pairs: Counter[tuple[Server, ...]] = Counter()
    for _ in range(rounds):
        _, drawn = draw(all_, chance, None)
        pairs[drawn] += 1
    for one in all_:
        for two in all_:
            if one is not two:
                expected = one.weight / 8 * two.weight / (8 - one.weight)
                assert abs(pairs[one, two] / rounds - expected) < 0.02


def test_different_weights_are_drawn_from_all() -> None:
    """However many there are: twice the weight, twice the share."""
    all_ = servers(*[1, 2] * MANY)
    counts = picks(LeastRequest(all_, chances(), clock), 20_000)
    heavy = sum(counts[one] for one in all_[1::2])
    assert abs(heavy / 20_000 - 2 / 3) < 0.02


def test_those_without_weight_are_in_no_window() -> None:
    """Nor do they make many of few."""
    all_ = servers(*[1, 0] * MANY)
    policy = LeastRequest(all_, chances(), clock)
    assert picks(policy, TURNS * MANY) == dict.fromkeys(all_[::2], TURNS)


def test_of_very_many_some_can_be_avoided() -> None:
    """Then the window, in which they would have to be sought, is left out of it."""
    all_ = servers(*[1] * MANY)
    policy = LeastRequest(all_, chances(), clock)
    avoided = all_[: MANY - 2]
    assert {policy.pick(avoided) for _ in range(100)} == {*all_[-2:]}
