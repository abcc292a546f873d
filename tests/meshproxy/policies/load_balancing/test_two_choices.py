"""Drawing two: different ones, by weight, never who is out."""

from collections import Counter

from hypothesis import given, settings
from hypothesis import strategies as st

from meshproxy.policies.load_balancing.two_choices import TwoChoices
from tests.helpers.balancing import Server, chances, servers

points = st.floats(0, 1, exclude_max=True)


class Both(TwoChoices[Server]):
    """Remembers what was drawn."""

    __slots__ = ("drawn",)

    def better(self, first: Server, second: Server) -> Server:
        self.drawn = (first, second)
        return first


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
    choices = Both(all_, lambda: next(points))
    choices.drawn = (all_[0], all_[0])
    picked = choices.draw(avoid)
    if len(able) > 1:
        first, second = choices.drawn
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
        choices = Both(all_, lambda: 1 - 2**-53)
        choices.drawn = (Server(), Server())
        assert choices.draw(out) in all_
        assert not {*out} & {*choices.drawn}


def test_first_and_second_are_drawn_by_weight() -> None:
    """The first by all weights, the second by those of the others."""
    all_ = servers(1, 2, 5)
    choices = Both(all_, chances())
    rounds = 20_000
    pairs: Counter[tuple[Server, Server]] = Counter()
    for _ in range(rounds):
        choices.draw(None)
        pairs[choices.drawn] += 1
    for one in all_:
        for two in all_:
            if one is not two:
                expected = one.weight / 8 * two.weight / (8 - one.weight)
                assert abs(pairs[one, two] / rounds - expected) < 0.02
