"""A ceiling and what is under it."""

from meshproxy.contract.policies import LimitsSpec
from meshproxy.policies.limits import UNLIMITED, Limit, Limits


def full(limit: Limit, count: int) -> bool:
    limit.count = count
    return limit.full


def test_full_is_at_the_ceiling_and_above() -> None:
    """The request that would be one too many is the one that is turned away."""
    limit = Limit("requests", 2)
    assert [full(limit, count) for count in range(4)] == [False, False, True, True]
    assert limit.room == 0
    limit.count = 1
    assert limit.room == 1
    assert full(Limit("requests", 0), 0)


def test_a_ceiling_of_none_is_never_reached() -> None:
    """What nobody has limited costs a comparison and nothing else."""
    limit = Limit("requests")
    assert not full(limit, 1 << 40)
    assert limit.ceiling == UNLIMITED
    assert "no limit" in repr(limit)


def test_a_lower_ceiling_lets_what_is_under_way_finish() -> None:
    """It turns away until enough has ended."""
    limit = Limit("requests", 5)
    limit.set(2)
    assert [full(limit, count) for count in (3, 2, 1)] == [True, True, False]
    limit.set(None)
    assert not full(limit, 3)
    limit.set(7)
    assert repr(limit) == "<Limit requests: 3 of 7>"


def test_who_finds_a_limit_shut_has_to_ask() -> None:
    """It is not full, and a change of configuration does not open it."""
    limit = Limit("requests", 5)
    limit.shut = True
    assert (limit.ceiling, limit.full, limit.shut) == (0, False, True)
    limit.set(9)
    assert (limit.ceiling, limit.most) == (0, 9)
    limit.shut = False
    assert (limit.ceiling, limit.shut) == (9, False)


def test_limits_of_a_spec() -> None:
    """Envoy's four, each as configured now."""
    limits = Limits(LimitsSpec(connections=1, pending=2, requests=3))
    limits.requests.count = 2
    assert limits.statistics() == {
        "connections": {"now": 0, "most": 1},
        "pending": {"now": 0, "most": 2},
        "requests": {"now": 2, "most": 3},
        "retries": {"now": 0, "most": None},
    }
    limits.adopt(LimitsSpec(retries=4))
    assert [limit.most for limit in limits.all] == [UNLIMITED, UNLIMITED, UNLIMITED, 4]
    assert limits.requests.count == 2
