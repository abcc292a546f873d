"""Random by weight."""

import pytest

from meshproxy.policies.load_balancing.weighted_random import WeightedRandom
from tests.helpers.balancing import chances, picks, servers


def test_it_looks_at_nothing() -> None:
    """The busiest gets as much as the others."""
    all_ = servers(1, 1)
    all_[0].active = 1_000
    assert abs(picks(WeightedRandom(all_, chances()), 4_000)[all_[0]] - 2_000) < 200


@pytest.mark.parametrize(("point", "place"), [(0.0, 0), (0.24, 0), (0.26, 1), (0.999, 1)])
def test_a_point_is_an_endpoint(point: float, place: int) -> None:
    """Endpoints lie end to end, each as long as its weight."""
    all_ = servers(1, 3)
    assert WeightedRandom(all_, lambda: point).pick(None) is all_[place]
