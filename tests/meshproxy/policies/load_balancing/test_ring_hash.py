"""The ring: how many points it has, and how even shares are."""

import pytest

from meshproxy.policies.load_balancing.consistent_hashing import KEYS
from meshproxy.policies.load_balancing.ring_hash import LIMIT, POINTS, Ring
from tests.helpers.balancing import servers


def test_points_are_given_by_weight() -> None:
    """The heaviest has them all, the others in proportion, and who has no weight has none."""
    ring = Ring(servers(4, 2, 1, 0))
    owners = list(ring.owners)
    assert [owners.count(number) for number in range(4)] == [POINTS, POINTS // 2, POINTS // 4, 0]


def test_a_light_endpoint_has_at_least_one_point() -> None:
    """Next to a very heavy one its share is too large rather than none."""
    assert list(Ring(servers(1_000_000, 1)).owners).count(1) == 1


@pytest.mark.parametrize("size", [1, 1_000, 10_000])
def test_a_ring_has_the_size_that_is_asked_for(size: int) -> None:
    """Or some points more, for each endpoint has a whole number."""
    assert size <= len(Ring(servers(1, 2, 3), size).owners) <= size + 6


def test_a_large_cluster_has_a_ring_that_can_be_made() -> None:
    """With 5,000 endpoints each has fewer points."""
    assert len(Ring(servers(*[1] * 5_000)).owners) <= LIMIT


def test_the_circle_is_closed() -> None:
    """Behind the last point comes the first."""
    ring = Ring(servers(1, 1))
    assert ring.place(KEYS - 1) == 0
    assert ring.place(0) == 0


def test_no_endpoints_no_points() -> None:
    """An empty cluster is nobody's error."""
    assert len(Ring(()).owners) == 0
    assert len(Ring(servers(0, 0)).owners) == 0
