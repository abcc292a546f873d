"""Round robin: in turn, by weight, evenly spread."""

from collections import Counter
from itertools import pairwise

from hypothesis import given, settings
from hypothesis import strategies as st

from meshproxy.policies.load_balancing.round_robin import RoundRobin
from tests.helpers.balancing import Server, chances, servers


def turns(policy: RoundRobin[Server], count: int) -> list[Server]:
    result = []
    for _ in range(count):
        picked = policy.pick(None)
        assert picked is not None
        result.append(picked)
    return result


@settings(deadline=None)
@given(st.lists(st.integers(1, 9), min_size=1, max_size=7), st.integers(0, 2**32))
def test_a_round_is_exactly_the_weights(weights: list[int], seed: int) -> None:
    """Over as many requests as all weights together, each gets its weight, give or take one."""
    all_ = servers(*weights)
    policy = RoundRobin(all_, chances(seed))
    turns(policy, 3 * sum(weights))
    counts = Counter(turns(policy, sum(weights)))
    for server in all_:
        assert abs(counts[server] - server.weight) <= 1


def test_equal_weights_take_turns() -> None:
    """Nobody is asked twice before all have been asked once."""
    all_ = servers(3, 3, 3, 3)
    sequence = turns(RoundRobin(all_, chances()), 40)
    assert all(set(sequence[at : at + 4]) == set(all_) for at in range(37))


def test_the_heavy_one_is_spread_out() -> None:
    """Of 5, 1, 1 the first is never asked more than five times in a row, and seldom so often."""
    heavy, one, two = all_ = servers(5, 1, 1)
    sequence = turns(RoundRobin(all_, chances()), 700)
    places = [at for at, server in enumerate(sequence) if server is heavy]
    assert len(places) == 500
    assert max(b - a for a, b in pairwise(places)) <= 3
    for light in (one, two):
        gaps = {b - a for a, b in pairwise([at for at, s in enumerate(sequence) if s is light])}
        assert gaps <= {6, 7, 8}


def test_two_proxies_do_not_walk_in_step() -> None:
    """Each begins somewhere else, or the first endpoint would get the first request of everybody."""
    all_ = servers(*[1] * 20)
    firsts = {RoundRobin(all_, chances(seed)).pick(None) for seed in range(50)}
    assert len(firsts) > 10


def test_who_is_avoided_keeps_its_turn() -> None:
    """It comes next, when nobody avoids it any more."""
    all_ = servers(1, 1, 1)
    policy = RoundRobin(all_, chances())
    first = turns(policy, 3)[0]
    assert policy.pick((first,)) is not first
    assert policy.pick(None) is first
