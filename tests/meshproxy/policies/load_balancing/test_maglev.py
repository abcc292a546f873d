"""Maglev's table: full, and as even as can be."""

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from meshproxy.policies.load_balancing.maglev import SIZE, Maglev
from tests.helpers.balancing import servers


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(0, 9), min_size=1, max_size=12).filter(any))
def test_each_endpoint_has_its_share_of_places(weights: list[int]) -> None:
    """To within two places: turns end in the middle of a round."""
    size = 499
    counts = Counter(Maglev(servers(*weights), size).owners)
    for number, weight in enumerate(weights):
        assert abs(counts[number] - size * weight / sum(weights)) <= 2


@pytest.mark.parametrize(("asked", "given"), [(1, 2), (2, 2), (100, 101), (101, 101), (1024, 1031)])
def test_the_size_is_a_prime(asked: int, given: int) -> None:
    """Otherwise an order might visit the same few places for ever."""
    assert len(Maglev(servers(1, 1), asked).owners) == given


def test_the_size_by_itself() -> None:
    """One that needs no correction."""
    assert len(Maglev(servers(1, 1)).owners) == SIZE


def test_more_endpoints_than_places() -> None:
    """Some get none; nothing breaks."""
    assert len(set(Maglev(servers(*[1] * 20), 7).owners)) == 7


def test_no_endpoints_no_places() -> None:
    """An empty cluster is nobody's error."""
    assert len(Maglev(()).owners) == 0
    assert len(Maglev(servers(0)).owners) == 0
