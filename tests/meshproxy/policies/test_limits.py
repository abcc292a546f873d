"""A ceiling and what is under it."""

from meshproxy.policies.limits import Limit


def full(limit: Limit, count: int) -> bool:
    limit.count = count
    return limit.full


def test_full_is_at_the_ceiling_and_above() -> None:
    """The request that would be one too many is the one that is turned away."""
    assert [full(Limit(2), count) for count in range(4)] == [False, False, True, True]
    assert full(Limit(0), 0)


def test_a_ceiling_of_none_is_never_reached() -> None:
    """What nobody has limited costs a comparison and nothing else."""
    assert not full(Limit(), 1 << 40)
    assert "no limit" in repr(Limit())


def test_a_lower_ceiling_lets_what_is_under_way_finish() -> None:
    """It turns away until enough has ended."""
    limit = Limit(5)
    limit.count = 3
    limit.set(2)
    assert [full(limit, count) for count in (3, 2, 1)] == [True, True, False]
    limit.set(None)
    assert not full(limit, 3)
    limit.set(7)
    assert repr(limit) == "<Limit 3 of 7, overflows 0>"
